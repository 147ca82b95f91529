"""wav2vec 2.0: the battery, the loss by hand, the temperature's schedule, negatives across items, no quantiser."""

import math

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError
from sonorant.losses.feature_penalty import feature_penalty
from sonorant.nn.masking import MaskConfig
from sonorant.nn.quantize.quantizer import joint_codes
from sonorant.objectives.contrastive import (
    Wav2Vec2Config,
    Wav2Vec2Objective,
    continuous_bert_objective,
    wav2vec2_objective,
)

SMALL = {
    "mask": MaskConfig(prob=0.6, span=4), "codebook_size": 12, "code_dim": 8, "dim": 8, "num_negatives": 15,
}  # fmt: skip
CASES = {
    "wav2vec2": wav2vec2_objective(**SMALL, diversity_weight=0.0),
    "with the penalty of the batch": wav2vec2_objective(**SMALL),
    "across items": wav2vec2_objective(**{**SMALL, "num_negatives": 0}, cross_negatives=15),
    "within and across": wav2vec2_objective(**SMALL, cross_negatives=5),
    "continuous_bert": continuous_bert_objective(**{**SMALL, "num_negatives": 15}),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    config = CASES[name]
    choices = 1 + config.num_negatives + config.cross_negatives
    # Cosines over 0.1 spread the logits by ±10, so that guessing costs more than the logarithm of the choices.
    chance = (0.5 * math.log(choices), 4 * math.log(choices))
    additive = name in ("wav2vec2", "continuous_bert")
    check_objective(
        lambda: Wav2Vec2Objective(TinyEncoder(), config), batch_of, chance=chance, additive=additive, steps=60, fall=0.9
    )


def test_the_loss_by_hand() -> None:
    torch.manual_seed(0)
    objective = Wav2Vec2Objective(TinyEncoder(), wav2vec2_objective(**SMALL, feature_weight=2.0)).eval()
    batch = batch_of(("a", "b"))
    with torch.no_grad():
        loss = objective.losses(batch)["model"]
        local, context, mask, targets, logits, counts = objective._compared(batch)
    assert torch.equal(counts, mask.sum(1))
    expected = 0.0
    for item, count in enumerate(counts.tolist()):
        frames = context.values[item][mask[item]]
        with torch.no_grad():
            cosines = torch.cosine_similarity(objective.project(frames), targets.values[item, :count], dim=-1)
        torch.testing.assert_close(logits[item, :count, 0], cosines / 0.1)
        expected -= float(logits[item, :count].log_softmax(-1)[:, 0].sum())
    assert float(loss.parts["contrastive"]) == pytest.approx(expected, rel=1e-5)
    squares = 2.0 * float((feature_penalty(local.values, local.lengths) * counts).sum())
    assert float(loss.parts["features"]) == pytest.approx(squares, rel=1e-5)
    assert float(loss.parts["diversity"]) == pytest.approx(float(targets.penalty) * int(counts.sum()), rel=1e-5)
    assert float(loss.total) == pytest.approx(
        sum(float(loss.parts[p]) for p in ("contrastive", "features", "diversity"))
    )


def test_targets_are_made_of_frames_that_are_not_hidden() -> None:
    torch.manual_seed(0)
    objective = Wav2Vec2Objective(TinyEncoder(), wav2vec2_objective(**SMALL)).eval()
    batch = batch_of(("a",))
    with torch.no_grad():
        found = objective._compared(batch)
        local, mask, targets = found.local, found.mask, found.targets
        frames = objective.targets.norm(local.values[mask])
        assert objective.targets.quantizer is not None
        ids = objective.targets.quantizer.codebook.ids(frames)
    assert torch.equal(targets.codes[0], ids[:, 0] * 12 + ids[:, 1])
    assert torch.equal(joint_codes(ids.t()[None], (12, 12))[0], targets.codes[0])


def test_the_temperature_falls_with_the_steps() -> None:
    torch.manual_seed(0)
    config = wav2vec2_objective(**SMALL, gumbel_start=2.0, gumbel_end=1.0, gumbel_decay=0.5)
    objective = Wav2Vec2Objective(TinyEncoder(), config).train()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01)
    batch, temperatures = batch_of(("a", "b")), []
    for _ in range(3):
        for _ in range(2):  # two batches a step
            objective.losses(batch)["model"].mean.backward()
            temperatures.append(objective.targets.quantizer.codebook.temperature)  # type: ignore[union-attr]
        optimizer.step()
    assert temperatures == [2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert int(objective.steps.count) == 2


def test_gumbel_draws_are_the_items_own() -> None:
    """In training too, an item's targets do not depend on its neighbours."""
    torch.manual_seed(0)
    config = wav2vec2_objective(**SMALL, diversity_weight=0.0, target_dropout=0.0)
    objective = Wav2Vec2Objective(TinyEncoder(), config).train()
    with torch.no_grad():
        both, alone = (objective._compared(batch_of(ids)).targets.codes for ids in (("a", "b"), ("b",)))
    assert both is not None
    assert alone is not None
    assert torch.equal(both[1, : alone.shape[1]], alone[0])


def test_refuses_nothing_to_tell_apart() -> None:
    with pytest.raises(ConfigError, match="both 0"):
        Wav2Vec2Config(num_negatives=0)
