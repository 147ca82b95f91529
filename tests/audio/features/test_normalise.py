"""Deltas and mean and variance normalisation against plain loops that follow Kaldi's source."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.features.cmvn import Cmvn, below_peak, cmvn, sliding_cmvn, without_level
from sonorant.audio.features.deltas import add_deltas, deltas
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features


def ragged(*counts: int, dim: int = 3, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(counts), max(counts), dim, generator=generator) * 4 + 2
    return Features(values, torch.tensor(counts), 100.0)


def single(features: Features, item: int) -> Features:
    count = int(features.lengths[item])
    return Features(features.values[item : item + 1, :count], features.lengths[item : item + 1], features.frame_rate)


def kaldi_delta(values: np.ndarray, order: int, reach: int) -> np.ndarray:
    """DeltaFeatures::Process."""
    scales = np.ones(1)
    for _ in range(order):
        half = (len(scales) - 1) // 2
        wider = np.zeros(len(scales) + 2 * reach)
        for j in range(-reach, reach + 1):
            for k in range(-half, half + 1):
                wider[j + k + half + reach] += j * scales[k + half]
        scales = wider / sum(j * j for j in range(-reach, reach + 1))
    half = (len(scales) - 1) // 2
    at = [[min(max(t + o, 0), len(values) - 1) for o in range(-half, half + 1)] for t in range(len(values))]
    return np.einsum("o,tod->td", scales, values[np.array(at)])


def kaldi_sliding(values: np.ndarray, window: int, min_window: int, center: bool, variance: bool) -> np.ndarray:
    """SlidingWindowCmnInternal."""
    total, out = len(values), np.zeros_like(values)
    for t in range(total):
        begin = t - window // 2 if center else t - window
        end = begin + window if center else t + 1
        if begin < 0:
            end, begin = end - begin, 0
        if not center and end > t:
            end = max(t + 1, min_window)
        if end > total:
            begin, end = max(0, begin - (end - total)), total
        part = values[begin:end].astype(np.float64)
        out[t] = values[t] - part.mean(0)
        if variance:
            out[t] *= 0 if len(part) == 1 else np.maximum(part.var(0), 1e-10) ** -0.5
    return out


@pytest.mark.parametrize("order, reach", [(1, 2), (2, 2), (3, 1), (1, 3)])
def test_deltas_equal_kaldis(order: int, reach: int) -> None:
    features = ragged(12, 5, 1)
    ours = deltas(features.values, features.lengths, order, reach)
    for item, count in enumerate(features.lengths.tolist()):
        reference = kaldi_delta(features.values[item, :count].numpy(), order, reach)
        assert np.abs(ours[item, :count].numpy() - reference).max() < 1e-5
        assert not ours[item, count:].any()


def test_deltas_of_lines_and_parabolas() -> None:
    time = torch.arange(20.0)
    assert torch.allclose(deltas(3 * time.view(1, -1, 1))[0, 2:-2], torch.tensor(3.0))
    assert torch.allclose(deltas(time.square().view(1, -1, 1), order=2)[0, 4:-4], torch.tensor(2.0), atol=1e-4)
    both = add_deltas(ragged(7, 4), order=2)
    assert both.values.shape == (2, 7, 9)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sliding_equals_kaldis(count: int, window: int, min_window: int, center: bool, variance: bool) -> None:
    features = ragged(30, count, seed=count)
    ours = sliding_cmvn(features, window, min_window, center, variance)
    for item, frames in enumerate((30, count)):
        reference = kaldi_sliding(features.values[item, :frames].numpy(), window, min_window, center, variance)
        assert np.allclose(ours.values[item, :frames].numpy(), reference, atol=2e-4, rtol=1e-3)


def test_utterance_mean_zero_variance_one() -> None:
    out = cmvn(ragged(50, 20))
    for item in range(2):
        values = single(out, item).values[0]
        assert values.mean(0).abs().max() < 1e-5
        assert torch.allclose(values.std(0, correction=0), torch.ones(3), atol=1e-4)
    assert not out.values[1, 20:].any()


@pytest.mark.parametrize(
    "work", [cmvn, sliding_cmvn, below_peak, without_level, lambda f: sliding_cmvn(f, 7, 3, True, True), add_deltas]
)
def test_item_alone_equals_item_in_batch(work: object) -> None:
    features = ragged(40, 17, 1, 33)
    garbage = features.values.clone()
    for item, count in enumerate(features.lengths.tolist()):
        garbage[item, count:] = float("nan")
    together = work(Features(garbage, features.lengths, 100.0))
    for item in range(4):
        alone = work(single(features, item)).values[0]
        assert torch.equal(together.values[item, : len(alone)], alone)
        assert not together.values[item, len(alone) :].any()


def test_below_the_peak_neither_gain_nor_soft_noise_shows() -> None:
    loud = ragged(40, 25)
    for item, out in enumerate(below_peak(loud, 20.0).values):
        inside = out[: int(loud.lengths[item])]
        assert inside.max() == 0
        assert inside.min() >= -20.0 * np.log(10) / 10 - 1e-6
    # 12 dB louder, and what lies 25 dB and more below the peak is something else.
    peak = loud.values[0].max()
    soft = loud.values < peak - 25 * np.log(10) / 10
    changed = torch.where(soft, loud.values - 30.0, loud.values) + 12 * np.log(10) / 10
    again = below_peak(Features(changed, loud.lengths, 100.0), 20.0).values
    assert soft[0].any()
    assert torch.allclose(again[0], below_peak(loud, 20.0).values[0], atol=1e-5)
    nothing = below_peak(Features(torch.ones(1, 3, 2), torch.tensor([0]), 100.0))
    assert not nothing.values.any()


def test_constant_features_stay_finite() -> None:
    features = Features(torch.full((1, 10, 2), 7.3), torch.tensor([10]), 100.0)
    assert cmvn(features).values.abs().max() < 0.1
    assert sliding_cmvn(features, variance=True).values.abs().max() < 0.1


def test_global_statistics_add_up() -> None:
    first, second = ragged(50, 20, seed=1), ragged(5, 31, seed=2)
    whole, left, right = Cmvn(3).fit([first, second]), Cmvn(3).fit([first]), Cmvn(3).fit([second])
    left.merge(right)
    frames = torch.cat([single(f, i).values[0] for f in (first, second) for i in range(2)]).double()
    for stats in (whole, left):
        assert int(stats.count) == 106
        assert torch.allclose(stats.mean, frames.mean(0))
        assert torch.allclose(stats.std, frames.std(0, correction=0))
    out = whole(first)
    expected = (first.values[0].double() - frames.mean(0)) / frames.std(0, correction=0)
    assert torch.allclose(out.values[0].double(), expected, atol=1e-5)
    again = Cmvn(3)
    again.load_state_dict(whole.state_dict())
    assert torch.equal(again(second).values, whole(second).values)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="no statistics yet"):
        Cmvn(3)(ragged(4))
    with pytest.raises(ConfigError, match="3 wide, the features 5"):
        Cmvn(3).fit([ragged(4, dim=5)])
    with pytest.raises(ConfigError, match="order=0"):
        deltas(torch.zeros(1, 3, 1), order=0)
    with pytest.raises(ConfigError, match="window"):
        sliding_cmvn(ragged(3), window=0)
