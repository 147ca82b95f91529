"""Our differentiable resampler against soxr HQ: speed, aliases, ripple.

    python bench/resample.py [--quick]

One thread each, 10 s of float32. `alias dB` is the strongest line that tones beyond the new Nyquist frequency leave (or
images of tones below the old one), `passband dB` the largest deviation of a tone's level within the quality's passband (to
0.9 of the lower Nyquist frequency for `high`, 0.81 for `fast`); both in double precision, where the filter shows and not
the rounding.
"""

import argparse
import math
import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.signal
import soxr
import torch
from harness import interleaved, peak_memory_mb, report

from sonorant.audio.resample import QUALITIES, StreamingResampler, resample

PAIRS = ((16000, 8000), (8000, 16000), (44100, 16000), (48000, 16000), (22050, 16000), (16000, 44100), (16000, 14400))


def tone(hz: float, sample_rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(sample_rate) / sample_rate)


def strongest_db(signal: np.ndarray) -> float:
    middle = signal[len(signal) // 4 : -len(signal) // 4]
    taps = np.kaiser(len(middle), 24)
    return 20 * math.log10(np.abs(np.fft.rfft(middle * taps)).max() * 2 / taps.sum() + 1e-12)


def alias_db(work: Callable[[np.ndarray], np.ndarray], from_rate: int, to_rate: int, passband: float) -> float:
    if to_rate < from_rate:
        shares = np.linspace(1.005, min(2.0, from_rate / to_rate * 0.99), 7)
        return max(strongest_db(work(tone(share * to_rate / 2, from_rate))) for share in shares)
    worst = -math.inf
    for share in (0.3, 0.6, passband):
        out = work(tone(share * from_rate / 2, from_rate))
        worst = max(worst, strongest_db(out - tone(share * from_rate / 2, to_rate)[: len(out)]))
    return worst


def passband_db(work: Callable[[np.ndarray], np.ndarray], from_rate: int, to_rate: int, passband: float) -> float:
    lower, worst = min(from_rate, to_rate) / 2, 0.0
    for share in np.linspace(0.02, passband, 12):
        out, reference = work(tone(share * lower, from_rate)), tone(share * lower, to_rate)
        inside = slice(len(out) // 4, -len(out) // 4)
        gain = np.mean(out[inside] ** 2) / np.mean(reference[inside] ** 2)
        worst = max(worst, abs(10 * math.log10(gain)))
    return worst


def row(from_rate: int, to_rate: int, quality: str, repeats: int) -> dict:
    signal = (0.1 * np.random.default_rng(0).standard_normal(10 * from_rate)).astype(np.float32)
    tensor = torch.from_numpy(signal)

    def peer(x: np.ndarray) -> np.ndarray:
        return soxr.resample(x, from_rate, to_rate, quality="HQ")

    def ours(x: np.ndarray) -> np.ndarray:
        return resample(torch.from_numpy(x), from_rate, to_rate, quality).numpy()

    band = QUALITIES[quality][1] - 0.01
    with torch.inference_mode():
        pair = interleaved(lambda: resample(tensor, from_rate, to_rate, quality), lambda: peer(signal), repeats)
        inside = slice(to_rate // 2, -to_rate // 2)
        smooth = scipy.signal.lfilter(*scipy.signal.butter(8, 0.7 * min(1, to_rate / from_rate)), signal)
        return {
            "what": f"{from_rate} to {to_rate}, {quality}", "ours": pair.ours_seconds, "peer": pair.peer_seconds,
            "ratio": pair.ratio, "ours x real time": 10 / pair.ours_seconds,
            "error": float(np.abs(ours(smooth) - peer(smooth))[inside].max()),
            "ours alias dB": alias_db(ours, from_rate, to_rate, band),
            "peer alias dB": alias_db(peer, from_rate, to_rate, band),
            "ours passband dB": passband_db(ours, from_rate, to_rate, band),
            "peer passband dB": passband_db(peer, from_rate, to_rate, band), "memory_mb": peak_memory_mb(),
        }  # fmt: skip


def streaming(from_rate: int, to_rate: int, chunk: float, repeats: int) -> dict:
    signal = torch.randn(10 * from_rate) * 0.1
    pieces = signal.split(round(chunk * from_rate))

    def ours() -> torch.Tensor:
        stream = StreamingResampler(from_rate, to_rate)
        return torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()])

    def peer() -> np.ndarray:
        stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
        last = len(pieces) - 1
        return np.concatenate([stream.resample_chunk(p.numpy(), last=i == last) for i, p in enumerate(pieces)])

    with torch.inference_mode():
        error = float((ours() - resample(signal, from_rate, to_rate)).abs().max())
        pair = interleaved(ours, peer, repeats)
    return {
        "what": f"{from_rate} to {to_rate}, high, in chunks of {1000 * chunk:g} ms", "ours": pair.ours_seconds,
        "peer": pair.peer_seconds, "ratio": pair.ratio, "ours x real time": 10 / pair.ours_seconds, "error": error,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    repeats = 5 if quick else 11
    pairs = PAIRS[:3] if quick else PAIRS
    rows = [row(from_rate, to_rate, "high", repeats) for from_rate, to_rate in pairs]
    rows += [row(from_rate, to_rate, "fast", repeats) for from_rate, to_rate in pairs[:3]]
    rows += [streaming(44100, 16000, chunk, 3) for chunk in (0.02, 0.2)]
    notes = "`error`: largest difference from soxr on band-limited noise; for chunks, from the whole at once."
    report("resample", "Resampling against soxr HQ, one thread", rows, notes)


if __name__ == "__main__":
    main()
