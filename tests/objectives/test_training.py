"""Objectives under the training loop: killed and resumed they are the run left alone; collapse stops them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of
from tests.contracts.tiny_encoder import TinyEncoder, constant
from torch import Tensor, nn

from sonorant.core.types import Batch
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.catalogue import build_objective
from sonorant.train.config import DoctorConfig, TrainConfig
from sonorant.train.doctor import Diagnosis
from sonorant.train.loop import fit
from sonorant.train.optim import OptimConfig, build_optimizer

MASK = MaskConfig(prob=0.6, span=4)
QUIET = {"tensorboard": False, "progress": False, "accelerator": "cpu", "checkpoint_every": 2, "checkpoint_minutes": 0}


class Pairs:
    """Endless batches of two items, by position."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.position += 1
            yield batch_of((f"a{self.position}", f"b{self.position}"), units={"units": (8, 20)})

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    encoder = TinyEncoder(dropout=0.1)
    if name == "dino":
        sizes = {"mask": MASK, "num_codes": 20, "hidden_dim": 24, "dim": 12}
    elif name == "wav2vec2":
        sizes = {"mask": MASK, "codebook_size": 12, "code_dim": 8, "dim": 8, "num_negatives": 9, "gumbel_decay": 0.9}
    else:
        sizes = {"mask": MASK, "top_layers": 2}
    return build_objective(name, encoder, **sizes)


def trained(name: str, folder: Path, steps: int) -> dict[str, Tensor]:
    objective = made(name)
    optimizer = build_optimizer(OptimConfig(lr=1e-3), objective)
    doctor = DoctorConfig(flat_steps=0, diagnose_every=3)
    config = TrainConfig(**QUIET, doctor=doctor, accumulate=2)
    fit(
        objective, Pairs(), {"model": optimizer}, steps=steps, folder=folder, config=config, diagnose=objective.diagnose
    )  # type: ignore[arg-type]
    return {key: value for key, value in objective.state_dict().items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("name", ["data2vec", "dinosr", "dino", "wav2vec2"])
def test_a_resumed_training_is_the_one_left_alone(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path / "whole", 6)
    trained(name, tmp_path / "parts", 4)
    parts = trained(name, tmp_path / "parts", 6)
    assert set(parts) == set(whole)
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    if name == "wav2vec2":
        assert int(whole["steps.count"]) == 5  # the last step's weights were not used any more


def test_a_collapsed_training_stops_with_its_cause(tmp_path: Path) -> None:
    torch.manual_seed(0)
    objective = build_objective("data2vec", constant(TinyEncoder()), mask=MASK, top_layers=2)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=1e-8)
    doctor = DoctorConfig(flat_steps=0, frozen_steps=0, diagnose_every=2, collapse_steps=2)
    config = TrainConfig(**QUIET, doctor=doctor)
    with pytest.raises(Diagnosis, match=r"the representation has collapsed(.|\n)*step 6, 3 checks in a row"):
        fit(
            objective,
            Pairs(),
            {"model": optimizer},
            steps=20,
            folder=tmp_path,
            config=config,
            diagnose=objective.diagnose,  # type: ignore[arg-type]
        )
