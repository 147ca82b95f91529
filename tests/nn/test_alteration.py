"""Alterations: how much is altered, where from, and that an item is altered alike in any batch."""

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.core.seed import item_seeds
from sonorant.nn.alteration import Alteration, alter_bands, alter_magnitude, alter_time


def seeds(count: int) -> torch.Tensor:
    return item_seeds(0, 0, [f"item{index}" for index in range(count)])


def ramp(count: int, frames: int, dim: int = 4) -> torch.Tensor:
    """Every frame says which one it is, from 1 on."""
    return torch.arange(1.0, frames + 1)[None, :, None].expand(count, frames, dim).contiguous()


def test_shares_of_time() -> None:
    values, lengths = ramp(400, 200), torch.full((400,), 200)
    altered, chosen = alter_time(values, lengths, seeds(400))
    # 30 frames in spans of 7 that may overlap: a little less than 15 %.
    assert 0.12 < float(chosen.float().mean()) < 0.15
    changed = (altered != values).any(-1)
    assert not (changed & ~chosen).any()
    zeroed = ((altered == 0).all(-1) == chosen).all(1) & chosen.any(1)
    same = ~changed.any(1)
    assert 0.74 < float(zeroed.float().mean()) < 0.86
    assert 0.05 < float(same.float().mean()) < 0.15


def test_replaced_spans_come_from_the_same_item_in_one_piece() -> None:
    values, lengths = ramp(50, 120), torch.full((50,), 90)
    altered, chosen = alter_time(values, lengths, seeds(50), zero_prob=0.0, swap_prob=1.0)
    assert not chosen[:, 90:].any()
    moved, steps = altered[..., 0], values[..., 0]
    assert torch.equal(moved[~chosen], steps[~chosen])
    assert (moved[chosen] != steps[chosen]).all()
    assert moved[chosen].min() >= 1
    assert moved[chosen].max() <= 90
    inner = chosen[:, 1:] & chosen[:, :-1]
    assert set((moved.diff(dim=1)[inner] % 90).tolist()) == {1.0}


def test_bands() -> None:
    altered, bands = alter_bands(torch.ones(500, 3, 80), seeds(500), 0.2)
    widths = bands.sum(1)
    assert sorted(set(widths.tolist())) == list(range(17))
    assert torch.equal(altered[:, 0] == 0, bands)
    assert ((bands[:, 1:] & ~bands[:, :-1]).sum(1) + bands[:, 0] <= 1).all()  # one block
    assert bands.any(0).all()


def test_magnitude() -> None:
    values = torch.zeros(600, 40, 5)
    altered = alter_magnitude(values, seeds(600))
    noisy = altered.flatten(1).any(1)
    assert 0.11 < float(noisy.float().mean()) < 0.19
    assert abs(float(altered[noisy].std()) - 0.2) < 0.01


def test_alike_in_any_batch() -> None:
    lengths, own = torch.tensor([61, 20, 2, 1, 0, 40]), seeds(6)
    values = torch.randn(6, 75, 8)
    for config in (Alteration(noise_prob=1.0), Alteration(zero_prob=0, swap_prob=1.0), Alteration(band_share=0)):
        altered, asked = config(values, lengths, own)
        for item, length in enumerate(lengths.tolist()):
            alone = config(values[item : item + 1, :length], lengths[item : item + 1], own[item : item + 1])
            assert torch.equal(alone[0][0], altered[item, :length])
            assert torch.equal(alone[1][0], asked[item, :length])
            assert not asked[item, length:].any()


def test_each_epoch_is_altered_otherwise() -> None:
    values, lengths = torch.randn(1, 100, 8), torch.tensor([100])
    first = Alteration()(values, lengths, item_seeds(0, 0, ["a"]))[0]
    assert not torch.equal(first, Alteration()(values, lengths, item_seeds(0, 1, ["a"]))[0])


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1 together"):
        Alteration(zero_prob=0.9, swap_prob=0.2)
    with pytest.raises(ConfigError, match="nothing would be asked for"):
        Alteration(time_share=0, band_share=0)
