"""BERT over units: the battery, streams, and an encoder of units that keeps the contract of encoders."""

import math
from dataclasses import replace

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Batch
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.on_units import OnUnits
from sonorant.encoders.spectral import SpectralFront, mfcc_front
from sonorant.encoders.tokenised import Tokenised, tokenised
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.token_bert import TokenBert, token_bert_objective

SMALL = {"mask": MaskConfig(prob=0.1, span=3, style="bernoulli")}


def make(ids: tuple[str, ...], extra: int = 0) -> Batch:
    return batch_of(ids, extra, units={"units": (8, 20), "units1": (4, 20)})


def encoder(*num_units: int) -> OnUnits:
    sizes = {"input_dim": 12, "dim": 16, "ffn_dim": 32, "num_heads": 2, "num_layers": 2, "dropout": 0.0}
    return OnUnits(num_units, build_encoder("tera_tiny", **sizes, norm_first=True))


@pytest.mark.parametrize("streams", [("units",), ("units", "units1")])
def test_contract(streams: tuple[str, ...]) -> None:
    sizes = (8, 4)[: len(streams)]
    config = token_bert_objective(**SMALL, streams=streams)
    total = sum(math.log(size) for size in sizes)
    check_objective(lambda: TokenBert(encoder(*sizes), config), make, chance=(0.8 * total, 1.5 * total))


def test_units_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    module, batch = encoder(8, 4).eval(), make(("a", "b", "c"))
    ids = torch.stack([batch.labels["units"], batch.labels["units1"]], dim=1)
    lengths = batch.labels["units_lengths"]
    dirty = ids.clone()
    for item, length in enumerate(lengths.tolist()):
        dirty[item, :, length:] = 10**6
    together = module(dirty, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = module(ids[item : item + 1, :, :length], lengths[item : item + 1])
        torch.testing.assert_close(alone.values[0], together.values[item, :length], atol=1e-5, rtol=1e-5)
    layers = module(ids, lengths, layers=True)
    assert len(layers) == module.num_layers + 1
    torch.testing.assert_close(layers[-1].values, together.values)
    with pytest.raises(ConfigError, match="takes 2 streams of units, got 1"):
        module(ids[:, 0], lengths)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="keeps every frame"):
        OnUnits((8,), build_encoder("conformer_tiny"))
    with pytest.raises(ConfigError, match="the encoder takes 1 streams"):
        TokenBert(encoder(8), token_bert_objective(streams=("units", "units1")))
    batch = make(("a", "b"))
    labels = {**batch.labels, "units1_lengths": batch.labels["units1_lengths"] - 1}
    with pytest.raises(DataError, match="differ in length"):
        TokenBert(encoder(8, 4), token_bert_objective(streams=("units", "units1"))).losses(
            replace(batch, labels=labels)
        )


def test_an_encoder_from_waveforms_is_trained_over_its_codes() -> None:
    inner = encoder(8, 4)
    front = SpectralFront(mfcc_front(50))
    config = tokenised(front, "vq_wav2vec", {"dim": 39, "codebook_size": 8, "num_groups": 3}, inner.encoder.config)
    whole = Tokenised(config)
    whole.on_units = inner
    streams = token_bert_objective(**SMALL, streams=("units", "units1"))
    torch.manual_seed(1)
    over_waveforms = TokenBert(whole, streams).eval()
    torch.manual_seed(1)
    over_units = TokenBert(inner, streams).eval()
    batch = make(("a", "b", "c"))
    first, second = over_waveforms.losses(batch)["model"], over_units.losses(batch)["model"]
    torch.testing.assert_close(first.total, second.total)
    assert over_waveforms.diagnose(batch) == over_units.diagnose(batch)


def test_a_conformer_takes_units_without_parts_that_never_learn() -> None:
    torch.manual_seed(0)
    conformer = build_encoder("conformer_tiny", input_dim=12, subsampling="stack", factor=1)
    objective = TokenBert(OnUnits((8,), conformer), token_bert_objective(**SMALL))
    objective.losses(make(("a", "b")))["model"].total.backward()
    assert [name for name, parameter in objective.named_parameters() if parameter.grad is None] == []
