"""Equaliser, codecs and SpecAugment: gains, bands, alignment in time, masks inside each item."""

import math

import pytest
import torch
from tests.contracts.augmentations import speech_like

from sonorant.audio.augment.codec import Codec, encode_decode, mu_law, narrow_band
from sonorant.audio.augment.equalise import Equalise, equalise, equaliser_response
from sonorant.audio.augment.specaugment import SpecAugment, warp_time
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Features

RATE = 16000


def _gain_db(before: torch.Tensor, after: torch.Tensor, hz: float, rate: int = RATE) -> float:
    """Gain of a tone, from the middle of the signal."""
    time = torch.arange(before.shape[-1], dtype=torch.float64) / rate
    probe = torch.polar(torch.hann_window(len(time), dtype=torch.float64), -2 * math.pi * hz * time)
    ratio = (after.double() * probe).sum().abs() / (before.double() * probe).sum().abs()
    return float(20 * torch.log10(ratio))


def _tone(hz: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(32000) / RATE)


def _impulse_gain(response: torch.Tensor, hz: float) -> float:
    tone = _tone(hz)[None]
    return _gain_db(tone[0], equalise(tone, response)[0], hz)


@pytest.mark.parametrize("gain", [-12.0, 6.0])
def test_equaliser_has_the_gain_asked_for(gain: float) -> None:
    frequency = torch.linspace(0, RATE / 2, 2049)
    one = torch.ones(1, 1)
    peak = equaliser_response(frequency, "peak", 1000 * one, gain * one, 2 * one, RATE)
    assert _impulse_gain(peak, 1000) == pytest.approx(gain, abs=0.05)
    assert _impulse_gain(peak, 60) == pytest.approx(0, abs=0.1)
    assert _impulse_gain(peak, 6500) == pytest.approx(0, abs=0.25)
    low = equaliser_response(frequency, "low_shelf", 500 * one, gain * one, math.sqrt(0.5) * one, RATE)
    assert _impulse_gain(low, 40) == pytest.approx(gain, abs=0.1)
    assert _impulse_gain(low, 500) == pytest.approx(gain / 2, abs=0.05)
    assert _impulse_gain(low, 7000) == pytest.approx(0, abs=0.05)
    high = equaliser_response(frequency, "high_shelf", 3000 * one, gain * one, math.sqrt(0.5) * one, RATE)
    assert _impulse_gain(high, 40) == pytest.approx(0, abs=0.05)
    assert _impulse_gain(high, 3000) == pytest.approx(gain / 2, abs=0.05)
    assert _impulse_gain(high, 7900) == pytest.approx(gain, abs=0.1)


def test_equaliser_is_the_recursive_filter() -> None:
    """The sampled response against the second-order section run sample by sample."""
    from sonorant.audio.filters import biquad, peaking

    frequency, one = torch.linspace(0, RATE / 2, 2049), torch.ones(1, 1)
    response = equaliser_response(frequency, "peak", 300 * one, 9 * one, 1.5 * one, RATE)
    noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(equalise(noise, response), biquad(noise, peaking(300, RATE, 9.0, 1.5)), atol=1e-4)


def test_equaliser_draws_stay_in_range() -> None:
    ids = [f"u{k}" for k in range(8)]
    noise = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0)).repeat(8, 1)
    batch = Batch(noise, torch.full((8,), 32000), RATE, {}, (), item_seeds(0, 0, ids))
    result = Equalise(num_peaks=0, gain_db=(-6, 6))(batch).waveform
    before, after = (
        torch.fft.rfft(w, 32768).abs().square().view(8, -1)[:, :16384].view(8, 64, 256).mean(2) for w in (noise, result)
    )
    change = 10 * torch.log10(after / before)
    assert float(change.abs().max()) < 12.2
    assert float(change.std(dim=0).max()) > 1


# --- codecs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["mp3", "opus"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
def test_codecs_are_aligned_in_time(codec: str, rate: int) -> None:
    speech = speech_like([round(1.3 * rate) + 7], rate)
    for level in (0.0, 0.6):
        coded = encode_decode(speech, rate, codec, level)
        assert coded.shape == speech.shape
        size = 1 << 18
        spectrum = torch.fft.rfft(coded[0], size) * torch.fft.rfft(speech[0], size).conj()
        correlation = torch.fft.irfft(spectrum, size)
        lag = int(correlation.argmax())
        assert lag in (0, size), f"{codec} at {rate} Hz is late by {lag if lag < size // 2 else lag - size} samples"
        assert not torch.equal(coded, speech)
        assert float((coded - speech).norm() / speech.norm()) < 0.6


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_codecs_get_worse_with_the_level(codec: str) -> None:
    speech = speech_like([20000], RATE)
    errors = [float((encode_decode(speech, RATE, codec, level) - speech).norm()) for level in (0.0, 1.0)]
    assert errors[1] > 1.3 * errors[0]
    loud = encode_decode(4 * speech, RATE, codec, 0.0)
    assert float((loud / 4 - speech).norm()) < 2 * errors[0]


def test_mu_law_has_the_curve_and_the_steps() -> None:
    waveform = torch.linspace(-1, 1, 400001)
    coded = mu_law(waveform)
    assert len(coded.round(decimals=6).unique()) == 255
    error = (coded - waveform).abs()
    # Half a step of 1/127 in the compressed domain, times the slope of expansion, ln 256 (|x| + 1/255).
    bound = 0.5 / 127 * math.log(256) * (waveform.abs() + 1 / 255)
    assert float((error / bound).max()) == pytest.approx(1, abs=0.03)
    assert float(mu_law(torch.tensor([3.0, -3.0])).abs().max()) == 1.0
    asked = torch.randn(100).requires_grad_()
    mu_law(asked).sum().backward()
    assert torch.equal(asked.grad, torch.ones(100))
    noise = [float((mu_law(0.1 * waveform, bits) - 0.1 * waveform).square().mean()) for bits in (8, 12)]
    assert noise[0] > 30 * noise[1]


def test_telephone_band_is_cut_and_in_time() -> None:
    noise = 0.1 * torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([48000])
    result = narrow_band(noise, lengths, sample_rate=RATE)
    window = torch.hann_window(48000)
    before, after = (torch.fft.rfft(w * window).abs().square()[0] for w in (noise, result))
    frequency = torch.arange(24001) / 3

    def change(low: float, high: float) -> float:
        inside = (frequency >= low) & (frequency < high)
        return float(10 * torch.log10(after[inside].mean() / before[inside].mean()))

    assert change(3400, 8000) < -40
    assert change(0, 100) < -25
    assert change(600, 2900) == pytest.approx(0, abs=0.3)
    size = 1 << 17
    correlation = torch.fft.irfft(torch.fft.rfft(result[0], size) * torch.fft.rfft(noise[0], size).conj(), size)
    assert int(correlation.argmax()) == 0


def test_each_item_draws_its_codec() -> None:
    ids = [f"u{k}" for k in range(24)]
    waveform = speech_like([3000], RATE).repeat(24, 1)
    batch = Batch(waveform, torch.full((24,), 3000), RATE, {}, (), item_seeds(0, 0, ids))
    result = Codec(kinds=("mu_law", "gsm"))(batch).waveform
    kinds = {tuple(row[:50].tolist()) for row in result}
    assert len(kinds) == 2


# --- SpecAugment ------------------------------------------------------------------------------------------------------


def _features(count: int = 32, frames: int = 300, dim: int = 80) -> tuple[Features, torch.Tensor]:
    values = torch.rand(count, frames, dim, generator=torch.Generator().manual_seed(0)) + 1
    lengths = torch.linspace(40, frames, count).long()
    values = values * (torch.arange(frames)[None] < lengths[:, None])[..., None]
    return Features(values, lengths, 100.0), item_seeds(0, 0, [f"u{k}" for k in range(count)])


def test_masks_are_as_many_and_as_wide_as_said() -> None:
    features, seeds = _features()
    freq = SpecAugment(num_time_masks=0, num_freq_masks=1, freq_width=10, fill="zero")(features, seeds)
    time = SpecAugment(num_freq_masks=0, num_time_masks=1, time_width=50, time_share=0.3, fill="zero")(features, seeds)
    widths = []
    for item, length in enumerate(features.lengths.tolist()):
        bins = (freq.values[item, :length] == 0).all(dim=0)
        frames = (time.values[item, :length] == 0).all(dim=1)
        assert torch.equal((freq.values[item, :length] == 0).any(dim=0), bins)
        assert int(bins.sum()) <= 10
        assert int(frames.sum()) <= min(50, int(0.3 * length))
        for mask in (bins, frames):
            edges = torch.diff(torch.nn.functional.pad(mask.int(), (1, 1))).abs().sum()
            assert int(edges) in (0, 2)
        widths.append(int(bins.sum()))
    assert {0, 10} <= set(widths) | {0}
    assert max(widths) == 10


def test_masks_take_the_mean_of_the_item_and_follow_its_length() -> None:
    features, seeds = _features()
    result = SpecAugment(num_freq_masks=1, freq_width=40, num_time_masks=0)(features, seeds)
    for item in (3, 20):
        length = int(features.lengths[item])
        changed = (result.values[item, :length] != features.values[item, :length]).all(dim=0)
        if changed.any():
            mean = float(features.values[item, :length].mean())
            assert torch.allclose(result.values[item, :length][:, changed], torch.tensor(mean), atol=1e-4)
    adaptive = SpecAugment(num_freq_masks=0, num_time_masks=20, masks_per_frame=0.02, fill="zero", time_share=0.05)
    gone = (adaptive(features, seeds).values == 0).all(dim=2).sum(dim=1) - (300 - features.lengths)
    assert float(gone[-8:].float().mean()) > float(gone[:8].float().mean())


def test_warp_moves_one_frame_and_keeps_the_ends() -> None:
    values = torch.arange(100.0)[None, :, None].repeat(2, 1, 3)
    lengths, center, shift = torch.tensor([100, 60]), torch.tensor([40, 30]), torch.tensor([10, -5])
    warped = warp_time(values, lengths, center, shift)
    assert warped[0, 50, 0] == pytest.approx(40, abs=1e-4)
    assert warped[1, 25, 0] == pytest.approx(30, abs=1e-4)
    for item, length in enumerate((100, 60)):
        assert warped[item, 0, 0] == 0
        assert warped[item, length - 1, 0] == pytest.approx(length - 1, abs=1e-4)
        assert (warped[item, 1:length, 0] > warped[item, : length - 1, 0]).all()
    assert torch.equal(warped[1, 60:], values[1, 60:])
    still = warp_time(values, lengths, center, torch.zeros(2, dtype=torch.long))
    assert torch.allclose(still, values, atol=1e-4)


def test_warped_features_of_any_length() -> None:
    features, seeds = _features()
    short = Features(features.values[:4, :3], torch.tensor([1, 2, 3, 3]), 100.0)
    result = SpecAugment(warp=80)(short, seeds[:4])
    assert torch.isfinite(result.values).all()
    moved = SpecAugment(warp=20, num_freq_masks=0, num_time_masks=0)(features, seeds).values
    assert ((moved - features.values).abs().amax(dim=(1, 2)) > 0).float().mean() > 0.9
