"""Several local workers by one call, each a process in which `fit` finds the others.

The same variables are set as by torchrun, which starts workers on several machines; see docs/training.md.
"""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import torch

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, SonorantError, TrainingError
from sonorant.train.signals import Interrupted

__all__ = ["launch"]

GRACE = 10.0
"""Seconds that workers get to end by themselves when another one has failed."""


def launch(
    function: Callable[..., Any], num_processes: int, *args: Any, threads: int = 0, start_method: str = "spawn"
) -> Any:
    """Runs `function(*args)` in `num_processes` processes of this machine and returns what the first one returned.

    When one fails the others are ended and its error is raised here: one of ours as it is, any other as a TrainingError
    with the worker's traceback. SIGTERM and Ctrl-C are passed on, so that `fit` in each worker finishes its step, writes
    and leaves; should this process die, the workers do the same.

    Args:
        function: importable from a module (processes are started afresh, not forked); returns something that pickles.
        num_processes: 1 runs it right here.
        threads: torch threads of each worker; 0 shares out the cores, unless OMP_NUM_THREADS says otherwise.
        start_method: `"spawn"`, or `"forkserver"` (faster the second time, not everywhere to be had).

    Raises:
        ConfigError: this process is itself a worker.
        TrainingError: a worker failed or was killed.
    """
    at_least("num_processes", num_processes, 1)
    if num_processes == 1:
        return function(*args)
    if "RANK" in os.environ:
        raise ConfigError("this process is already a worker (RANK is set, by torchrun?): ask for one process in each")
    # The store listens in this process on a port that the system gives it, so that there is no race for a free one.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context: Any = torch.multiprocessing.get_context(start_method)
    workers = []
    for rank in range(num_processes):
        receiving, sending = context.Pipe(duplex=False)
        variables = _variables(rank, num_processes, store.port)
        count = threads or _threads(num_processes)
        process = context.Process(target=_work, args=(sending, variables, count, function, args), name=f"worker {rank}")
        process.start()
        sending.close()
        workers.append(_Worker(rank, process, receiving))
    with _Forwarding(workers):
        _await(workers)
    return workers[0].value


@dataclass
class _Worker:
    rank: int
    process: Any
    pipe: Connection
    outcome: tuple[Any, ...] = field(default=("running",))
    value: Any = None
    done: bool = field(default=False)

    def read(self) -> None:
        """Takes what the worker sent, or notes that it died without a word."""
        told: tuple[Any, ...] = ("died",)
        # The pipe is ready; where it holds nothing, the worker closed it by dying.
        with suppress(EOFError):
            told = self.pipe.recv()
        self.outcome = told
        self.process.join()
        self.done = True
        if told[0] == "value":
            self.value = told[1]


def _await(workers: list[_Worker]) -> None:
    """Until all have ended; the first failure ends the others and is raised."""
    failed: list[_Worker] = []
    deadline = None
    while remaining := [worker for worker in workers if not worker.done]:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait([worker.pipe for worker in remaining], timeout=left)
        for worker in (worker for worker in remaining if worker.pipe in ready):
            worker.read()
            if worker.outcome[0] != "value":
                failed.append(worker)
        if not ready:
            _end(remaining)
        elif failed and deadline is None:
            deadline = time.monotonic() + GRACE
    if failed:
        raise _error(failed)


def _end(workers: list[_Worker]) -> None:
    """Ends workers that wait for one that is gone; they cannot finish, so they are not asked."""
    for worker in workers:
        worker.process.kill()


def _error(failed: list[_Worker]) -> Exception:
    """The cause among several failures: an error that was told before a death, which is often its consequence."""
    first = next((worker for worker in failed if worker.outcome[0] == "ours"), failed[0])
    kind, *rest = first.outcome
    if kind == "ours":
        module, name, message, number = rest
        if name == Interrupted.__name__:
            return Interrupted(message, number)
        cls = getattr(importlib.import_module(module), name)
        return cls(message)
    if kind == "error":
        return TrainingError(f"worker {first.rank} failed:\n{rest[0]}")
    code = first.process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
    return TrainingError(
        f"worker {first.rank} ended without a word ({how}): out of memory, or killed. What was written stands; run the "
        "same command to go on"
    )


class _Forwarding:
    """Within the block SIGTERM and Ctrl-C go to the workers, and this process waits for them."""

    def __init__(self, workers: list[_Worker]) -> None:
        self._workers = workers
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._forward)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _end([worker for worker in self._workers if worker.process.is_alive()])

    def _forward(self, number: int, frame: FrameType | None) -> None:
        for worker in self._workers:
            if worker.process.is_alive():
                # Always SIGTERM: a terminal sends Ctrl-C to the workers itself, and a second one would cut them short.
                worker.process.terminate()


# --- in the worker ------------------------------------------------------------------------------------------------------


def _work(
    pipe: Connection, variables: Mapping[str, str], threads: int, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        outcome: tuple[Any, ...] = ("value", function(*args))
    except SonorantError as error:
        cls = type(error)
        outcome = ("ours", cls.__module__, cls.__name__, str(error), getattr(error, "number", 0))
    except BaseException:
        outcome = ("error", traceback.format_exc())
    first = variables["RANK"] == "0"
    pipe.send(outcome if first or outcome[0] != "value" else ("value", None))
    pipe.close()
    if torch.distributed.is_initialized() and outcome[0] == "value":
        torch.distributed.destroy_process_group()
    sys.exit(0 if outcome[0] == "value" else 1)


def _follow_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _variables(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets, for one machine; the store is the launcher's, which torch calls the agent's."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "sonorant",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def _threads(count: int) -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else max(1, (os.cpu_count() or 1) // count)
