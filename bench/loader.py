"""Loading: audio-seconds a second, padding, and what it costs to go on in the middle of an epoch; against lhotse's sampler.

The peer is what a lhotse user writes: `DynamicBucketingSampler`, a data set that calls `collate_audio`, torch's `DataLoader`.
Both read the same files in the same process, in turn.
"""

import argparse
import itertools
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harness import interleaved, peak_memory_mb, report, seconds

RATE = 16000


def speech_like_durations(count: int, seed: int = 0) -> np.ndarray:
    """Log-normal, 0.5 to 30 s, 6.3 s on average: about what read and spontaneous corpora mixed look like."""
    return np.clip(np.random.default_rng(seed).lognormal(1.6, 0.7, count), 0.5, 30.0)


def write_corpus(folder: Path, count: int) -> list[Any]:
    """Flac files of filtered noise, which compresses about as speech does."""
    import soundfile
    from lhotse import MonoCut, Recording

    rng = np.random.default_rng(0)
    cuts = []
    for i, duration in enumerate(speech_like_durations(count)):
        noise = rng.standard_normal(int(RATE * duration) + 32)
        soundfile.write(folder / f"{i}.flac", 0.1 * np.convolve(noise, np.hanning(33), "valid"), RATE)
        recording = Recording.from_file(folder / f"{i}.flac")
        cuts.append(MonoCut(f"c{i}", 0.0, recording.duration, 0, recording=recording))
    return cuts


class PeerDataset:
    """lhotse's map-style data set over cut sets."""

    def __getitem__(self, cuts: Any) -> Any:
        from lhotse.dataset.collation import collate_audio

        return collate_audio(cuts)


def peer_epoch(cuts: list[Any], max_seconds: float, workers: int) -> float:
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler
    from torch.utils.data import DataLoader

    sampler = DynamicBucketingSampler(
        CutSet.from_cuts(cuts), max_duration=max_seconds, num_buckets=30, shuffle=True, buffer_size=20_000
    )
    loader: Any = DataLoader(PeerDataset(), sampler=sampler, batch_size=None, num_workers=workers)  # type: ignore[arg-type]
    return sum(float(lengths.sum()) for _, lengths in loader) / RATE


def our_epoch(cuts: Any, max_seconds: float, workers: int) -> float:
    from sonorant.data.batches import BatchConfig, Batches

    batches = Batches(cuts, BatchConfig(max_seconds=max_seconds, num_workers=workers))
    walk = iter(batches)
    total = sum(batch.seconds for batch in itertools.islice(walk, batches.num_steps()))
    walk.close()  # type: ignore[attr-defined]
    return total


def throughput(cuts: list[Any], repeats: int) -> list[dict[str, Any]]:
    total = sum(cut.duration for cut in cuts)
    rows = []
    for workers in (0, 1, 2):
        pair = interleaved(
            lambda w=workers: our_epoch(cuts, 120.0, w), lambda w=workers: peer_epoch(cuts, 120.0, w), repeats
        )
        rows.append(
            {
                "what": f"flac files, {workers} workers, audio-s/s",
                "ours": total / pair.ours_seconds,
                "peer": total / pair.peer_seconds,
                "ratio": pair.ratio,
            }
        )
    return rows


def peer_stream(folder: Path) -> int:
    from lhotse import CutSet

    return sum(cut.load_audio().shape[1] for cut in CutSet.from_shar(in_dir=folder))


def streaming(cuts: list[Any], folder: Path, repeats: int) -> list[dict[str, Any]]:
    from sonorant.data.shards import ShardedCuts, write_shar

    total = sum(cut.duration for cut in cuts)
    took = seconds(lambda: write_shar(cuts, folder, shard_size=50))
    pair = interleaved(
        lambda: our_epoch(ShardedCuts(folder, shards_in_window=4), 120.0, 0), lambda: peer_stream(folder), repeats
    )
    return [
        {"what": "writing flac shards, audio-s/s", "ours": total / took},
        {
            "what": "flac shards, shuffled and bucketed (peer: in order, one by one), 0 workers, audio-s/s",
            "ours": total / pair.ours_seconds,
            "peer": total / pair.peer_seconds,
            "ratio": pair.ratio,
        },
    ]


def peer_padding(durations: np.ndarray, max_seconds: float) -> tuple[float, int]:
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler
    from lhotse.testing.dummies import dummy_cut

    cuts = CutSet.from_cuts(dummy_cut(i, duration=round(float(d), 3)) for i, d in enumerate(durations))
    sampler = DynamicBucketingSampler(cuts, max_duration=max_seconds, num_buckets=30, shuffle=True, buffer_size=20_000)
    batches = [[cut.duration for cut in batch] for batch in sampler]
    padded = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / padded, len(batches)


def padding(counts: list[int], max_seconds: float) -> list[dict[str, Any]]:
    from sonorant.data.planning import Budget, padding_share, plan_batches, plan_in_order
    from sonorant.data.shards import random_order

    rows = []
    for count in counts:
        durations = speech_like_durations(count)
        load = Budget(max_seconds=max_seconds).load(durations)
        plan = plan_batches(durations, load, num_buckets=30, seed=1)
        chance = plan_in_order(load, random_order(count, 1))
        peer, peer_batches = peer_padding(durations, max_seconds)
        ours = padding_share(plan, durations)
        rows.append({"what": f"padding share, {count} items", "ours": ours, "peer": peer, "ratio": peer / ours})
        rows.append({"what": f"padding share, {count} items; peer: random batches", "ours": ours})
        rows[-1] |= {"peer": padding_share(chance, durations), "ratio": padding_share(chance, durations) / ours}
        rows.append({"what": f"batches, {count} items", "ours": len(plan), "peer": peer_batches})
        rows[-1] |= {"ratio": peer_batches / len(plan)}
    return rows


class Manifest:
    """Items without audio, for what only concerns the plan."""

    def __init__(self, count: int) -> None:
        self.seconds = speech_like_durations(count)

    def cursor_of(self, epoch: int) -> int:
        return epoch

    def window(self, cursor: int, seed: int, shuffle: bool) -> Any:
        from sonorant.data.shards import Window

        count = len(self.seconds)
        return Window(np.arange(count), self.seconds, np.full(count, cursor), last=True, next=cursor + 1)

    def cut(self, ref: int) -> Any:
        raise LookupError(f"item {ref} has no audio")

    def filled(self, cut: Any, ref: int) -> Any:
        return cut

    def fingerprint(self) -> str:
        return "manifest"


def resume(count: int, repeats: int, places: tuple[float, ...] = (0.0, 0.5, 0.99)) -> list[dict[str, Any]]:
    """Seconds from a stored position to the next step's items, by place in the epoch."""
    from sonorant.data.planning import Budget
    from sonorant.data.sampling import Packing, Position, Schedule

    source = Manifest(count)

    def schedule() -> Schedule:
        return Schedule(source, Packing(budget=Budget(max_seconds=300.0)))

    steps = schedule().num_steps()
    rows = []
    for place in places:
        position = Position(3, int(steps * place), epoch=3, step=1)
        took = [seconds(lambda at=position: next(schedule().steps(at)).items()) for _ in range(repeats)]
        rows.append({"what": f"going on at {place:.0%} of {count} items, s", "ours": statistics.median(took)})
    return rows


def peer_resume(count: int) -> list[dict[str, Any]]:
    """The peer draws every batch again; on fewer items than ours, since its manifests must lie in memory."""
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler
    from lhotse.testing.dummies import dummy_cut

    cuts = CutSet.from_cuts(
        dummy_cut(i, duration=round(float(d), 3)) for i, d in enumerate(speech_like_durations(count))
    )

    def sampler() -> Any:
        return DynamicBucketingSampler(cuts, max_duration=300.0, num_buckets=30, shuffle=True, buffer_size=20_000)

    rows = []
    for place in (0.5, 0.99):
        first, drawn = sampler(), 0
        walk = iter(first)
        while drawn < place * count:
            drawn += len(next(walk))
        state, again = first.state_dict(), sampler()
        start = time.perf_counter()
        again.load_state_dict(state)
        took = time.perf_counter() - start
        ours = resume(count, 3, (place,))[0]["ours"]
        rows.append({"what": f"going on at {place:.0%} of {count} items, s", "ours": ours, "peer": took})
        rows[-1]["ratio"] = took / ours
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller corpora, fewer repeats")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    count, repeats = (100, 2) if quick else (300, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "audio").mkdir()
        cuts = write_corpus(folder / "audio", count)
        rows = throughput(cuts, repeats) + streaming(cuts, folder / "shar", repeats)
    rows += padding([1000, 20_000] if not quick else [1000], 200.0)
    rows += resume(1_000_000 if not quick else 100_000, 3)
    rows += peer_resume(200_000 if not quick else 4000)
    rows[-1]["memory_mb"] = peak_memory_mb()
    notes = "Ratios above 1 are in our favour. Peer: lhotse DynamicBucketingSampler with 30 buckets and a DataLoader."
    report("loader", "Loading batches", rows, notes)


if __name__ == "__main__":
    main()
