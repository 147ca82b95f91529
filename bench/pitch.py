"""Pitch tracking against Praat (autocorrelation) and librosa's pYIN, on signals whose pitch is known.

    python bench/pitch.py [--quick]

Signals: glides through formants with pauses, in white noise at several levels, and traps for octave errors (a second
harmonic ten decibels above the first, no first harmonic, every other pulse weaker, a pure tone, a telephone's band).
Errors: gross = more than 20 % off, in per cent of frames that are voiced and found voiced; voicing = voiced frames missed or
unvoiced ones taken for voiced, in per cent of all; fine = median deviation of the others in per cent.
"""

import argparse
import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from harness import interleaved, peak_memory_mb, report

from sonorant.audio.filters import bandpass, biquad
from sonorant.audio.pitch import f0

RATE = 16000
LOW, HIGH = 60.0, 500.0
FORMANTS = ((700.0, 90.0), (1220.0, 110.0), (2600.0, 160.0))

Track = tuple[np.ndarray, np.ndarray]


def contour(seconds: float, center: float, seed: int) -> np.ndarray:
    """A wandering pitch in Hz for each sample; 0 in pauses."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    octaves = sum(
        0.25 / (k + 1) * np.sin(2 * np.pi * (0.4 + 0.5 * k) * time + generator.uniform(0, 6)) for k in range(3)
    )
    pitch = np.clip(center * 2**octaves, LOW * 1.1, HIGH * 0.9)
    for begin in np.arange(0.9, seconds, 1.4):
        pitch[round(begin * RATE) : round((begin + 0.35) * RATE)] = 0
    return pitch


def voice(pitch: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """A signal with this pitch."""
    generator = np.random.default_rng(seed)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voiced = pitch > 0
    harmonics = np.arange(1, 60)
    weights = 1.0 / harmonics
    if kind == "second harmonic":
        weights[1] = 10 ** (10 / 20)
    if kind == "no first harmonic":
        weights[0] = 0
    if kind == "pure tone":
        weights[1:] = 0
    wave = np.zeros(len(pitch))
    for harmonic, weight in zip(harmonics, weights, strict=True):
        if weight:
            wave += weight * np.cos(harmonic * phase) * (harmonic * pitch < 0.45 * RATE)
    if kind == "weaker every other":
        wave *= 1 + 0.15 * np.cos(phase / 2)
    wave *= voiced
    if kind in ("formants", "weaker every other", "telephone"):
        signal = torch.from_numpy(wave)
        wave = sum(
            biquad(signal, bandpass(center, RATE, center / width)) / (k + 1)
            for k, (center, width) in enumerate(FORMANTS)
        ).numpy()
    if kind == "telephone":
        spectrum = np.fft.rfft(wave)
        hz = np.fft.rfftfreq(len(wave), 1 / RATE)
        wave = np.fft.irfft(spectrum * ((hz > 300) & (hz < 3400)), len(wave))
    wave = wave / np.abs(wave).max() * 0.5
    # Pauses hold breath, not digital silence.
    return wave + ~voiced * generator.standard_normal(len(wave)) * 0.01


def with_noise(wave: np.ndarray, pitch: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed + 1)
    level = np.sqrt(np.mean(wave[pitch > 0] ** 2)) * 10 ** (-snr_db / 20)
    return (wave + level * generator.standard_normal(len(wave))).astype(np.float32)


def ours(wave: np.ndarray) -> Track:
    pitch = f0(torch.from_numpy(wave)[None], RATE, low_hz=LOW, high_hz=HIGH)
    return np.arange(pitch.f0.shape[1]) / pitch.frame_rate, pitch.f0[0].numpy()


def praat(wave: np.ndarray) -> Track:
    import parselmouth

    pitch = parselmouth.Sound(wave.astype(np.float64), RATE).to_pitch_ac(
        time_step=0.01, pitch_floor=LOW, pitch_ceiling=HIGH
    )
    return pitch.xs(), pitch.selected_array["frequency"]


def pyin(wave: np.ndarray) -> Track:
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pitch, _, _ = librosa.pyin(wave, fmin=LOW, fmax=HIGH, sr=RATE, frame_length=1024, hop_length=160)
    return np.arange(len(pitch)) * 0.01, np.nan_to_num(pitch)


def errors(track: Track, pitch: np.ndarray) -> np.ndarray:
    """(gross, voicing, fine) in per cent; frames within 25 ms of a change of voicing are left out."""
    time, found = track
    at = np.round(time * RATE).astype(int)
    margin = round(0.025 * RATE)
    keep = (at >= margin) & (at < len(pitch) - margin)
    time, found, at = time[keep], found[keep], at[keep]
    before, after, truth = pitch[at - margin], pitch[at + margin], pitch[at]
    keep = (before > 0) == (after > 0)
    found, truth = found[keep], truth[keep]
    both = (truth > 0) & (found > 0)
    off = np.abs(found[both] / truth[both] - 1)
    gross = 100 * np.mean(off > 0.2) if both.any() else 0.0
    fine = 100 * np.median(off[off <= 0.2]) if (off <= 0.2).any() else float("nan")
    return np.array([gross, 100 * np.mean((truth > 0) != (found > 0)), fine])


def conditions(quick: bool) -> list[tuple[str, float]]:
    kinds = ["formants", "second harmonic", "no first harmonic", "weaker every other", "pure tone", "telephone"]
    quiet = [(kind, 40.0) for kind in kinds]
    return quiet + [(kind, snr) for kind in (kinds[:1] if quick else kinds) for snr in (10.0, 0.0)]


def accuracy(trackers: dict[str, Callable[[np.ndarray], Track]], quick: bool) -> list[dict]:
    rows = []
    seconds, voices = (4.0, (110.0, 220.0)) if quick else (6.0, (95.0, 150.0, 240.0))
    for kind, snr in conditions(quick):
        row: dict = {"what": f"{kind}, {snr:g} dB"}
        for name, tracker in trackers.items():
            total = []
            for seed, center in enumerate(voices):
                pitch = contour(seconds, center, seed)
                wave = with_noise(voice(pitch, kind, seed), pitch, snr, seed)
                total.append(errors(tracker(wave), pitch))
            gross, voicing, fine = np.mean(total, axis=0)
            row |= {f"{name} gross %": gross, f"{name} voicing %": voicing, f"{name} fine %": fine}
        rows.append(row)
    return rows


def speed() -> list[dict]:
    pitch = contour(20.0, 120.0, 0)
    wave = with_noise(voice(pitch, "formants", 0), pitch, 20.0, 0)
    batch = torch.from_numpy(wave).expand(8, -1).contiguous()
    single = interleaved(lambda: ours(wave), lambda: praat(wave), 5)
    many = interleaved(lambda: f0(batch, RATE), lambda: [praat(wave) for _ in range(8)], 3)
    return [
        {
            "what": f"speed, {what} vs Praat, 1 thread", "ours": pair.ours_seconds, "peer": pair.peer_seconds,
            "ratio": pair.ratio, "memory_mb": peak_memory_mb(),
        }
        for what, pair in (("20 s", single), ("8 x 20 s", many))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-pyin", action="store_true", help="pYIN takes most of the time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trackers: dict[str, Callable[[np.ndarray], Track]] = {"ours": ours, "Praat": praat}
    if not arguments.no_pyin:
        trackers["pYIN"] = pyin
    rows = accuracy(trackers, arguments.quick)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "what"}
    report("pitch", "Pitch: errors and speed against Praat and pYIN", [*rows, {"what": "mean", **mean}, *speed()])


if __name__ == "__main__":
    main()
