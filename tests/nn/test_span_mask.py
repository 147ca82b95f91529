"""Masks of pre-training: functions of seed and length alone, with the statistics of the reference implementations."""

import math

import pytest
import torch
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.core.seed import item_seeds
from sonorant.nn.masking import MaskConfig, MaskEmbedding, channel_mask, frames_at, hidden_first, span_mask

STYLES = [
    {"style": "share", "prob": 0.65, "span": 10},
    {"style": "share", "prob": 0.8, "span": 3, "min_masks": 0},
    {"style": "bernoulli", "prob": 0.065, "span": 10},
    {"style": "bernoulli", "prob": 0.01, "span": 40, "min_masks": 1},
]


def seeds_of(count: int, epoch: int = 0) -> Tensor:
    return item_seeds(0, epoch, [f"item{i}" for i in range(count)])


def runs(row: Tensor) -> list[int]:
    """Lengths of the stretches of True."""
    text = "".join("x" if bit else " " for bit in row.tolist())
    return [len(run) for run in text.split()]


@pytest.mark.parametrize("options", STYLES)
def test_an_item_alone_is_the_item_in_a_batch(options: dict) -> None:
    lengths = torch.tensor([57, 200, 3, 0, 1, 120])
    seeds = seeds_of(6)
    mask = span_mask(seeds, lengths, 211, **options)
    for item, length in enumerate(lengths.tolist()):
        alone = span_mask(seeds[item : item + 1], lengths[item : item + 1], length, **options)
        assert torch.equal(alone[0], mask[item, :length])
        assert not mask[item, length:].any()
    assert not torch.equal(mask, span_mask(seeds_of(6, epoch=1), lengths, 211, **options))
    assert not torch.equal(mask, span_mask(seeds, lengths, 211, name="other", **options))


def test_spans_are_whole_and_their_number_is_the_share() -> None:
    num_frames, span, prob = 300, 10, 0.2
    mask = span_mask(seeds_of(400), torch.full((400,), num_frames), num_frames, prob=prob, span=span)
    stretches = [run for row in mask for run in runs(row)]
    assert min(stretches) == span
    # k starts among n places hide a frame in the middle with 1 − (1 − span/n)^k or so; here k = 6 and n = 291.
    expected = 1 - (1 - span / 291) ** 6
    assert mask[:, 50:250].float().mean() == pytest.approx(expected, rel=0.03)


def test_the_papers_numbers_hide_half_of_the_frames() -> None:
    """Section 3.1 of arXiv:2006.11477: p = 0.065 and M = 10 hide about 49 % with a mean span of 14.7 frames."""
    lengths = torch.full((300,), 750)
    for options in ({"style": "bernoulli", "prob": 0.065}, {"style": "share", "prob": 0.65}):
        mask = span_mask(seeds_of(300), lengths, 750, span=10, **options)
        assert mask.float().mean() == pytest.approx(0.49, abs=0.015)
        stretches = [run for row in mask for run in runs(row)]
        assert sum(stretches) / len(stretches) == pytest.approx(14.7, abs=0.5)


def test_the_statistics_are_those_of_the_reference() -> None:
    modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    import numpy as np

    np.random.seed(0)  # noqa: NPY002  the reference draws from the old global generator
    # One call an item: it rounds the number of spans the same way for a whole batch.
    rows = [modeling._compute_mask_indices((1, 130), 0.65, 10, min_masks=2)[0] for _ in range(500)]
    theirs = torch.from_numpy(np.stack(rows))
    ours = span_mask(seeds_of(500), torch.full((500,), 130), 130)
    assert ours.float().mean() == pytest.approx(float(theirs.float().mean()), abs=0.01)
    # Frame by frame: the ends are hidden less often than the middle, in both.
    torch.testing.assert_close(ours.float().mean(0), theirs.float().mean(0), atol=0.11, rtol=0)


@pytest.mark.parametrize("length", [2, 5, 12, 19])
def test_a_short_item_is_never_hidden_whole_by_one_span(length: int) -> None:
    mask = span_mask(seeds_of(50), torch.full((50,), length), length, prob=0.0, min_masks=1)
    assert (mask.sum(1) == max(1, length // 2)).all()


def test_the_least_number_of_spans() -> None:
    for style in ("share", "bernoulli"):
        mask = span_mask(seeds_of(50), torch.full((50,), 100), 100, prob=0.0, span=1, min_masks=3, style=style)
        assert (mask.sum(1) == 3).all()
        none = span_mask(seeds_of(50), torch.full((50,), 100), 100, prob=0.0, span=1, min_masks=0, style=style)
        assert not none.any()


def test_channels() -> None:
    mask = channel_mask(seeds_of(200), 64, prob=0.3, span=8)
    assert mask.shape == (200, 64)
    assert min(run for row in mask for run in runs(row)) == 8
    assert 0.15 < mask.float().mean() < 0.3


def test_what_stands_in_the_place_of_hidden_frames() -> None:
    values = torch.randn(3, 40, 8)
    seeds, lengths = seeds_of(3), torch.tensor([40, 31, 22])
    mask = MaskConfig().draw(seeds, lengths, 40)
    learnt = MaskEmbedding(8)
    replaced = learnt(values, mask)
    assert torch.equal(replaced[~mask], values[~mask])
    assert torch.equal(replaced[mask], learnt.vector.expand(int(mask.sum()), -1))
    noise = MaskEmbedding(8, noise=0.1)
    assert not list(noise.parameters())
    replaced = noise(values, mask, seeds)
    assert torch.equal(replaced[~mask], values[~mask])
    assert replaced[mask].std() == pytest.approx(0.1, rel=0.1)
    alone = noise(values[1:2, :31], mask[1:2, :31], seeds[1:2])
    assert torch.equal(alone[0], replaced[1, :31])


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="give seeds too"):
        MaskEmbedding(8, noise=0.1)(torch.zeros(1, 4, 8), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="prob must lie in"):
        MaskConfig(prob=math.pi)
    with pytest.raises(ConfigError, match="style"):
        span_mask(seeds_of(1), torch.tensor([5]), 5, style="shares")


def test_hidden_frames_come_first_and_in_order() -> None:
    seeds, lengths = seeds_of(3), torch.tensor([40, 31, 22])
    mask = MaskConfig().draw(seeds, lengths, 40)
    values = torch.randn(3, 40, 2, 5)
    places, counts = hidden_first(mask)
    taken = frames_at(values, places)
    for item, count in enumerate(counts.tolist()):
        assert torch.equal(taken[item, :count], values[item][mask[item]])
    assert places.shape[1] == int(mask.sum(1).max())
    assert hidden_first(torch.zeros(2, 5, dtype=torch.bool))[0].shape == (2, 0)
