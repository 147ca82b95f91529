import os
import subprocess
import sys
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
        seen.append(sorted(os.listdir(folder)))
        (folder / "half").write_text("half")
        if len(seen) % 2:
            raise RuntimeError("power cut")

    work = Workspace(folder=tmp_path)
    for resumable in (False, True):
        with pytest.raises(RuntimeError):
            work.stage("a", fails_once, resumable, resumable=resumable)
        work.stage("a", fails_once, resumable, resumable=resumable)
    assert seen == [[], [], [], ["half"]]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    work = Workspace(folder=tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / ".lock").write_text(str(other.pid))
        with pytest.raises(SonorantError, match=f"in use by process {other.pid}"), work.locked():
            pass
    finally:
        other.communicate(b"\n")
    with work.locked():
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
