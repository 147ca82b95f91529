"""Features against kaldi-native-fbank and librosa: single files and batches, with one thread and with two.

    python bench/features.py [--quick]

kaldi-native-fbank works on one file in one thread; a batch of 32 is a loop over it, with two threads in a pool of two
(it lets go of the interpreter lock while it computes, or not: that is its own affair). Both sides begin with a float32
array or tensor in memory and end with one array of features a file. `error` is the largest difference of any value. `cpu
ratio` compares processor seconds of all threads, which other work on the machine does not change.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import kaldi_native_fbank as knf
import librosa
import numpy as np
import torch
from harness import interleaved, peak_memory_mb, report

from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.mel import Mel
from sonorant.audio.features.mfcc import Mfcc

RATE = 16000


def processor_seconds(work: Callable[[], Any]) -> float:
    """Of all threads: what a busy machine does not change."""
    start = time.process_time()
    work()
    return time.process_time() - start


def kaldi(kind: str) -> Callable[[np.ndarray], np.ndarray]:
    options = knf.FbankOptions() if kind == "fbank" else knf.MfccOptions()
    options.frame_opts.dither = 0.0
    options.energy_floor = 0.0
    if kind == "fbank":
        options.mel_opts.num_bins = 80
    make = knf.OnlineFbank if kind == "fbank" else knf.OnlineMfcc

    def work(wave: np.ndarray) -> np.ndarray:
        online = make(options)
        online.accept_waveform(RATE, wave)
        online.input_finished()
        return np.stack([online.get_frame(frame) for frame in range(online.num_frames_ready)])

    return work


def librosa_mel(wave: np.ndarray) -> np.ndarray:
    power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=512, hop_length=160, n_mels=80)
    return np.log(np.maximum(power, 1e-10)).T


def waves(count: int, seconds: float) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(0.1 * generator.standard_normal(round(seconds * RATE))).astype(np.float32) for _ in range(count)]


def ragged(seed: int = 0) -> list[np.ndarray]:
    """32 items of 2 to 15 s, as a bucketed batch has them."""
    generator = np.random.default_rng(seed)
    return [waves(1, seconds)[0] for seconds in generator.uniform(2, 15, 32)]


def row(
    what: str,
    module: Any,
    peer: Callable[[np.ndarray], np.ndarray],
    items: list[np.ndarray],
    threads: int,
    repeats: int,
) -> dict:
    torch.set_num_threads(threads)
    lengths = torch.tensor([len(item) for item in items])
    batch = torch.zeros(len(items), int(lengths.max()))
    for line, item in zip(batch, items, strict=True):
        line[: len(item)] = torch.from_numpy(item)
    pool = ThreadPoolExecutor(threads)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return module(batch, lengths).values

    def theirs() -> list[np.ndarray]:
        return list(pool.map(peer, items)) if threads > 1 and len(items) > 1 else [peer(item) for item in items]

    values, reference = ours(), theirs()
    error = max(float(np.abs(values[i, : len(r)].numpy() - r).max()) for i, r in enumerate(reference))
    pair = interleaved(ours, theirs, repeats)
    cpu = statistics.median(processor_seconds(theirs) / processor_seconds(ours) for _ in range(3))
    seconds = float(lengths.sum()) / RATE
    return {
        "what": what, "threads": threads, "ours": pair.ours_seconds, "peer": pair.peer_seconds, "ratio": pair.ratio,
        "cpu ratio": cpu,
        "ours x real time": seconds / pair.ours_seconds, "error": error, "memory_mb": peak_memory_mb(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    kinds: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray], str]] = {
        "fbank": (Fbank(), kaldi("fbank"), "kaldi-native-fbank"),
        "mfcc": (Mfcc(), kaldi("mfcc"), "kaldi-native-fbank"),
        "mel": (Mel(log_floor=1e-10), librosa_mel, "librosa"),
    }
    sizes: dict[str, tuple[list[np.ndarray], int]] = {
        "1 s": (waves(1, 1.0), 31),
        "5 s": (waves(1, 5.0), 11),
        "20 s": (waves(1, 20.0), 5),
        "32 x 5 s": (waves(32, 5.0), 3),
        "32 x 2-15 s": (ragged(), 3),
    }
    if quick:
        del sizes["5 s"], sizes["32 x 2-15 s"]
    rows = [
        row(f"{kind}, {size} vs {name}", module, peer, items, threads, repeats)
        for kind, (module, peer, name) in kinds.items()
        for size, (items, repeats) in sizes.items()
        for threads in (1, 2)
    ]
    notes = (
        "Two OpenMP threads wait for each other after every step: on a machine that is busy with other work the rows with "
        "two threads are slower than those with one. Loader workers use one."
    )
    report("features", "Features: fbank and MFCC against kaldi-native-fbank, mel against librosa", rows, notes)


if __name__ == "__main__":
    main()
