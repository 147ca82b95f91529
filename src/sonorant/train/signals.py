"""SIGTERM and Ctrl-C as requests: the step is finished, the state written, and then training is left."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from sonorant.core.errors import TrainingError

__all__ = ["Interrupted", "Interrupts"]


class Interrupted(TrainingError):
    """Training was asked to stop, has written its state and can be resumed."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.number = number
        """Of the signal."""
        self.exit_status = 128 + number


class Interrupts:
    """Within the block SIGTERM and SIGINT set `number`; a second Ctrl-C interrupts at once, as ever.

    Handlers can be set from the main thread only; in another one the block changes nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: it was set outside Python, and cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
