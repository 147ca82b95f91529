"""Each diagnosis: what brings it about, what it says, and that a healthy training is left alone."""

import logging
import math
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toy import OFF, Regression, make_batch, train

from sonorant.core.types import Batch, Loss
from sonorant.train.config import DoctorConfig
from sonorant.train.doctor import Diagnosis, Doctor, dead_items, untargeted_items


def observed(losses: list[float], **config: Any) -> Doctor:
    doctor = Doctor(DoctorConfig(**config))
    for step, loss in enumerate(losses, start=1):
        doctor.observe(step, {"model": loss})
    return doctor


def noisy(start: float, end: float, count: int) -> list[float]:
    draw = random.Random(0)
    return [start + (end - start) * i / count + draw.gauss(0, 0.05 * abs(start)) for i in range(count)]


# --- losses ---------------------------------------------------------------------------------------------------------


def test_a_falling_loss_is_left_alone() -> None:
    observed(noisy(5.0, 0.5, 4000))
    observed(noisy(-1.0, -20.0, 4000))


def test_a_few_spikes_pass() -> None:
    losses = noisy(2.0, 1.0, 1000)
    losses[300:320] = [1e4] * 20
    observed(losses)


@pytest.mark.parametrize("level", [2.0, -2.0])
def test_an_exploding_loss_stops(level: float) -> None:
    losses = noisy(level, level, 500) + [100.0 * 1.01**i for i in range(60)]
    with pytest.raises(Diagnosis, match=r"the loss 'model' explodes: .* at step 550, 50 steps in a row(.|\n)*clip"):
        observed(losses)


def test_a_flat_loss_stops() -> None:
    with pytest.raises(Diagnosis, match=r"is flat: .* after 3000 steps(.|\n)*learning rate"):
        observed(noisy(4.0, 4.0, 3100))
    observed(noisy(4.0, 4.0, 3100), flat_steps=0)


def test_a_frozen_loss_stops_unless_it_is_nothing() -> None:
    with pytest.raises(Diagnosis, match=r"exactly 2.5 for 100 steps(.|\n)*learning rate 0"):
        observed([2.5] * 200)
    observed([0.0] * 200)


def test_a_learning_rate_of_zero_is_found(tmp_path: Path) -> None:
    with pytest.raises(Diagnosis, match="exactly"):
        train(tmp_path, steps=200, lr=0.0, dropout=0.0, per_pass=1, doctor=DoctorConfig(), batches=Same())


class Same:
    """One batch for ever."""

    def __iter__(self) -> Any:
        while True:
            yield make_batch(1)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def test_what_it_remembers_is_taken_up_again() -> None:
    losses = noisy(2.0, 2.0, 300) + [1000.0] * 49
    doctor = observed(losses)
    other = Doctor(DoctorConfig())
    other.load_state_dict(doctor.state_dict())
    with pytest.raises(Diagnosis, match="explodes"):
        other.observe(350, {"model": 1000.0})


# --- batches --------------------------------------------------------------------------------------------------------


def batch_of(waveform: torch.Tensor, **labels: Any) -> Batch:
    count, time = waveform.shape
    return Batch(waveform, torch.full((count,), time), 100, labels, ids=tuple(f"u{i}" for i in range(count)))


def test_dead_items() -> None:
    torch.manual_seed(0)
    live = torch.randn(5, 2, 40)
    live[1] = 0.0
    live[2] = 0.25
    live[3, 0] = 0.0
    live[4, 0, 3] = math.nan
    assert dead_items(live, torch.full((5,), 40)) == [1, 2, 4]
    # Padding must not bring a constant item to life, nor kill a live one.
    padded = torch.tensor([[0.3, 0.3, 0.0], [0.1, 0.2, 0.0]])
    assert dead_items(padded, torch.tensor([2, 2])) == [0]


def test_mostly_dead_audio_stops_with_names() -> None:
    waveform = torch.randn(4, 50)
    waveform[1:] = 0.0
    with pytest.raises(Diagnosis, match=r"3 of the first 4 items carry constant(.|\n)*u1, u2, u3(.|\n)*wrong channel"):
        Doctor(DoctorConfig()).inspect(batch_of(waveform))


def test_some_dead_audio_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    waveform = torch.randn(4, 50)
    waveform[2] = 0.0
    doctor = Doctor(DoctorConfig())
    with caplog.at_level(logging.WARNING):
        doctor.inspect(batch_of(waveform))
        doctor.inspect(batch_of(waveform))
    assert caplog.text.count("item u2") == 1


def test_labels_that_the_alphabet_does_not_cover() -> None:
    labels = {"text": ["да", "нет", "", "ok"], "tokens_lengths": torch.tensor([0, 0, 0, 2])}
    batch = batch_of(torch.randn(4, 50), **labels)
    assert untargeted_items(batch) == [0, 1]
    with pytest.raises(
        Diagnosis, match=r"2 of the first 4 items have text but no target(.|\n)*alphabet does not cover"
    ):
        Doctor(DoctorConfig(dead_share=0.4)).inspect(batch)


def test_inspection_becomes_rare() -> None:
    for first, seen in ((2, False), (3, True)):
        doctor = Doctor(DoctorConfig(inspect_first=first, inspect_every=0, dead_share=0.2))
        for _ in range(2):
            doctor.inspect(batch_of(torch.randn(1, 50)))
        with pytest.raises(Diagnosis) if seen else nullcontext():
            doctor.inspect(batch_of(torch.zeros(1, 50)))


# --- output, gradients, time ------------------------------------------------------------------------------------------


def test_all_blank_output_stops_a_training(tmp_path: Path) -> None:
    doctor = DoctorConfig(flat_steps=0, diagnose_every=5, blank_steps=15)
    with pytest.raises(Diagnosis, match=r"all blank: 100.0% of frames at step 15"):
        train(tmp_path / "blank", steps=40, doctor=doctor, diagnose=lambda batch: {"blank_share": 1.0})
    _, result = train(tmp_path / "fine", steps=20, doctor=doctor, diagnose=lambda batch: {"blank_share": 0.9})
    assert result.step == 20
    assert "blank_share" in (tmp_path / "fine" / "log.csv").read_text().splitlines()[0]


class Partial(Regression):
    """Has a part that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 2)


class Rounded(Regression):
    """Its loss depends on a parameter, but through nothing that has a gradient."""

    def losses(self, batch: Batch) -> dict[str, Loss]:
        loss = super().losses(batch)["model"]
        return {"model": Loss(loss.total.detach() + 0 * torch.zeros((), requires_grad=True), loss.count)}


def test_unreached_parameters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from train_toy import QUIET, ToyBatches, toy_optimizers

    from sonorant.train.config import TrainConfig
    from sonorant.train.loop import fit

    config = TrainConfig(**{**QUIET, "doctor": OFF})
    partial, rounded = Partial(), Rounded()
    with caplog.at_level(logging.WARNING):
        fit(partial, ToyBatches(), toy_optimizers(partial), steps=1, folder=tmp_path / "a", config=config)
    assert "2 of 6 parameters got no gradient in the first step: idle.weight, idle.bias" in caplog.text
    with pytest.raises(Diagnosis, match=r"no parameter got a gradient(.|\n)*argmax"):
        fit(rounded, ToyBatches(), toy_optimizers(rounded), steps=1, folder=tmp_path / "b", config=config)


def test_starvation_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        # Long enough that a busy machine, which slows the steps and not the pauses, does not change the answer.
        _, result = train(tmp_path, steps=120, pause=0.03)
    assert result.waiting_share > 0.5
    assert caplog.text.count("waits for data") == 1
