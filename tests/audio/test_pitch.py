"""Pitch of signals whose pitch is known, beside Praat, and items in batches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sonorant.audio.io import read_audio
from sonorant.audio.pitch import best_path, f0
from sonorant.core.errors import ConfigError

RATE = 16000


def glide(center: float, depth: float, seconds: float = 2.0, sample_rate: int = RATE) -> torch.Tensor:
    """Pitch in Hz for each sample."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return center * 2 ** (depth * torch.sin(2 * math.pi * 0.8 * time))


def harmonics(
    pitch: torch.Tensor, weights: list[float], sample_rate: int = RATE, noise_db: float | None = None
) -> torch.Tensor:
    phase = 2 * math.pi * (pitch / sample_rate).cumsum(0)
    wave = sum(weight * torch.cos((k + 1) * phase) for k, weight in enumerate(weights))
    wave = 0.3 * wave / wave.abs().max()
    if noise_db is not None:
        generator = torch.Generator().manual_seed(0)
        wave = wave + wave.std() * 10 ** (-noise_db / 20) * torch.randn(len(wave), generator=generator)
    return wave.float()


def deviations(found: torch.Tensor, frame_rate: float, pitch: torch.Tensor, sample_rate: int = RATE) -> torch.Tensor:
    """Relative error of each frame away from the ends; 1 where none was found."""
    at = (torch.arange(len(found)) / frame_rate * sample_rate).round().long().clamp(max=len(pitch) - 1)
    return (found / pitch[at] - 1).abs()[5:-5]


SHAPES = {
    "buzz": [1 / k for k in range(1, 12)],
    "pure tone": [1.0],
    "no first harmonic": [0.0, 1.0, 0.8, 0.6, 0.4],
    "second harmonic 10 dB above the first": [1.0, 3.16, 0.5, 0.5, 0.3],
    "odd harmonics only": [1.0, 0.0, 0.7, 0.0, 0.4],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("center, depth", [(90.0, 0.3), (150.0, 0.6), (320.0, 0.5)])
@pytest.mark.parametrize("noise_db", [None, 10.0])
def test_glides(shape: str, center: float, depth: float, noise_db: float | None) -> None:
    pitch = glide(center, depth)
    found = f0(harmonics(pitch, SHAPES[shape], noise_db=noise_db)[None], RATE)
    error = deviations(found.f0[0], found.frame_rate, pitch)
    assert (error > 0.2).float().mean() == 0, "gross errors"
    assert error.median() < (0.001 if noise_db is None else 0.01)
    assert found.voicing[0, 5:-5].min() > 0.5


@pytest.mark.parametrize("sample_rate", [8000, 11025, 22050, 44100, 48000])
def test_any_sample_rate(sample_rate: int) -> None:
    pitch = glide(180.0, 0.4, sample_rate=sample_rate)
    found = f0(harmonics(pitch, SHAPES["buzz"], sample_rate)[None], sample_rate)
    error = deviations(found.f0[0], found.frame_rate, pitch, sample_rate)
    assert error.max() < 0.02


def test_noise_and_silence_are_unvoiced() -> None:
    noise = 0.1 * torch.randn(1, 2 * RATE, generator=torch.Generator().manual_seed(1))
    assert f0(noise, RATE).voiced.float().mean() < 0.03
    for quiet in (torch.zeros(1, RATE), torch.full((1, RATE), 0.3)):
        found = f0(quiet, RATE)
        assert not found.f0.any()
        assert found.voicing.max() < 0.1


def test_voiced_and_unvoiced_in_turn() -> None:
    pitch = torch.full((RATE,), 140.0, dtype=torch.float64)
    tone = harmonics(pitch, SHAPES["buzz"])
    noise = 0.05 * torch.randn(RATE, generator=torch.Generator().manual_seed(2))
    found = f0(torch.cat([noise, tone, noise])[None], RATE)
    voiced = found.voiced[0]
    assert bool(voiced[105:195].all())
    assert voiced[:95].float().mean() < 0.03
    assert voiced[205:].float().mean() < 0.03


def test_louder_changes_nothing() -> None:
    wave = harmonics(glide(150.0, 0.5), SHAPES["buzz"], noise_db=20.0)[None]
    assert torch.allclose(f0(wave, RATE).f0, f0(0.03 * wave, RATE).f0, rtol=1e-3)


def test_item_alone_equals_item_in_batch() -> None:
    lengths = torch.tensor([32000, 17001, 900, 0])
    waveform = torch.stack(
        [harmonics(glide(c, 0.3), SHAPES["buzz"], noise_db=20.0) for c in (100.0, 200.0, 300.0, 400.0)]
    )
    for item, length in enumerate(lengths.tolist()):
        waveform[item, length:] = float("nan")
    together = f0(waveform, RATE, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = f0(waveform[item : item + 1, :length], RATE)
        count = int(alone.lengths)
        assert count == int(together.lengths[item])
        assert torch.allclose(together.f0[item, :count], alone.f0[0], rtol=1e-4)
        assert torch.allclose(together.voicing[item, :count], alone.voicing[0], atol=1e-3)
        assert not together.f0[item, count:].any()
        assert not together.voicing[item, count:].any()


def test_path_is_the_best_of_all() -> None:
    """The search against every path, on trellises small enough to count them."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        frames, candidates = 4, 2
        scores = torch.randn(1, frames, candidates + 1, generator=generator, dtype=torch.float64)
        frequencies = 100 * 2 ** (2 * torch.rand(1, frames, candidates, generator=generator, dtype=torch.float64))
        path = best_path(scores, frequencies, torch.ones(1, frames, dtype=torch.bool), 0.7, 0.4)[0].tolist()

        def total(states: tuple[int, ...], scores: torch.Tensor = scores, hz: torch.Tensor = frequencies) -> float:
            value = sum(float(scores[0, t, s]) for t, s in enumerate(states))
            for t in range(1, len(states)):
                before, now = states[t - 1], states[t]
                if (before == 0) != (now == 0):
                    value -= 0.4
                elif before and now:
                    value -= 0.7 * abs(math.log2(float(hz[0, t - 1, before - 1]) / float(hz[0, t, now - 1])))
            return value

        best = max(np.ndindex(*[candidates + 1] * frames), key=total)
        assert abs(total(tuple(path)) - total(best)) < 1e-9, f"trial {trial}"


def test_agrees_with_praat_on_speech(packs: Path) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    files = sorted((packs / "ljspeech_mini" / "audio").glob("*"))[:2]
    assert files
    for path in files:
        wave = read_audio(path, duration=5.0, sample_rate=RATE).waveform
        ours = f0(wave[None], RATE)
        sound = parselmouth.Sound(wave.double().numpy(), RATE)
        praat = sound.to_pitch_ac(time_step=0.01, pitch_floor=60.0, pitch_ceiling=500.0)
        theirs, times = praat.selected_array["frequency"], praat.xs()
        found = ours.f0[0].numpy()[np.round(times * ours.frame_rate).astype(int)]
        both = (theirs > 0) & (found > 0)
        assert ((theirs > 0) == (found > 0)).mean() > 0.9
        assert (np.abs(found[both] / theirs[both] - 1) > 0.2).mean() < 0.02
        assert np.median(np.abs(found[both] / theirs[both] - 1)) < 0.01


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="low_hz < high_hz"):
        f0(torch.zeros(1, 100), RATE, low_hz=500.0, high_hz=60.0)
