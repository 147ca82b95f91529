"""A checkpoint is whole or absent: crashes, truncated files and full disks never cost the previous one."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toy import digest, train, train_and_tell

from sonorant.core.errors import CheckpointError, TrainingError
from sonorant.train.checkpoint import Checkpoints, TrainingState, read_state, restore_weights


def state(step: int, size: int = 50) -> TrainingState:
    weight = torch.full((size,), float(step))
    moments = {"weight": {"step": torch.tensor(float(step)), "exp_avg": weight * 2}}
    rest = {"feeds": [{"consumed": step}], "numbers": (1, 2.5, None), "by": {3: "three"}}
    return TrainingState(step, {"weight": weight}, {"weight": weight / 2}, {"model": moments}, rest)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(state(7))
    found = checkpoints.latest()
    assert found is not None
    wanted = state(7)
    assert (found.step, dict(found.rest)) == (7, dict(wanted.rest))
    assert torch.equal(found.model["weight"], wanted.model["weight"])
    assert torch.equal(found.average["weight"], wanted.average["weight"])
    assert torch.equal(found.optimizers["model"]["weight"]["exp_avg"], wanted.model["weight"] * 2)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path).write(state(1))
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}


def test_newest_and_best_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        checkpoints.write(state(step), best=step == 2)
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.pointed("best") == checkpoints.path(2)
    assert checkpoints.pointed("last") == checkpoints.path(6)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "emptied": lambda folder: os.truncate(folder / "state.json", 0),
    "cut JSON": lambda folder: os.truncate(folder / "state.json", 200),
    "one file gone": lambda folder: (folder / "state.safetensors").unlink(),
    "one bit": lambda folder: _flip(folder / "average.safetensors"),
    "JSON gone": lambda folder: (folder / "state.json").unlink(),
}


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(state(3))
    DAMAGE[name](checkpoints.write(state(4)))
    with pytest.warns(UserWarning, match=r"step-00000004 is damaged(.|\n)*going on from step 3"):
        found = checkpoints.latest()
    assert found is not None
    assert found.step == 3
    # It is out of the way, so that it does not push a good one out of the newest.
    assert checkpoints.steps() == [3]


def test_all_damaged_is_an_error_not_a_new_start(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    os.truncate(checkpoints.write(state(3)) / "model.safetensors", 10)
    with pytest.raises(CheckpointError, match="no checkpoint under .* can be read"):
        checkpoints.latest()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path).write(state(3))
    text = (folder / "state.json").read_text().replace('"schema": 1', '"schema": 99')
    (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"newer version \(schema 99\)"):
        read_state(folder)


@pytest.mark.parametrize("crash_in", ["save_file", "replace"])
def test_a_crash_in_the_midst_of_writing(crash_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(state(3))

    def crash(*args: Any, **options: Any) -> None:
        if crash_in == "save_file":
            Path(args[1]).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file" if crash_in == "save_file" else "os.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.write(state(4))
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 3


def kill_while_writing(folder: str) -> None:
    """Dies when the model of the second checkpoint is written and its state is not."""
    import safetensors.torch

    save = safetensors.torch.save_file
    calls = 0

    def counted(tensors: Any, path: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.truncate(path, 10) if Path(path).exists() else Path(path).write_bytes(b"half")
            os.kill(os.getpid(), 9)
        save(tensors, path)

    safetensors.torch.save_file = counted
    train_and_tell(folder, {"steps": 20, "checkpoint_every": 4})


def test_killed_in_the_midst_of_writing(tmp_path: Path, outcome: Callable[..., int]) -> None:
    alone, _ = train(tmp_path / "alone", steps=20)
    folder = tmp_path / "killed"
    assert outcome(kill_while_writing, str(folder)) == -9
    assert list((folder / "checkpoints").glob(".*.part"))
    assert Checkpoints(folder).steps() == [4]
    objective, result = train(folder, steps=20)
    assert digest(objective) == digest(alone)
    assert result.step == 20
    assert not list((folder / "checkpoints").glob(".*.part"))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(state(3))

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        with pytest.raises(TrainingError) as caught:
            checkpoints.write(state(4))
    message = str(caught.value)
    assert "checkpoint of step 4 could not be written" in message
    assert "No space left on device" in message
    assert "the checkpoint of step 3 stands as it was" in message
    assert "same command" in message
    assert checkpoints.steps() == [3]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def limited(folder: str, told: str) -> None:
    """A real limit on the size of files, as a disk with no room left; the log is small and passes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    try:
        train(folder, steps=8)
    except TrainingError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(told).write_text(str(error))


def test_a_real_limit_of_the_system(tmp_path: Path, outcome: Callable[..., int]) -> None:
    train(tmp_path / "run", steps=4)
    whole, _ = train(tmp_path / "whole", steps=8)
    assert outcome(limited, str(tmp_path / "run"), str(tmp_path / "told.txt")) == 0
    message = (tmp_path / "told.txt").read_text()
    assert "checkpoint of step 8 could not be written" in message
    assert "File too large" in message
    assert "the checkpoint of step 4 stands as it was" in message
    resumed, _ = train(tmp_path / "run", steps=8)
    assert digest(resumed) == digest(whole)


def test_a_full_disk_stops_the_log_with_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sonorant.train.log.CsvLog.append", full)
    with pytest.raises(TrainingError, match=r"the log could not be written(.|\n)*No space left"):
        train(tmp_path, steps=6)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


def test_tied_and_sliced_tensors(tmp_path: Path) -> None:
    module = Tied()
    base = torch.arange(6.0)
    model = {**module.state_dict(), "slice": base[2:4], "turned": base.view(2, 3).t()}
    Checkpoints(tmp_path).write(TrainingState(1, model, {}, {}, {}))
    found = read_state(Checkpoints(tmp_path).path(1)).model
    for name, tensor in model.items():
        assert torch.equal(found[name], tensor)


def test_restore_weights_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no training checkpoint under"):
        restore_weights(nn.Linear(1, 1), tmp_path)
