"""The bar on standard error: steps, loss, learning rate, audio-seconds a second, time left; silent but on a terminal."""

import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar that is there only if asked for and standard error is a terminal.

    Args:
        step, steps: where training stands and where it ends.
        show: whether it is asked for (one worker of all should).
    """

    def __init__(self, step: int, steps: int, show: bool) -> None:
        self._bar: Any = None
        if not (show and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  lr {task.fields[lr]}  {task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._bar.add_task("train", total=steps, completed=step, loss="–", lr="–", speed="")
        self._bar.start()

    def update(self, step: int, losses: Mapping[str, float], rates: Mapping[str, float], speed: float) -> None:
        """`speed` in seconds of audio trained on in each second."""
        if self._bar is None:
            return
        loss = " ".join(f"{value:.4g}" for value in losses.values()) or "–"
        rate = " ".join(f"{value:.2e}" for value in rates.values()) or "–"
        self._bar.update(self._task, completed=step, loss=loss, lr=rate, speed=f"{speed:.0f} audio-s/s")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
