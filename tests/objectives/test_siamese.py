"""BYOL and DINO frame by frame: the battery, what is compared with what, the centre, and augmentations that fit."""

import math
from dataclasses import replace

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.siamese import Byol, ByolConfig, Dino, DinoConfig, byol_objective, dino_objective

BYOL = {"hidden_dim": 24, "dim": 12}
DINO = {"num_codes": 20, "hidden_dim": 24, "dim": 12, "mask": MaskConfig(prob=0.5, span=4)}


def louder(batch: Batch) -> Batch:
    """Changes the audio, not its length."""
    return replace(batch, waveform=(3 * batch.waveform).clamp(-1, 1))


@pytest.mark.parametrize("changes", [{"norm": "layer"}, {"norm": "batch", "layer": 2}])
def test_byol_contract(changes: dict) -> None:
    if "layer" in changes:  # the last block is then idle, and learns nothing
        config = byol_objective(**BYOL, **changes)
        check_objective(lambda: Byol(TinyEncoder(num_layers=2), config, louder), batch_of, chance=(1.0, 3.0), fall=0.8)
    else:
        config = byol_objective(**BYOL, **changes)
        check_objective(lambda: Byol(TinyEncoder(), config), batch_of, chance=(1.0, 3.0), fall=0.8)


@pytest.mark.parametrize("augment", [None, louder])
def test_dino_contract(augment: object) -> None:
    config = dino_objective(**DINO)
    # The teacher begins as the student's equal and is sharper, so the loss begins below the entropy of all codes.
    chance = (0.1 * math.log(20), 4 * math.log(20))
    check_objective(lambda: Dino(TinyEncoder(), config, augment), batch_of, chance=chance, fall=0.95, steps=120)


def test_two_equal_views_agree() -> None:
    torch.manual_seed(0)
    objective = Byol(TinyEncoder(), ByolConfig(**BYOL, norm="layer")).eval()
    batch = batch_of(("a", "b"))
    objective.predictor = torch.nn.Identity()  # type: ignore[assignment]
    objective.predictor.forward = lambda values, lengths: values  # type: ignore[method-assign]
    assert float(objective.losses(batch)["model"].mean.detach()) == pytest.approx(0, abs=1e-5)
    objective.augment = louder
    assert float(objective.losses(batch)["model"].mean.detach()) > 1e-3


def test_the_centre_follows_the_teacher_in_training_only() -> None:
    torch.manual_seed(0)
    objective = Dino(TinyEncoder(), DinoConfig(**DINO, center_decay=0.75))
    batch = batch_of(("a", "b"), extra=50)
    objective.eval().losses(batch)
    assert not objective.center.any()
    objective.train().losses(batch)
    with torch.no_grad():
        frames = objective.teacher.module.frames(batch)
        logits = objective.teacher.module.head(frames.values)
    valid = torch.cat([logits[item, :length] for item, length in enumerate(frames.lengths.tolist())])
    torch.testing.assert_close(objective.center, 0.25 * valid.mean(0))


def test_a_sample_that_is_not_finite_leaves_nothing_in_the_centre() -> None:
    torch.manual_seed(0)
    objective = Dino(TinyEncoder(), DinoConfig(**DINO)).train()
    batch = batch_of(("a", "b"))
    waveform = batch.waveform.clone()
    waveform[0, 0] = torch.nan
    objective.losses(replace(batch, waveform=waveform))
    assert objective.center.isfinite().all()


def test_an_augmentation_that_changes_lengths_is_refused() -> None:
    def shorter(batch: Batch) -> Batch:
        return replace(batch, lengths=batch.lengths - 100)

    with pytest.raises(ConfigError, match="changes the lengths of items"):
        Byol(TinyEncoder(), ByolConfig(**BYOL), shorter).losses(batch_of(("a", "b")))


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer must be 0 to the encoder's 3, or -1 for the last, got 4"):
        Byol(TinyEncoder(), ByolConfig(**{**BYOL, "layer": 4}))
