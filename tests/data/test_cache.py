"""The cache returns what would be computed, for any batch, after crashes, and among processes."""

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Batch, Features
from sonorant.data.cache import FeatureCache

RATE = 1000


class Energies:
    """Frames of 10 samples: mean and mean square; counts the items it is asked for."""

    def __init__(self) -> None:
        self.items = 0

    def __call__(self, batch: Batch) -> Features:
        self.items += len(batch)
        frames = batch.waveform.unfold(1, 10, 10)
        return Features(torch.stack([frames.mean(-1), frames.square().mean(-1)], -1), batch.lengths // 10, RATE / 10)


def batch_of(numbers: list[int]) -> Batch:
    """Items whose samples depend on their number alone, padded with rubbish that must not matter."""
    items = [torch.randn(50 + 13 * n, generator=torch.Generator().manual_seed(n)) for n in numbers]
    longest = max(len(item) for item in items)
    waveform = torch.full((len(items), longest), 0.7)
    for row, item in enumerate(items):
        waveform[row, : len(item)] = item
    return Batch(waveform, torch.tensor([len(item) for item in items]), RATE, ids=tuple(str(n) for n in numbers))


def valid(features: Features) -> list[torch.Tensor]:
    return [features.values[row, :length] for row, length in enumerate(features.lengths.tolist())]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0.0), ("float16", 2e-3)])
def test_any_batch_in_any_order_gets_what_would_be_computed(tmp_path: Path, dtype: str, tolerance: float) -> None:
    compute = Energies()
    cache = FeatureCache(tmp_path, {"hop": 10}, compute, dtype=dtype)
    for numbers in ([0, 1, 2], [2, 5, 0, 1], [7], [5, 7, 7, 3], [4, 3, 2, 1, 0]):
        got, wanted = cache.get(batch_of(numbers)), Energies()(batch_of(numbers))
        assert torch.equal(got.lengths, wanted.lengths)
        assert got.frame_rate == wanted.frame_rate
        for a, b in zip(valid(got), valid(wanted), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
    assert compute.items == len({0, 1, 2, 5, 7, 3, 4})
    assert (cache.misses, cache.hits) == (7, 10)


def test_the_first_answer_is_the_stored_one(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {}, Energies(), dtype="float16")
    assert torch.equal(cache.get(batch_of([1, 2])).values, cache.get(batch_of([1, 2])).values)


def test_other_samples_rates_and_configurations_are_other_keys(tmp_path: Path) -> None:
    compute = Energies()
    cache = FeatureCache(tmp_path, {"hop": 10}, compute)
    batch = batch_of([3])
    cache.get(batch)
    changed = batch.waveform.clone()
    changed[0, 17] += 1e-4
    cache.get(Batch(changed, batch.lengths, RATE))
    cache.get(Batch(batch.waveform, batch.lengths - 1, RATE))
    cache.get(Batch(batch.waveform, batch.lengths, 2 * RATE))
    assert compute.items == 4
    FeatureCache(tmp_path, {"hop": 11}, compute).get(batch)
    assert compute.items == 5
    FeatureCache(tmp_path, {"hop": 10}, compute).get(batch)
    assert compute.items == 5


def test_damage_is_computed_again(tmp_path: Path) -> None:
    compute = Energies()
    FeatureCache(tmp_path, {}, compute).get(batch_of([1, 2, 3]))
    wanted = Energies()(batch_of([1, 2, 3]))
    (data,) = tmp_path.rglob("*.bin")
    raw = bytearray(data.read_bytes())
    raw[5] ^= 1
    data.write_bytes(raw)
    cache = FeatureCache(tmp_path, {}, compute)
    for a, b in zip(valid(cache.get(batch_of([1, 2, 3]))), valid(wanted), strict=True):
        assert torch.equal(a, b)
    assert compute.items == 4


def test_a_crash_in_the_middle_of_a_line_loses_that_item_only(tmp_path: Path) -> None:
    compute = Energies()
    FeatureCache(tmp_path, {}, compute).get(batch_of([1, 2, 3]))
    (index,) = tmp_path.rglob("*.jsonl")
    index.write_bytes(index.read_bytes()[:-9])
    cache = FeatureCache(tmp_path, {}, compute)
    assert len(cache) == 2
    cache.get(batch_of([1, 2, 3]))
    assert compute.items == 4
    assert len(FeatureCache(tmp_path, {}, compute)) == 3


def _fill(folder: Path, numbers: list[int]) -> None:
    cache = FeatureCache(folder, {}, Energies())
    for number in numbers:
        cache.get(batch_of([number, number + 1]))


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(tmp_path, list(range(k, 20)))) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    compute = Energies()
    cache = FeatureCache(tmp_path, {}, compute)
    assert len(cache) == 21
    for a, b in zip(
        valid(cache.get(batch_of(list(range(21))))), valid(Energies()(batch_of(list(range(21))))), strict=True
    ):
        assert torch.equal(a, b)
    assert compute.items == 0


def test_a_running_process_sees_what_another_writes(tmp_path: Path) -> None:
    compute = Energies()
    early = FeatureCache(tmp_path, {}, compute)
    early.get(batch_of([1]))
    FeatureCache(tmp_path, {}, Energies()).get(batch_of([2]))
    early.get(batch_of([1, 2]))
    assert compute.items == 1


def test_files_roll_over_and_pickling_keeps_the_place(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, {}, Energies(), file_mb=1e-4)
    for number in range(6):
        cache.get(batch_of([number]))
    assert len(list(tmp_path.rglob("*.bin"))) > 1
    again = pickle.loads(pickle.dumps(cache))
    assert len(again) == 6


def test_cuts_are_read_only_once(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 2000), RATE)
    recording = Recording.from_file(path)
    cut = MonoCut("a", 0.0, 2.0, 0, recording=recording)
    compute = Energies()
    cache = FeatureCache(tmp_path / "c", {}, compute, sample_rate=RATE)
    first = cache.get(cut)
    assert torch.equal(cache.get(cut.with_id("b")).values, first.values)
    assert compute.items == 1
    assert cache.get(cut.truncate(duration=1.0)).lengths.tolist() == [100]
    assert compute.items == 2
    soundfile.write(path, np.zeros(2000), RATE)
    os.utime(path, ns=(1, 1))
    assert not cache.get(cut).values.any()
    with pytest.raises(ConfigError, match="sample_rate"):
        FeatureCache(tmp_path / "c", {}, compute).get(cut)


def test_features_that_contradict_their_configuration_are_refused(tmp_path: Path) -> None:
    FeatureCache(tmp_path, {}, Energies()).get(batch_of([1]))

    def wider(batch: Batch) -> Features:
        return Features(torch.zeros(len(batch), 4, 9), torch.full((len(batch),), 4), 100.0)

    with pytest.raises(DataError, match="differ in"):
        FeatureCache(tmp_path, {}, wider).get(batch_of([1, 2]))
