import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import SonorantError


def counted(made: list[Path]):
    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "result").write_text("whole")

    return make


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []
    work = Workspace(folder=tmp_path)
    first = work.stage("train", counted(made), {"lr": 1})
    assert work.stage("train", counted(made), {"lr": 1}) == first
    assert len(made) == 1
    assert [stage.fresh for stage in work.done] == [True, False]
    assert work.done[0].cost.seconds >= 0


@pytest.mark.parametrize("change", [{"seed": 1}, {}])
def test_other_inputs_make_another_folder(tmp_path: Path, change: dict) -> None:
    made: list[Path] = []
    work = Workspace(folder=tmp_path)
    work.stage("train", counted(made), {"lr": 1})
    replace(work, **change).stage("train", counted(made), {"lr": 1 if change else 2})
    assert len(set(made)) == 2


def test_a_failed_stage_starts_empty_again_unless_it_can_go_on(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def fails_once(folder: Path) -> None:
        seen.append(sorted(name for name in os.listdir(folder) if name != "inputs.json"))
        (folder / "half").write_text("half")
        if len(seen) % 2:
            raise RuntimeError("power cut")

    work = Workspace(folder=tmp_path)
    for resumable in (False, True):
        with pytest.raises(RuntimeError):
            work.stage("a", fails_once, resumable, resumable=resumable)
        work.stage("a", fails_once, resumable, resumable=resumable)
    assert seen == [[], [], [], ["half"]]


HOLD = """
import sys
from pathlib import Path
from sonorant.benchmark.workspace import Workspace
with Workspace(folder=Path(sys.argv[1])).locked():
    print("in", flush=True)
    input()
"""


def test_two_runs_do_not_share_a_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    work = Workspace(folder=tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(SonorantError, match=f"in use by process {other.pid}"), work.locked():
            pass
    finally:
        other.kill()
        other.communicate()
    # Its number still stands in the file, and may be another process's by now.
    assert (tmp_path / ".lock").read_text() == str(other.pid)
    with work.locked():
        pass


def test_what_has_changed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = Workspace(folder=tmp_path)
    made: list[Path] = []
    with caplog.at_level("INFO", "sonorant"):
        work.stage("train", counted(made), {"optim": {"lr": 1}, "steps": 5})
        assert "inputs changed" not in caplog.text
        work.stage("train", counted(made), {"optim": {"lr": 2}, "steps": 5})
    assert f"inputs changed since {made[0].name} (inputs.optim.lr: 1 → 2)" in caplog.text


def test_a_changed_stage_goes_on_only_where_it_is_told_to(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def make(folder: Path) -> None:
        seen.append(sorted(path.name for path in folder.iterdir() if path.suffix != ".json"))
        (folder / f"step{len(seen)}").write_text("")

    work = Workspace(folder=tmp_path)
    first = work.stage("train", make, {"lr": 1}, resumable=True)
    work.stage("train", make, {"lr": 2}, resumable=True)
    replace(work, resume="ignore-config").stage("train", make, {"lr": 3}, resumable=True)
    replace(work, resume="ignore-config", seed=1).stage("train", make, {"lr": 3}, resumable=True)
    assert seen == [[], [], ["step2"], []]
    assert work.stage("train", make, {"lr": 1}, resumable=True) == first, "what was finished stands as it was"


def test_the_other_processes_of_a_run_wait_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    met = threading.Barrier(2, timeout=20)

    class Second(Workspace):
        first = False  # type: ignore[assignment]

    def together(name: str):
        def make(folder: Path) -> None:
            met.wait()
            if name == "first":
                (folder / "model").write_text("whole")
            order.append(name)

        return make

    def alone(folder: Path) -> None:
        order.append("alone")

    def second() -> None:
        work = Second(folder=tmp_path)
        folder = work.stage("train", together("second"), 1, resumable=True, collective=True)
        assert (folder / "model").read_text() == "whole"
        work.stage("score", alone, 2)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(second)
        work = Workspace(folder=tmp_path)
        work.stage("train", together("first"), 1, resumable=True, collective=True)
        work.stage("score", alone, 2)
        waiting.result(20)
    assert sorted(order) == ["alone", "first", "second"], "what one process does is done once"
