"""Speed, tempo, pitch and formants on signals whose answer is known, and on real speech."""

import math
from pathlib import Path

import pytest
import torch
from tests.contracts.augmentations import speech_like

from sonorant.audio.augment.formant import FormantShift, shift_formants
from sonorant.audio.augment.pitch_shift import PitchShift, shift_pitch
from sonorant.audio.augment.speed import Speed, as_ratio, change_speed
from sonorant.audio.augment.tempo import Tempo, change_tempo
from sonorant.audio.pitch import f0
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Segment, Segments

RATE = 16000


def _tone(hz: float, seconds: float, rate: int = RATE) -> torch.Tensor:
    return torch.sin(2 * math.pi * hz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate).float()


def _peak_hz(signal: torch.Tensor, rate: int = RATE) -> float:
    """The strongest frequency, by a parabola through the windowed spectrum's top three bins."""
    size = 1 << 17
    window = torch.hann_window(signal.shape[-1], dtype=torch.float64)
    level = torch.log(torch.fft.rfft(signal.double() * window, size).abs() + 1e-12)
    top = int(level[1:-1].argmax()) + 1
    left, middle, right = level[top - 1 : top + 2].tolist()
    return (top + 0.5 * (left - right) / (left - 2 * middle + right)) * rate / size


def _vowel(f0: float, formants: list[float], seconds: float = 1.0, rate: int = RATE) -> torch.Tensor:
    """A pulse train through resonances 80 Hz wide, harmonic by harmonic."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    signal = torch.zeros_like(time)
    for harmonic in range(1, int(0.47 * rate / f0)):
        hz = harmonic * f0
        gain = sum(1 / (1 + ((hz - formant) / 80) ** 2) for formant in formants) + 0.005
        signal += gain * torch.cos(2 * math.pi * hz * time)
    return (0.3 * signal / signal.abs().max()).float()


def _envelope_peaks(signal: torch.Tensor, f0: float, near: list[float], rate: int = RATE) -> list[float]:
    """The centre of gravity of the harmonics' powers around each formant."""
    spectrum = torch.fft.rfft(signal[2000:-2000].double() * torch.hann_window(len(signal) - 4000, dtype=torch.float64))
    power, found = spectrum.abs().square(), []
    frequency = torch.arange(len(power)) * rate / (len(signal) - 4000)
    for formant in near:
        inside = (frequency > formant - 260) & (frequency < formant + 260)
        found.append(float((frequency * power)[inside].sum() / power[inside].sum()))
    return found


# --- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_speed_scales_frequency_and_duration(factor: float) -> None:
    tone = _tone(440, 1.0)[None]
    result, lengths = change_speed(tone, torch.tensor([RATE]), factor)
    assert lengths.tolist() == [round(RATE / factor)]
    assert result.shape == (1, round(RATE / factor))
    assert _peak_hz(result[0, 500:-500]) == pytest.approx(440 * factor, rel=1e-4)
    assert float(result[0, 500:-500].abs().max()) == pytest.approx(1, abs=0.01)


def test_speed_groups_items_by_factor() -> None:
    ids = tuple(f"u{k}" for k in range(20))
    lengths = torch.arange(20) * 100 + 4000
    tones = _tone(500, 6000 / RATE)[None].repeat(20, 1) * (torch.arange(6000) < lengths[:, None])
    words = Segments(tuple((Segment(0.05, 0.1, "w"),) for _ in ids))
    batch = Batch(tones, lengths, RATE, {"segments": words}, ids, item_seeds(0, 0, ids))
    result = Speed(factors=(0.8, 1.0, 1.25))(batch)
    ratios = result.lengths / lengths
    heard = set()
    for item in range(20):
        factor = min((0.8, 1.0, 1.25), key=lambda f: abs(1 / f - float(ratios[item])))
        heard.add(factor)
        assert _peak_hz(result.waveform[item, 200 : int(result.lengths[item]) - 200]) == pytest.approx(
            500 * factor, rel=5e-3
        )
        segment = result.labels["segments"][item][0]
        assert (segment.start, segment.duration) == (pytest.approx(0.05 / factor), pytest.approx(0.1 / factor))
    assert heard == {0.8, 1.0, 1.25}


def test_ratio_is_near_and_small() -> None:
    for semitone in range(-12, 13):
        ratio = as_ratio(2 ** (semitone / 12))
        assert abs(1200 * math.log2(float(ratio)) - 100 * semitone) < 2
        assert min(ratio.as_integer_ratio()) <= 100


# --- tempo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.7, 0.9, 1.15, 1.6])
@pytest.mark.parametrize("hz", [95.0, 220.0, 1500.0])
def test_tempo_keeps_the_pitch(rate: float, hz: float) -> None:
    tone = _tone(hz, 1.5)[None]
    result, lengths = change_tempo(tone, torch.tensor([tone.shape[1]]), torch.tensor([rate]), sample_rate=RATE)
    assert lengths.item() == pytest.approx(tone.shape[1] / rate, abs=1)
    middle = result[0, 1500:-1500]
    assert _peak_hz(middle) == pytest.approx(hz, rel=4e-3)
    # Frames meet in step: the level neither sags nor swells at the seams.
    level = middle.unfold(0, 800, 400).square().mean(dim=1).sqrt()
    assert float(level.min()) > 0.9 * math.sqrt(0.5)
    assert float(level.max()) < 1.1 * math.sqrt(0.5)


def test_tempo_of_one_is_the_identity() -> None:
    speech = speech_like([16000, 9000], RATE)
    lengths = torch.tensor([16000, 9000])
    result, new_lengths = change_tempo(speech, lengths, torch.ones(2), sample_rate=RATE)
    assert torch.equal(new_lengths, lengths)
    assert torch.allclose(result, speech, atol=1e-6)


def test_tempo_moves_events_to_their_new_times() -> None:
    clicks = torch.zeros(1, 32000)
    for second in (0.25, 0.8, 1.3, 1.9):
        clicks[0, round(second * RATE)] = 1
    result, _ = change_tempo(clicks, torch.tensor([32000]), torch.tensor([0.8]), sample_rate=RATE)
    for second in (0.25, 0.8, 1.3, 1.9):
        place = round(second / 0.8 * RATE)
        near = result[0, place - 480 : place + 480].abs()
        assert float(near.max()) > 0.3, f"the click at {second} s is not found at {second / 0.8} s"


def test_tempo_of_two_channels_moves_them_together() -> None:
    speech = speech_like([16000], RATE)
    stereo = torch.stack((speech, 0.5 * speech), dim=1)
    result, _ = change_tempo(stereo, torch.tensor([16000]), torch.tensor([1.2]), sample_rate=RATE)
    assert torch.allclose(result[:, 1], 0.5 * result[:, 0], atol=1e-6)


def test_tempo_labels_scale() -> None:
    batch = Batch(
        speech_like([16000], RATE),
        torch.tensor([16000]),
        RATE,
        {"segments": Segments(((Segment(0.5, 0.5, "w"),),))},
        ("a",),
        item_seeds(0, 0, ["a"]),
    )
    result = Tempo(rate=(0.8, 0.8))(batch)
    assert result.lengths.tolist() == [20000]
    assert result.labels["segments"][0][0].start == pytest.approx(0.625)
    assert result.labels["segments"][0][0].end == pytest.approx(1.25)


# --- pitch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semitones", [-7.0, -2.0, 1.0, 4.0, 12.0])
def test_pitch_moves_by_the_semitones_asked(semitones: float) -> None:
    tone = _tone(330, 1.5)[None, None]
    result = shift_pitch(tone, torch.tensor([24000]), torch.tensor([0]), (semitones,), sample_rate=RATE)
    assert result.shape == tone.shape
    heard = _peak_hz(result[0, 0, 2000:-2000])
    assert 12 * math.log2(heard / 330) == pytest.approx(semitones, abs=0.05)


def test_pitch_shift_keeps_times() -> None:
    clicks = torch.zeros(1, 1, 32000)
    clicks[..., 4000::8000] = 1
    result = shift_pitch(clicks, torch.tensor([32000]), torch.tensor([0]), (3.0,), sample_rate=RATE)[0, 0]
    for place in range(4000, 32000, 8000):
        assert float(result[place - 480 : place + 480].abs().max()) > 0.3
    words = Segments(((Segment(0.5, 0.5, "w"),),))
    batch = Batch(clicks[0], torch.tensor([32000]), RATE, {"segments": words}, ("a",), item_seeds(0, 0, ["a"]))
    shifted = PitchShift()(batch)
    assert shifted.labels["segments"] == words
    assert torch.equal(shifted.lengths, batch.lengths)


# --- formants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_formants_move_and_pitch_stays(factor: float) -> None:
    f0, formants = 100.0, [700.0, 1600.0, 2700.0]
    vowel = _vowel(f0, formants)[None]
    result = shift_formants(vowel, torch.tensor([RATE]), torch.tensor([factor]), sample_rate=RATE)
    moved = _envelope_peaks(result[0], f0, [formant * factor for formant in formants])
    for formant, place in zip(formants, moved):
        # A third of the way would be a failure; the smoothed envelope is read to within half a harmonic.
        assert place / formant == pytest.approx(factor, abs=0.05)
    # All energy stands at multiples of the old pitch.
    spectrum = torch.fft.rfft(result[0].double() * torch.hann_window(RATE, dtype=torch.float64)).abs().square()
    bins = torch.arange(len(spectrum)) % 100
    on_harmonics = spectrum[(bins <= 2) | (bins >= 98)].sum() / spectrum.sum()
    assert float(on_harmonics) > 0.99
    assert float(result.square().mean()) == pytest.approx(float(vowel.square().mean()), rel=0.05)


def test_formant_factor_of_one_is_the_identity() -> None:
    speech, lengths = speech_like([16000, 9000], RATE), torch.tensor([16000, 9000])
    result = shift_formants(speech, lengths, torch.ones(2), sample_rate=RATE)
    assert torch.allclose(result, speech, atol=1e-5)
    assert FormantShift().prob == 1.0


# --- real speech ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speech(packs: Path) -> tuple[torch.Tensor, int]:
    """The first three seconds of a reader."""
    import soundfile

    found = sorted((packs / "ljspeech_mini").rglob("*.wav")) or sorted((packs / "ljspeech_mini").rglob("*.flac"))
    if not found:
        pytest.skip(f"no audio under {packs / 'ljspeech_mini'}")
    samples, rate = soundfile.read(found[0], dtype="float32", always_2d=True)
    return torch.from_numpy(samples[: 3 * rate, 0].copy())[None], rate


def _spectrum_db(signal: torch.Tensor) -> torch.Tensor:
    frames = signal.unfold(0, 512, 128) * torch.hann_window(512)
    bands = torch.fft.rfft(frames).abs().square().mean(dim=0)[1:129].view(32, 4).mean(dim=1)
    return 10 * torch.log10(bands / bands.sum())


def _pitch(signal: torch.Tensor, rate: int) -> tuple[float, float]:
    """Median of the voiced frames in Hz, and their share."""
    found = f0(signal, rate)
    return float(found.f0[found.voiced].median()), float(found.voiced.float().mean())


def test_tempo_on_real_speech(speech: tuple[torch.Tensor, int]) -> None:
    signal, rate = speech
    result, _ = change_tempo(signal, torch.tensor([signal.shape[1]]), torch.tensor([0.85]), sample_rate=rate)
    before, after = _spectrum_db(signal[0]), _spectrum_db(result[0])
    assert float((after - before).abs()[before > -45].mean()) < 1.0
    assert float(result.square().mean()) == pytest.approx(float(signal.square().mean()), rel=0.1)
    assert _pitch(result, rate) == (
        pytest.approx(_pitch(signal, rate)[0], rel=0.03),
        pytest.approx(_pitch(signal, rate)[1], abs=0.08),
    )


@pytest.mark.parametrize("semitones", [-3.0, 3.0])
def test_pitch_shift_on_real_speech(speech: tuple[torch.Tensor, int], semitones: float) -> None:
    signal, rate = speech
    result = shift_pitch(
        signal[:, None], torch.tensor([signal.shape[1]]), torch.tensor([0]), (semitones,), sample_rate=rate
    )
    moved = 12 * math.log2(_pitch(result[:, 0], rate)[0] / _pitch(signal, rate)[0])
    assert moved == pytest.approx(semitones, abs=0.4)


@pytest.mark.parametrize("factor", [0.87, 1.15])
def test_formant_shift_on_real_speech(speech: tuple[torch.Tensor, int], factor: float) -> None:
    signal, rate = speech
    result = shift_formants(signal, torch.tensor([signal.shape[1]]), torch.tensor([factor]), sample_rate=rate)
    assert _pitch(result, rate)[0] == pytest.approx(_pitch(signal, rate)[0], rel=0.03)
    before, after = (_spectrum_db(wave[0]) for wave in (signal, result))
    center = torch.arange(32.0)
    moved = (center * 10 ** (after / 10)).sum() / (center * 10 ** (before / 10)).sum()
    assert (float(moved) - 1) * (factor - 1) > 0
