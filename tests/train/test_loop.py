"""The loop's promises that need no second process: resume, validation, early stop, refusals, skipped steps."""

import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from train_toy import OFF, QUIET, Regression, ToyBatches, digest, mean_error, toy_optimizers, train

from sonorant.core.errors import CheckpointError, ConfigError, DataError, MissingPackage, TrainingError
from sonorant.core.types import Batch, Loss, Score
from sonorant.train.checkpoint import restore_weights
from sonorant.train.config import DoctorConfig, TrainConfig
from sonorant.train.doctor import Diagnosis
from sonorant.train.loop import fit
from sonorant.train.signals import Interrupted


def test_training_learns(tmp_path: Path) -> None:
    objective, result = train(tmp_path, steps=60, dropout=0.0)
    assert mean_error(objective)[0].value < 0.3 * mean_error(Regression())[0].value
    assert result.step == 60
    assert result.stopped == "steps"
    assert result.audio_seconds > 60
    assert 0 <= result.waiting_share <= 1


def test_a_finished_training_is_carried_further(tmp_path: Path) -> None:
    train(tmp_path / "parts", steps=8)
    further, result = train(tmp_path / "parts", steps=15)
    whole, _ = train(tmp_path / "whole", steps=15)
    assert digest(further) == digest(whole)
    assert result.step == 15


def test_best_checkpoint_and_early_stop(tmp_path: Path) -> None:
    figures = iter([5.0, 3.0, math.nan, 4.0, 3.5, 1.0])

    def validate() -> list[Score]:
        return [Score("other", 0.0, "higher"), Score("wer", next(figures), "lower")]

    options: dict[str, Any] = {"validate": validate, "validate_every": 5, "best": "wer", "patience": 3}
    _, result = train(tmp_path, steps=100, **options)
    assert (result.stopped, result.step, result.best_step) == ("patience", 25, 10)
    assert result.best is not None
    assert result.best.value == 3.0
    objective = Regression()
    assert restore_weights(objective, tmp_path) == 10
    assert restore_weights(objective, tmp_path, "last") == 25
    _, again = train(tmp_path, steps=100, **options)
    assert (again.step, again.stopped, again.best_step) == (25, "patience", 10)
    rows = (tmp_path / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5


def test_unknown_best_score_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown score in 'best' 'wre'; did you mean 'wer'"):
        train(tmp_path, steps=2, validate=lambda: [Score("wer", 1.0, "lower")], best="wre")


def test_validation_sees_averaged_weights_in_eval_mode(tmp_path: Path) -> None:
    objective = Regression()
    seen: list[Any] = []

    def validate() -> list[Score]:
        seen.append((objective.training, torch.is_grad_enabled(), objective.net[0].weight.detach().clone()))
        return []

    config = TrainConfig(**{**QUIET, "doctor": OFF, "ema_decay": 0.9})
    fit(objective, ToyBatches(), toy_optimizers(objective), steps=6, folder=tmp_path, config=config, validate=validate)
    training, gradients, averaged = seen[0]
    assert not training
    assert not gradients
    assert not torch.equal(averaged, objective.net[0].weight)
    other = Regression()
    restore_weights(other, tmp_path)
    assert torch.equal(other.net[0].weight, averaged)
    restore_weights(other, tmp_path, average=False)
    assert torch.equal(other.net[0].weight, objective.net[0].weight)


def test_another_configuration_is_refused_by_field(tmp_path: Path) -> None:
    settings = {"encoder": {"num_layers": 4, "dim": 8}, "lr": 0.1}
    train(tmp_path, steps=3, settings=settings)
    changed = {"encoder": {"num_layers": 6, "dim": 8}, "lr": 0.1}
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, steps=5, settings=changed, accumulate=2, lr=0.5)
    message = str(caught.value)
    assert "settings.encoder.num_layers: there 4, now 6" in message
    assert "train.accumulate: there 1, now 2" in message
    assert "optimizers.model.group0.lr: there 0.02, now 0.5" in message
    assert "dim" not in message
    assert "another folder" in message
    assert "resume='ignore-config'" in message
    _, result = train(tmp_path, steps=5, settings=changed, lr=0.5, resume="ignore-config")
    assert result.step == 5


def test_what_does_not_change_learning_may_change(tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    _, result = train(tmp_path, steps=4, log_every=1, checkpoint_every=2, keep=5, doctor=DoctorConfig())
    assert result.step == 4


def test_another_model_is_refused_with_its_geometry(tmp_path: Path) -> None:
    train(tmp_path, steps=2)
    objective = Regression()
    objective.net[3] = torch.nn.Linear(6, 2)
    with pytest.raises(CheckpointError, match=r"net.3.weight: checkpoint 1×6, model 2×6"):
        fit(objective, ToyBatches(), toy_optimizers(objective), steps=3, folder=tmp_path, config=TrainConfig(**QUIET))


def test_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing to train on"):
        train(tmp_path, per_pass=0)
    assert not (tmp_path / "checkpoints").exists()


def test_batches_that_cannot_resume_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="state_dict and load_state_dict"):
        train(tmp_path, batches=lambda rank, world: [1, 2])


class Poisoned(Regression):
    """Its loss is not a number for some batches, counted from 1."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__(dropout=0.0)
        self.bad, self.calls = bad, 0

    def losses(self, batch: Batch) -> dict[str, Loss]:
        self.calls += 1
        loss = super().losses(batch)["model"]
        return {"model": Loss(loss.total * math.nan if self.calls in self.bad else loss.total, loss.count)}


def poisoned(folder: Path, bad: set[int], steps: int, **doctor: Any) -> tuple[Poisoned, Any]:
    objective = Poisoned(bad)
    config = TrainConfig(**{**QUIET, "doctor": DoctorConfig(flat_steps=0, **doctor)})
    return objective, fit(objective, ToyBatches(), toy_optimizers(objective), steps=steps, folder=folder, config=config)


def test_a_step_that_is_not_finite_is_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        objective, result = poisoned(tmp_path, {3}, steps=6)
    assert result.skipped_steps == 1
    assert "step 3 skipped: the loss 'model' is nan (items item2-0, item2-1, item2-2)" in caplog.text
    assert all(bool(torch.isfinite(p).all()) for p in objective.parameters())


def test_only_the_guilty_micro_batch_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objective = Poisoned({4})
    config = TrainConfig(**{**QUIET, "accumulate": 2})
    with caplog.at_level(logging.WARNING):
        fit(objective, ToyBatches(), toy_optimizers(objective), steps=3, folder=tmp_path, config=config)
    assert "item3-0" in caplog.text
    assert "item2-0" not in caplog.text


def test_a_streak_of_them_stops(tmp_path: Path) -> None:
    with pytest.raises(Diagnosis, match=r"4 steps in a row were not finite, the last at step 9(.|\n)*item1001-0"):
        poisoned(tmp_path, {6, 7, 8, 9}, steps=20, max_nonfinite=4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_writes_and_leaves(number: int, tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", steps=12)
    before = signal.getsignal(number)

    def strike() -> list[Score]:
        os.kill(os.getpid(), number)
        return []

    options: dict[str, Any] = {"steps": 12, "validate_every": 5, "checkpoint_every": 0}
    with pytest.raises(
        Interrupted, match=r"did, after step 6 of 12; everything is written(.|\n)*same command"
    ) as caught:
        train(tmp_path / "run", validate=strike, **options)
    assert caught.value.number == number
    assert signal.getsignal(number) == before
    assert (tmp_path / "run" / "checkpoints" / "last").read_text().strip() == "step-00000006"
    resumed, result = train(tmp_path / "run", validate=list, **options)
    assert digest(resumed) == digest(whole)
    assert result.step == 12


def test_optimiser_named_in_no_loss_or_schedule(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown optimiser in schedules 'modell'; did you mean 'model'"):
        train(tmp_path, schedules={"modell": lambda step: 1.0})


def test_quiet_when_not_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, steps=3, progress=True)
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == ""


def test_without_lightning_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    with pytest.raises(MissingPackage, match=r"lightning is needed for training .* pip install 'sonorant\[train\]'"):
        train(tmp_path, steps=1)


def test_the_loop_imports_nothing_heavy() -> None:
    code = (
        "import sys, sonorant.train.loop; print([m for m in ('lightning', 'tensorboard', 'rich') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
