"""CPC, wav2vec and vq-wav2vec: the battery, on the catalogue's own encoders too, and what is asked of short items."""

import math

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.objectives.future import (
    FutureConfig,
    FuturePrediction,
    cpc_objective,
    vq_wav2vec_objective,
    wav2vec_objective,
)

CONVS = {"sample_rate": 1000, "kernels": (10, 4), "strides": (5, 4)}
SMALL = {"num_steps": 3, "offset": 2, "num_negatives": 7}
CODES = {"num_codebooks": 2, "codebook_size": 12}


def wav2vec_encoder() -> torch.nn.Module:
    return build_encoder("wav2vec_tiny", dim=16, norm="layer", **CONVS)


def cpc_encoder() -> torch.nn.Module:
    return build_encoder("cpc_tiny", local_dim=12, dim=16, **CONVS)


CASES = {
    "wav2vec": (wav2vec_encoder, wav2vec_objective(**SMALL), True),
    "cpc": (cpc_encoder, cpc_objective(**{**SMALL, "offset": 1}), False),
    "cpc within": (cpc_encoder, cpc_objective(**SMALL, negatives="within"), True),
    "vq_wav2vec": (wav2vec_encoder, vq_wav2vec_objective(**SMALL, **CODES), True),
    "vq-wav2vec k-means": (wav2vec_encoder, vq_wav2vec_objective("kmeans", **SMALL, **CODES), False),
    "vq-wav2vec, own entries": (
        wav2vec_encoder,
        vq_wav2vec_objective(**SMALL, **CODES, share_entries=False, diversity_weight=0.1, feature_weight=0.1),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    encoder, config, additive = CASES[name]
    chance = 8 * math.log(2) if config.loss == "bce" else math.log(8)
    check_objective(
        lambda: FuturePrediction(encoder(), config),
        batch_of,
        chance=(0.4 * chance, 3 * chance),
        additive=additive,
        steps=80,
        lr=1.5e-2,
        fall=0.92,
    )


def test_items_too_short_for_a_step_ask_for_nothing() -> None:
    torch.manual_seed(0)
    objective = FuturePrediction(wav2vec_encoder(), wav2vec_objective(**SMALL)).eval()
    batch = batch_of(("a", "b"), seconds=(0.03, 0.05))
    frames = objective.encoder.output_lengths(batch.lengths)
    assert int(frames.max()) <= 2
    loss = objective.losses(batch)["model"]
    assert int(loss.count) == 0
    assert float(loss.total.detach()) == 0


def test_context_and_targets_are_codes() -> None:
    torch.manual_seed(0)
    objective = FuturePrediction(wav2vec_encoder(), vq_wav2vec_objective(**SMALL, **CODES)).eval()
    batch = batch_of(("a", "b"))
    with torch.no_grad():
        local, targets, context, _ = objective._encoded(batch)
        assert objective.quantizer is not None
        decoded = objective.quantizer.decode(objective.quantizer.encode(local))
        again = objective.encoder.context(decoded)
    torch.testing.assert_close(targets.values, decoded.values)
    torch.testing.assert_close(context.values, again.values)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"negatives.*within"):
        FutureConfig(negatives="witin")
    with pytest.raises(ConfigError, match="must divide the front end's width, got 5 and 16"):
        FuturePrediction(wav2vec_encoder(), vq_wav2vec_objective(num_codebooks=5))
