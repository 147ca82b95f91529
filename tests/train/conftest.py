"""Processes that start at once: a server has imported torch and the toy training, and each process is forked from it."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def server() -> Any:
    """A multiprocessing context whose processes start in milliseconds."""
    paths = [str(HERE), str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    context = multiprocessing.get_context("forkserver")
    needed = ["train_toy", "lightning.fabric", "sonorant.train.launch", "lhotse", "sonorant.data.batches"]
    context.set_forkserver_preload([*needed, "torch.distributed.tensor", "lightning.fabric.strategies"])
    return context


@pytest.fixture
def start(server: Any) -> Callable[..., Any]:
    """Starts `function(*args)` in a process of its own and hands the process over."""

    def started(function: Callable[..., Any], *args: Any) -> Any:
        process = server.Process(target=function, args=args)
        process.start()
        return process

    return started


@pytest.fixture
def outcome(start: Callable[..., Any]) -> Callable[..., int]:
    """Runs `function(*args)` in a process of its own to its end; its exit code, negative for a signal."""

    def ended(function: Callable[..., Any], *args: Any) -> int:
        process = start(function, *args)
        process.join(120)
        assert process.exitcode is not None, "still running after two minutes"
        return process.exitcode

    return ended
