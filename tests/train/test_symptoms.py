"""Collapse is stopped with its cause; a healthy representation, an early one and a passing one are left alone."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toy import Regression, train

from sonorant.train.config import DoctorConfig
from sonorant.train.doctor import Diagnosis, Doctor
from sonorant.train.symptoms import gradient_shares

HEALTHY = {
    "frame_variation": 0.4,
    "effective_rank": 30.0,
    "predicted_perplexity": 40.0,
    "contrastive_accuracy": 0.5,
    "contrastive_chance": 0.01,
}
SICK = [
    ({"frame_variation": 1e-5}, r"frames vary by 1e-05(.|\n)*warm-up"),
    ({"frame_variation": math.nan, "effective_rank": math.nan}, r"frames are not finite though the loss is"),
    ({"effective_rank": 1.2}, r"collapsed to 1.20 directions(.|\n)*spans"),
    ({"predicted_perplexity": 1.01}, r"the predicted codes have collapsed: 1.01(.|\n)*one answer for every frame"),
    ({"target_perplexity": 1.0}, r"the target codes have collapsed: 1.00(.|\n)*nothing to predict"),
    ({"contrastive_accuracy": 0.012}, r"right in 1.20%, and guessing gives 1.00%(.|\n)*by heart"),
]


def examined(statistics: dict[str, float], steps: list[int], **config: Any) -> Doctor:
    doctor = Doctor(DoctorConfig(**config))
    for step in steps:
        doctor.examine(step, statistics)
    return doctor


@pytest.mark.parametrize("change, message", SICK)
def test_each_sign_stops_after_three_looks(change: dict[str, float], message: str) -> None:
    sick = {**HEALTHY, **change}
    examined(HEALTHY, list(range(200, 10_000, 200)))
    examined(sick, [200, 400])
    doctor = examined(sick, [4000, 4200])
    resumed = Doctor(DoctorConfig())
    resumed.load_state_dict(doctor.state_dict())
    for looked in (doctor, resumed):
        with pytest.raises(Diagnosis, match=message + r"(.|\n)*step 4400, 3 checks in a row"):
            looked.examine(4400, sick)
    examined(sick, list(range(200, 10_000, 200)), collapse_steps=0, chance_steps=0)


def test_a_passing_sign_is_forgotten() -> None:
    doctor = Doctor(DoctorConfig())
    for step in range(1000, 6000, 200):
        doctor.examine(step, HEALTHY if step % 600 == 0 else {**HEALTHY, "effective_rank": 1.0})


def test_what_older_checkpoints_hold_is_enough() -> None:
    doctor = Doctor(DoctorConfig())
    doctor.load_state_dict({"losses": {}, "nonfinite": 0})


def test_gradients_by_part() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleDict({"local": nn.Linear(2, 2), "blocks": nn.Linear(2, 2)})
            self.head = nn.Linear(2, 1, bias=False)

    module = Two()
    module.encoder["local"].weight.grad = torch.full((2, 2), 1.5)
    module.encoder["blocks"].bias.grad = torch.zeros(2)
    module.head.weight.grad = torch.tensor([[4.0, 0.0]])
    shares = gradient_shares(module)
    assert shares == pytest.approx(
        {"gradient/encoder.local": 0.6, "gradient/encoder.blocks": 0.0, "gradient/head": 0.8}
    )
    assert gradient_shares(nn.Linear(1, 1)) == {}


def test_a_collapsed_training_stops_within_its_first_looks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    doctor = DoctorConfig(flat_steps=0, diagnose_every=5, collapse_steps=10)
    with caplog.at_level(logging.WARNING), pytest.raises(Diagnosis, match="step 20, 3 checks in a row"):
        train(tmp_path, steps=60, doctor=doctor, diagnose=lambda batch: {"frame_variation": 0.0})
    assert "step 10: the representation has collapsed" in caplog.text


def test_the_log_holds_where_gradients_arrive(tmp_path: Path) -> None:
    train(tmp_path, steps=10, doctor=DoctorConfig(flat_steps=0, diagnose_every=5), diagnose=lambda batch: {})
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    share = dict(zip(header.split(","), rows[0].split(",")))["gradient/net"]
    assert float(share) == pytest.approx(1.0)
    assert [name for name, _ in Regression().named_children()] == ["net"]
