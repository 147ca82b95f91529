"""Resampling: tones, aliases, ripple, soxr beside it, chunks, batches, gradients."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.resample import Resample, StreamingResampler, resample, resample_soxr, resampled_length
from sonorant.core.errors import ConfigError

PAIRS = [
    (16000, 8000),
    (8000, 16000),
    (44100, 16000),
    (16000, 44100),
    (48000, 16000),
    (22050, 16000),
    (16000, 14400),
    (16000, 15993),
]


def tone(hz: float, sample_rate: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate)


def level_db(signal: torch.Tensor) -> float:
    """RMS of the middle in dB relative to a full tone's."""
    middle = signal[len(signal) // 4 : -len(signal) // 4].double()
    return 10 * math.log10(float(middle.square().mean()) * 2 + 1e-30)


def peak_db(signal: torch.Tensor) -> float:
    """The strongest line in the middle, in dB relative to a full tone."""
    middle = signal[len(signal) // 4 : -len(signal) // 4].double().numpy()
    taps = scipy.signal.windows.kaiser(len(middle), 24)
    return 20 * math.log10(float(np.abs(np.fft.rfft(middle * taps)).max() * 2 / taps.sum()) + 1e-12)


@pytest.mark.parametrize("from_rate, to_rate", PAIRS)
def test_tones_in_the_passband_come_out_exact(from_rate: int, to_rate: int) -> None:
    lower = min(from_rate, to_rate) / 2
    for share in (0.01, 0.3, 0.7, 0.9):
        out = resample(tone(share * lower, from_rate), from_rate, to_rate)
        reference = tone(share * lower, to_rate)
        assert len(out) == len(reference)
        inside = slice(len(out) // 4, -len(out) // 4)
        assert (out - reference)[inside].abs().max() < 2e-6  # -114 dB; the ripple beneath is 1e-6


@pytest.mark.parametrize("quality, rejection, passband", [("fast", 78, 0.8), ("high", 118, 0.9), ("best", 135, 0.94)])
@pytest.mark.parametrize("from_rate, to_rate", [(16000, 8000), (44100, 16000), (48000, 16000)])
def test_aliases_are_rejected(from_rate: int, to_rate: int, quality: str, rejection: float, passband: float) -> None:
    """Whatever lies above the new Nyquist frequency folds back below the noise of the quality."""
    worst = max(
        peak_db(resample(tone(share * to_rate / 2, from_rate), from_rate, to_rate, quality))
        for share in (1.001, 1.05, 1.2, 1.7, from_rate / to_rate - 0.05)
    )
    assert worst < -rejection
    flat = [
        level_db(resample(tone(share * to_rate / 2, from_rate), from_rate, to_rate, quality))
        for share in (0.1, 0.5, passband)
    ]
    assert max(abs(gain) for gain in flat) < 0.001


@pytest.mark.parametrize("from_rate, to_rate", [(8000, 16000), (16000, 44100)])
def test_images_are_rejected(from_rate: int, to_rate: int) -> None:
    out = resample(tone(0.8 * from_rate / 2, from_rate), from_rate, to_rate)
    residue = out - tone(0.8 * from_rate / 2, to_rate)[: len(out)]
    assert peak_db(residue) < -118


@pytest.mark.parametrize("from_rate, to_rate", [(16000, 8000), (44100, 16000), (8000, 16000)])
def test_not_worse_than_soxr(from_rate: int, to_rate: int) -> None:
    """Same passband as soxr HQ, aliases as low, in double precision so that neither drowns in rounding."""
    for share in (0.05, 0.5, 0.9):
        signal = tone(share * min(from_rate, to_rate) / 2, from_rate)
        reference = tone(share * min(from_rate, to_rate) / 2, to_rate)
        inside = slice(len(reference) // 4, -len(reference) // 4)
        ours = (resample(signal, from_rate, to_rate) - reference)[inside].abs().max()
        theirs = np.abs(resample_soxr(signal.numpy(), from_rate, to_rate) - reference.numpy())[inside].max()
        assert float(ours) < max(2 * theirs, 2e-6)
    if to_rate < from_rate:
        beyond = tone(1.02 * to_rate / 2, from_rate)
        theirs = torch.from_numpy(resample_soxr(beyond.numpy(), from_rate, to_rate))
        assert peak_db(resample(beyond, from_rate, to_rate)) < max(peak_db(theirs) + 3, -118)


def test_soxr_has_as_many_samples_as_said() -> None:
    for count in (1, 7, 100, 12345):
        for from_rate, to_rate in PAIRS:
            expected = resampled_length(count, from_rate, to_rate)
            assert len(resample_soxr(np.zeros(count, np.float32), from_rate, to_rate)) == expected
            assert resample_soxr(np.zeros((count, 2), np.float32), from_rate, to_rate).shape == (expected, 2)
            assert resample(torch.zeros(count), from_rate, to_rate).shape == (expected,)


@given(
    rates=st.sampled_from([*PAIRS, (16000, 16000), (7, 3), (3, 7), (16000, 17600)]),
    chunks=st.lists(st.integers(0, 2000), min_size=1, max_size=12),
    batch=st.sampled_from([(), (2,), (2, 3)]),
    quality=st.sampled_from(["fast", "high"]),
)
@settings(max_examples=60, deadline=None)
def test_chunks_of_any_size_equal_the_whole(
    rates: tuple[int, int], chunks: list[int], batch: tuple[int, ...], quality: str
) -> None:
    whole = torch.randn(*batch, sum(chunks), generator=torch.Generator().manual_seed(sum(chunks))) * 0.2
    stream = StreamingResampler(*rates, quality)
    parts = [stream.push(chunk) for chunk in whole.split(chunks, dim=-1)]
    joined = torch.cat([*parts, stream.finish()], dim=-1)
    reference = resample(whole, *rates, quality)
    assert joined.shape == reference.shape
    assert not joined.numel() or (joined - reference).abs().max() <= 1e-6


def test_latency_is_as_said_and_memory_stays_bounded() -> None:
    stream = StreamingResampler(44100, 16000)
    given_out = 0
    for step in range(200):
        given_out += stream.push(torch.zeros(441)).shape[-1]
        received = (step + 1) * 441 / 44100
        assert received - given_out / 16000 <= stream.latency + 1 / 16000
        assert stream._kept.shape[-1] < 3000
    stream.finish()
    assert stream.push(torch.ones(10)).shape == (0,)


@pytest.mark.parametrize("from_rate, to_rate", PAIRS)
def test_item_alone_equals_item_in_batch(from_rate: int, to_rate: int) -> None:
    waveform, lengths = torch.randn(3, 5000), torch.tensor([5000, 3210, 1])
    module = Resample(from_rate, to_rate)
    together, new_lengths = module(waveform, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone, new_length = module(waveform[item : item + 1, :length], lengths[item : item + 1])
        assert new_length.tolist() == [new_lengths[item].item()]
        assert torch.allclose(together[item, : alone.shape[1]], alone[0], atol=1e-6, rtol=0)
        assert not together[item, alone.shape[1] :].any()


@pytest.mark.parametrize("from_rate, to_rate", [(3, 2), (2, 3), (160, 147)])
def test_gradient(from_rate: int, to_rate: int) -> None:
    signal = torch.randn(2, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resample(x, from_rate, to_rate, "fast"), (signal,))


def test_constant_stays_constant_and_linear() -> None:
    signal = torch.ones(8000)
    assert (resample(signal, 16000, 11025)[500:-500] - 1).abs().max() < 2e-6
    a, b = torch.randn(2, 1000).double()
    both = resample(2 * a - 3 * b, 16000, 11025)
    assert torch.allclose(both, 2 * resample(a, 16000, 11025) - 3 * resample(b, 16000, 11025), atol=1e-12)


def test_there_and_back() -> None:
    b, a = scipy.signal.butter(8, 0.5)
    signal = torch.from_numpy(scipy.signal.lfilter(b, a, np.random.default_rng(0).standard_normal(16000)))
    back = resample(resample(signal, 16000, 44100), 44100, 16000)
    assert (back - signal)[1000:-1000].abs().max() < 1e-3


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'high'"):
        resample(torch.zeros(10), 3, 2, "hihg")
    with pytest.raises(ConfigError, match="whole numbers"):
        resample(torch.zeros(10), 0, 2)
