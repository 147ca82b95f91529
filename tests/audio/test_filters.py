"""Filters against scipy, against their own formulae, and one by one against the batch."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.filters import (
    bandpass,
    biquad,
    deemphasis,
    fft_convolve,
    high_shelf,
    highpass,
    lfilter,
    low_shelf,
    lowpass,
    notch,
    peaking,
    preemphasis,
    sosfilt,
)  # fmt: skip
from sonorant.core.errors import ConfigError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    time=st.integers(1, 700), radius=st.floats(0, 0.999), angle=st.floats(0, math.pi),
    b=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_lfilter_equals_scipy(time: int, radius: float, angle: float, b: list[float]) -> None:
    a = [2.0, -4 * radius * math.cos(angle), 2 * radius * radius]
    waveform = noise(2, time)
    reference = scipy.signal.lfilter(b, a, waveform.numpy())
    ours = lfilter(waveform, b, a).numpy()
    assert np.abs(ours - reference).max() <= 1e-9 * max(1.0, np.abs(reference).max())


def test_high_order_equals_scipy() -> None:
    b, a = scipy.signal.butter(6, 0.3)
    waveform = noise(3000)
    assert np.allclose(lfilter(waveform, b.tolist(), a.tolist()).numpy(), scipy.signal.lfilter(b, a, waveform.numpy()))


def test_a_filter_for_each_item() -> None:
    sections = [lowpass(500, 16000), highpass(2000, 16000), peaking(1000, 16000, 9.0)]
    waveform = noise(3, 1000)
    b, a = torch.tensor([s.b for s in sections]), torch.tensor([s.a for s in sections])
    together = lfilter(waveform, b, a)
    for item, section in enumerate(sections):
        assert torch.allclose(together[item], biquad(waveform[item], section), atol=1e-5)


def test_what_follows_changes_nothing() -> None:
    waveform = noise(1, 1000).float()
    section = lowpass(300, 16000)
    for cut in (1, 127, 128, 129, 700):
        assert torch.allclose(biquad(waveform[:, :cut], section), biquad(waveform, section)[:, :cut], atol=1e-6)


@pytest.mark.parametrize(
    "section, hz, gain_db",
    [
        (lowpass(1000, 16000), 1000, -3.01),
        (lowpass(1000, 16000), 10, 0.0),
        (highpass(1000, 16000), 1000, -3.01),
        (highpass(1000, 16000), 7900, 0.0),
        (bandpass(1000, 16000, 5.0), 1000, 0.0),
        (peaking(1000, 16000, 6.0), 1000, 6.0),
        (peaking(1000, 16000, -6.0), 1000, -6.0),
        (low_shelf(500, 16000, 6.0), 5, 6.0),
        (low_shelf(500, 16000, 6.0), 500, 3.0),
        (low_shelf(500, 16000, 6.0), 7900, 0.0),
        (high_shelf(3000, 16000, -6.0), 7990, -6.0),
        (high_shelf(3000, 16000, -6.0), 3000, -3.0),
        (high_shelf(3000, 16000, -6.0), 5, 0.0),
    ],
)
def test_gain_of_designs(section: object, hz: float, gain_db: float) -> None:
    assert abs(20 * math.log10(abs(section.response(hz, 16000))) - gain_db) < 0.05
    tone = torch.sin(2 * math.pi * hz / 16000 * torch.arange(32000, dtype=torch.float64) + 0.3)
    settled = biquad(tone, section)[16000:].square().mean() / tone[16000:].square().mean()
    assert abs(10 * math.log10(float(settled)) - gain_db) < 0.1


def test_notch_takes_its_tone_out() -> None:
    tone = torch.sin(2 * math.pi * 50 / 8000 * torch.arange(80000, dtype=torch.float64))
    assert sosfilt(tone, [notch(50, 8000)])[40000:].abs().max() < 1e-3


@pytest.mark.parametrize("mode", ["full", "same", "causal"])
def test_convolution_equals_numpy(mode: str) -> None:
    waveform, kernel = noise(2, 500), noise(37, seed=1)
    ours = fft_convolve(waveform, kernel, mode)
    for item in range(2):
        full = np.convolve(waveform[item].numpy(), kernel.numpy())
        reference = {"full": full, "causal": full[:500], "same": full[18:518]}[mode]
        assert np.allclose(ours[item].numpy(), reference, atol=1e-9)
    each = fft_convolve(waveform, noise(2, 37, seed=1), mode)
    assert torch.allclose(each[1], fft_convolve(waveform[1], noise(2, 37, seed=1)[1], mode))


def test_emphasis_there_and_back() -> None:
    waveform = noise(2, 5000).float()
    assert torch.allclose(deemphasis(preemphasis(waveform, 0.97), 0.97), waveform, atol=1e-4)
    assert preemphasis(torch.ones(3), 0.5).tolist() == [1.0, 0.5, 0.5]


def test_gradients_in_signal_and_coefficients() -> None:
    waveform = noise(2, 150).requires_grad_()
    b = torch.tensor([0.2, 0.3, 0.1], dtype=torch.float64, requires_grad=True)
    a = torch.tensor([1.0, -1.2, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lfilter, (waveform, b, a))
    kernel = noise(9, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(fft_convolve, (waveform, kernel))


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 8000 Hz"):
        lowpass(9000, 16000)
    with pytest.raises(ConfigError, match="mode must be"):
        fft_convolve(torch.ones(3), torch.ones(2), "valid")
    with pytest.raises(ConfigError, match="needs samples"):
        fft_convolve(torch.ones(0), torch.ones(2))
