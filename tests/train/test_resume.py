"""Killed at any moment and started again, a training ends with the weights of the one left alone, bit for bit."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from train_toy import digest, train, train_and_tell

from sonorant.train.launch import launch

STEPS = 20
KILLED = -9
Outcome = Callable[..., int]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 3, "ema_decay": 0.9},
    "loaders": {"num_workers": 2, "per_pass": 12},
    "rarely written": {"checkpoint_every": 6, "per_pass": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_kills_change_nothing(name: str, tmp_path: Path, outcome: Outcome) -> None:
    options = {"steps": STEPS, "checkpoint_every": 3, **SETTINGS[name]}
    alone, _ = train(tmp_path / "alone", **options)
    draw = random.Random(name)
    micro = options.get("accumulate", 1)
    first, second = draw.randint(4, 9) * micro, draw.randint(4, 7) * micro
    folder = str(tmp_path / "killed")
    assert outcome(train_and_tell, folder, options, first) == KILLED
    assert outcome(train_and_tell, folder, options, second) == KILLED
    assert not (tmp_path / "killed" / "digest.txt").exists()
    assert outcome(train_and_tell, folder, options) == 0
    assert (tmp_path / "killed" / "digest.txt").read_text() == digest(alone), f"killed at {first}, then {second}"


def test_a_storm_of_kills_at_any_moment_changes_nothing(tmp_path: Path, start: Callable[..., Any]) -> None:
    # A checkpoint after every step, so that many kills fall into the midst of writing one.
    options = {"steps": 60, "checkpoint_every": 1, "ema_decay": 0.9}
    alone, _ = train(tmp_path / "alone", **options)
    folder = tmp_path / "stormed"
    draw = random.Random(3)
    kills = 0
    for _ in range(60):
        process = start(train_and_tell, str(folder), options)
        process.join(draw.uniform(0.1, 0.5))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        if (folder / "digest.txt").exists():
            break
    assert kills >= 2
    assert (folder / "digest.txt").read_text() == digest(alone)


def test_logs_have_each_step_once_after_kills(tmp_path: Path, outcome: Outcome) -> None:
    options = {"steps": STEPS, "checkpoint_every": 7, "log_every": 2}
    _, _ = train(tmp_path / "alone", **options)
    folder = tmp_path / "killed"
    assert outcome(train_and_tell, str(folder), options, 12) == KILLED
    assert outcome(train_and_tell, str(folder), options) == 0

    def learnt(name: str) -> list[str]:
        # The last two columns are the session's pace.
        return [line.rsplit(",", 2)[0] for line in (tmp_path / name / "log.csv").read_text().splitlines()]

    assert learnt("killed") == learnt("alone")


def test_two_workers_killed_and_resumed(tmp_path: Path, server: Any) -> None:
    options = {"steps": 12, "checkpoint_every": 3}
    together = launch(train_and_tell, 2, str(tmp_path / "alone"), options, start_method="forkserver")
    for _ in range(2):
        with pytest.raises(Exception, match="ended without a word"):
            launch(train_and_tell, 2, str(tmp_path / "killed"), options, 5, start_method="forkserver")
    assert launch(train_and_tell, 2, str(tmp_path / "killed"), options, start_method="forkserver") == together


def test_clock_decides_when_to_write_and_nothing_else(tmp_path: Path) -> None:
    options = {"steps": STEPS, "checkpoint_every": 0}
    seldom, _ = train(tmp_path / "seldom", **options, checkpoint_minutes=10)
    often, _ = train(tmp_path / "often", **options, checkpoint_minutes=1e-5, keep=100)
    assert digest(seldom) == digest(often)
    assert len(list((tmp_path / "seldom" / "checkpoints").glob("step-*"))) == 1
    assert len(list((tmp_path / "often" / "checkpoints").glob("step-*"))) > 5


def test_dropout_is_on_trial(tmp_path: Path) -> None:
    # Were dropout off, the tests above would not show that random state is taken up again.
    assert digest(train(tmp_path / "a", steps=3)[0]) != digest(train(tmp_path / "b", steps=3, seed=1)[0])


def test_validation_and_diagnosis_do_not_touch_training(tmp_path: Path) -> None:
    import torch
    from train_toy import mean_error

    quiet, _ = train(tmp_path / "quiet", steps=8)
    seen = []

    def validate() -> list[Any]:
        torch.rand(17)
        random.random()
        return mean_error(quiet)

    def diagnose(batch: Any) -> dict[str, float]:
        seen.append(len(batch))
        return {"draw": float(torch.rand(1))}

    from sonorant.train.config import DoctorConfig

    doctor = DoctorConfig(diagnose_every=2, flat_steps=0)
    watched, result = train(
        tmp_path / "watched", steps=8, validate=validate, validate_every=2, diagnose=diagnose, doctor=doctor
    )
    assert digest(watched) == digest(quiet)
    assert len(seen) == 4
    assert result.scores[0].name == "error"


def test_resume_takes_no_longer_than_a_moment(tmp_path: Path) -> None:
    train(tmp_path, steps=5)
    begin = time.perf_counter()
    _, result = train(tmp_path, steps=5)
    assert result.step == 5
    assert time.perf_counter() - begin < 2
