"""Augmentations: audio-seconds a second for each, on a batch of 16 x 5 s at 16 kHz and one thread, and against peers.

    python bench/augment.py [--quick]

The peers do the same work in their own way: item by item in numpy (librosa, soxr, scipy), or in torch (lhotse). The column
`error` compares results where both compute the same thing.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import interleaved, peak_memory_mb, report, seconds

from sonorant.audio.augment.catalogue import AUGMENTATIONS, build_augmentation
from sonorant.audio.augment.equalise import equalise, equaliser_response
from sonorant.audio.augment.pitch_shift import shift_pitch
from sonorant.audio.augment.reverb import reverb
from sonorant.audio.augment.speed import change_speed
from sonorant.audio.augment.tempo import change_tempo
from sonorant.audio.spatial.rooms import SPEED_OF_SOUND, Rooms, shoebox_rir
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Features

RATE, ITEMS, SECONDS = 16000, 16, 5.0
AUDIO = ITEMS * SECONDS


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(int(SECONDS * RATE)) / RATE
    pitch = torch.linspace(90, 250, ITEMS)[:, None] * (1 + 0.1 * torch.sin(2 * math.pi * 0.7 * time))
    phase = 2 * math.pi * pitch.cumsum(dim=1) / RATE
    voice = sum(torch.sin(k * phase) / k for k in range(1, 15))
    syllables = (torch.sin(2 * math.pi * 3 * time) > -0.5).float()
    waveform = 0.1 * voice * syllables + 0.005 * torch.randn(ITEMS, len(time), generator=generator)
    ids = tuple(f"item{k}" for k in range(ITEMS))
    return Batch(waveform, torch.full((ITEMS,), len(time)), RATE, {}, ids, item_seeds(0, 0, ids))


def row(
    what: str, ours: Callable[[], Any], peer: Callable[[], Any] | None, name: str, repeats: int, error: Any = ""
) -> dict:
    """One line: audio-seconds a second of ours and the peer's."""
    if peer is None:
        ours()
        spent = sorted(seconds(ours) for _ in range(repeats))[repeats // 2]
        return {
            "what": what,
            "ours": AUDIO / spent,
            "peer": "",
            "ratio": "",
            "error": error,
            "memory_mb": peak_memory_mb(),
        }
    pair = interleaved(ours, peer, repeats)
    return {
        "what": f"{what} / {name}",
        "ours": AUDIO / pair.ours_seconds,
        "peer": AUDIO / pair.peer_seconds,
        "ratio": pair.ratio,
        "error": error,
        "memory_mb": peak_memory_mb(),
    }


def speed_rows(batch: Batch, repeats: int) -> list[dict]:
    import librosa
    import soxr

    arrays = list(batch.waveform.numpy())
    one, lengths = torch.ones(ITEMS), batch.lengths
    stacked = batch.waveform[:, None]
    which = torch.zeros(ITEMS, dtype=torch.long)
    ours, theirs = change_speed(batch.waveform, lengths, 1.1)[0], soxr.resample(arrays[0], 11, 10)
    size = min(ours.shape[1], len(theirs)) - 200
    error = float(np.abs(ours[0, 200:size].numpy() - theirs[200:size]).max())
    return [
        row(
            "speed 1.1",
            lambda: change_speed(batch.waveform, lengths, 1.1),
            lambda: [soxr.resample(a, 11, 10) for a in arrays],
            "soxr HQ",
            repeats,
            error,
        ),
        row(
            "tempo 1.1 (WSOLA)",
            lambda: change_tempo(batch.waveform, lengths, 1.1 * one, sample_rate=RATE),
            lambda: [librosa.effects.time_stretch(a, rate=1.1) for a in arrays],
            "librosa.effects.time_stretch (phase vocoder)",
            repeats,
        ),
        row(
            "pitch shift +2",
            lambda: shift_pitch(stacked, lengths, which, (2.0,), sample_rate=RATE),
            lambda: [librosa.effects.pitch_shift(a, sr=RATE, n_steps=2) for a in arrays],
            "librosa.effects.pitch_shift",
            repeats,
        ),
    ]


def filter_rows(batch: Batch, repeats: int) -> list[dict]:
    import scipy.signal
    from lhotse.augmentation.utils import convolve1d

    rir = torch.randn(ITEMS, 6400) * torch.exp(-torch.arange(6400) / 900)
    convolved = reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE, align=False, keep_level=False).waveform
    expected = scipy.signal.fftconvolve(batch.waveform[0].double().numpy(), rir[0].double().numpy())[
        : convolved.shape[1]
    ]
    error = float(np.abs(convolved[0].numpy() - expected).max() / np.abs(expected).max())
    frequency = torch.linspace(0, RATE / 2, 2049)
    center, gain = torch.tensor([[200.0, 600.0, 1500.0, 4000.0]]).repeat(ITEMS, 1), torch.full((ITEMS, 4), 6.0)

    def ours_equaliser() -> torch.Tensor:
        return equalise(
            batch.waveform, equaliser_response(frequency, "peak", center, gain, torch.ones_like(gain), RATE)
        )

    sections = []
    for hz in center[0].tolist():
        amplitude, omega = 10 ** (6 / 40), 2 * math.pi * hz / RATE
        alpha, cosine = math.sin(omega) / 2, math.cos(omega)
        b = [1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude]
        a = [1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude]
        sections.append([v / a[0] for v in (*b, *a)])
    arrays, sos = list(batch.waveform.numpy()), np.array(sections, dtype=np.float32)
    same = scipy.signal.sosfilt(np.array(sections), arrays[0].astype(np.float64))
    return [
        row(
            "reverb by a given response of 0.4 s",
            lambda: reverb(batch.waveform, batch.lengths, rir, sample_rate=RATE),
            lambda: [convolve1d(w, r) for w, r in zip(batch.waveform, rir)],
            "lhotse convolve1d (no level, no alignment)",
            repeats,
            error,
        ),
        row(
            "equaliser, 4 peaks",
            ours_equaliser,
            lambda: [scipy.signal.sosfilt(sos, a) for a in arrays],
            "scipy sosfilt",
            repeats,
            float(np.abs(ours_equaliser()[0].numpy() - same).max()),
        ),
    ]


def room_rows(repeats: int) -> list[dict]:
    import pyroomacoustics as pra

    pra.constants.set("c", SPEED_OF_SOUND)
    pra.constants.set("rir_hpf_enable", False)
    room, order = [6.0, 5.0, 3.0], 17
    source, microphone = [1.5, 2.0, 1.6], [4.0, 3.1, 1.3]

    def theirs() -> list:
        found = []
        for _ in range(ITEMS):
            box = pra.ShoeBox(room, fs=RATE, materials=pra.Material(0.3), max_order=order, air_absorption=False)
            box.add_source(source)
            box.add_microphone(microphone)
            box.compute_rir()
            found.append(box.rir[0][0])
        return found

    def ours() -> torch.Tensor:
        places = (torch.tensor([p]).repeat(ITEMS, 1) for p in (room, source))
        microphones = torch.tensor([[microphone]]).repeat(ITEMS, 1, 1)
        walls = torch.full((ITEMS,), 0.3)
        return shoebox_rir(*places, microphones, walls, sample_rate=RATE, seconds=0.4, max_order=order, lead=40)

    mine, other = ours()[0, 0].numpy(), np.asarray(theirs()[0])
    size = min(len(mine), len(other))
    scale = float(mine[:size] @ other[:size] / (other[:size] @ other[:size]))
    error = float(np.linalg.norm(mine[:size] - scale * other[:size]) / np.linalg.norm(mine[:size]))
    seeds = item_seeds(0, 0, [f"{k}" for k in range(ITEMS)])
    exact = row(f"16 rooms, all images to order {order}", ours, theirs, "pyroomacoustics (C++)", repeats, error)
    drawn = row(
        "16 rooms drawn, images to 50 ms and a diffuse tail of 0.7 s",
        lambda: Rooms().draw(seeds, "room", RATE),
        theirs,
        f"pyroomacoustics, order {order}",
        repeats,
    )
    for line in (exact, drawn):
        line["what"] += " [rooms/s]"
        line["ours"], line["peer"] = line["ours"] / SECONDS, line["peer"] / SECONDS
    return [exact, drawn]


def mask_rows(repeats: int) -> list[dict]:
    from lhotse.dataset.signal_transforms import SpecAugment as LhotseSpecAugment

    features = Features(torch.randn(ITEMS, 500, 80), torch.full((ITEMS,), 500), 100.0)
    seeds = item_seeds(0, 0, [f"{k}" for k in range(ITEMS)])
    options = {"num_freq_masks": 2, "freq_width": 27, "num_time_masks": 10, "time_width": 100, "time_share": 0.15}
    ours = build_augmentation("spec_augment", warp=80, **options)
    theirs = LhotseSpecAugment(
        time_warp_factor=80,
        num_feature_masks=2,
        features_mask_size=27,
        num_frame_masks=10,
        frames_mask_size=100,
        max_frames_mask_fraction=0.15,
        p=1.0,
    )
    return [row("SpecAugment", lambda: ours(features, seeds), lambda: theirs(features.values), "lhotse", repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three runs of each instead of seven")
    repeats = 3 if parser.parse_args().quick else 7
    torch.set_num_threads(1)
    batch, rows = make_batch(), []
    for name, build in AUGMENTATIONS.items():
        augment = build(prob=1.0)
        rows.append(row(name, lambda augment=augment: augment(batch), None, "", repeats))
    rows += speed_rows(batch, repeats) + filter_rows(batch, repeats) + room_rows(repeats) + mask_rows(repeats)
    notes = (
        "Unit: audio-seconds a second of one thread, on 16 x 5 s at 16 kHz with prob = 1 (rooms: responses a second). "
        "`memory_mb` is the process's peak so far. mp3 and opus are the real encoders, item by item."
    )
    report("augment", "Augmentations", rows, notes)


if __name__ == "__main__":
    main()
