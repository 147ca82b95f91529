"""BEST-RQ and NEST: labels of the clean features, asked for where the input is hidden."""

import math

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective

from sonorant.audio.augment.mix import Mix
from sonorant.core.types import Batch
from sonorant.encoders.conformer import conformer_tiny
from sonorant.encoders.spectral import OnSpectrum, on_spectrum
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.random_projection import BestRq, best_rq_objective, nest_objective

SMALL = {
    "codebook_size": 16, "code_dim": 4, "mask": MaskConfig(prob=0.05, span=16, style="bernoulli", min_masks=1),
}  # fmt: skip


def encoder(**changes: object) -> OnSpectrum:
    sizes = {"dim": 16, "ffn_dim": 16, "num_layers": 2, "kernel_size": 3, "num_heads": 2, "channels": 4, **changes}
    return OnSpectrum(on_spectrum(conformer_tiny(**sizes), dim=8, sample_rate=1000))


def make(ids: tuple[str, ...], extra: int = 0) -> Batch:
    return batch_of(ids, extra, seconds=(1.0, 1.6))


CASES = {
    "best_rq": (best_rq_objective(**SMALL), {}),
    "several codebooks": (best_rq_objective(**SMALL, num_codebooks=2, noise=0.0), {}),
    "nest": (nest_objective(**SMALL), {"subsampling": "depthwise", "factor": 8}),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    config, changes = CASES[name]
    check_objective(lambda: BestRq(encoder(**changes), config), make, chance=(0.8 * math.log(16), 1.4 * math.log(16)))


def test_codes_are_those_of_clean_stacked_frames_where_most_is_hidden() -> None:
    torch.manual_seed(0)
    objective = BestRq(encoder(), best_rq_objective(**SMALL, item_norm=False)).eval()
    batch = make(("a", "b"))
    context, codes, asked = objective._asked(batch)
    features = objective.encoder.front(batch.waveform, batch.lengths)
    mask = objective.config.mask.draw(batch.seeds, features.lengths, features.values.shape[1])
    assert objective.factor == 4
    for item, frame in asked.nonzero().tolist():
        window = slice(4 * frame, 4 * frame + 4)
        assert mask[item, window].float().mean() >= 0.8
        stacked = features.values[item, window].flatten()[None]
        assert torch.equal(codes[item, frame], objective.quantizer.ids(stacked)[0])
    found = objective.codes(batch)
    assert torch.equal(found.ids[:, 0, : codes.shape[1]], codes[:, :, 0])
    assert found.codebook_sizes == (16,)
    assert found.frame_rate == context.frame_rate
    hidden = mask[:, : 4 * asked.shape[1]].unflatten(1, (-1, 4)).float().mean(2) >= 0.8
    inside = torch.arange(asked.shape[1]) < context.lengths[:, None]
    assert torch.equal(asked, hidden & inside)


def test_mixing_changes_what_is_heard_and_not_what_is_asked() -> None:
    torch.manual_seed(0)
    clean = BestRq(encoder(), nest_objective(**SMALL)).eval()
    mixed = BestRq(clean.encoder, clean.config, Mix(prob=1.0)).eval()
    mixed.load_state_dict(clean.state_dict())
    batch = make(("a", "b", "c"))
    ours, theirs = mixed._asked(batch), clean._asked(batch)
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], theirs[2])
    assert not torch.allclose(ours[0].values, theirs[0].values)
