"""Shards: written whole, read as a stream with bounded memory, the same batches for any number of workers, exact resume."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Batch
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.shards import ShardedCuts, as_source, mixture, write_shar

RATE = 8000


def noise_corpus(folder: Path, count: int = 45, channels: int = 1) -> list[Any]:
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(count):
        path = folder / f"n{i}.wav"
        soundfile.write(path, rng.uniform(-0.5, 0.5, (int(RATE * rng.uniform(0.2, 1.0)), channels)), RATE)
        recording = Recording.from_file(path, recording_id=path.stem)
        said = SupervisionSegment(path.stem, path.stem, 0.0, recording.duration, text=f"text {i}")
        kind, channel = (MonoCut, 0) if channels == 1 else (MultiCut, list(range(channels)))
        cuts.append(kind(f"n{i}", 0.0, recording.duration, channel, supervisions=[said], recording=recording))
    return cuts


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return noise_corpus(tmp_path_factory.mktemp("noises"))


@pytest.fixture(scope="module")
def shar(noises: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shar") / "flac"
    written = write_shar(noises, folder, shard_size=6)
    assert (written.num_items, written.num_shards, dict(written.skipped)) == (45, 8, {})
    assert written.seconds == pytest.approx(sum(cut.duration for cut in noises))
    return folder


def text_of(cut: Any) -> str:
    return cut.supervisions[0].text


def config(**options: Any) -> BatchConfig:
    return BatchConfig(**{"max_seconds": 3.0, "sample_rate": RATE, "start_method": "fork", **options})


def stream(shar: Path, **options: Any) -> Batches:
    return Batches(ShardedCuts(shar, shards_in_window=3), config(**options), labels={"text": text_of}, seed=3)


def take(batches: Iterator[Batch] | Batches, count: int) -> list[Batch]:
    walk = iter(batches)
    taken = list(itertools.islice(walk, count))
    walk.close()  # type: ignore[attr-defined]
    return taken


def same(left: Batch, right: Batch) -> bool:
    return (
        left.ids == right.ids
        and torch.equal(left.waveform, right.waveform)
        and left.labels["text"] == right.labels["text"]
        and torch.equal(left.seeds, right.seeds)  # type: ignore[arg-type]
    )


def test_audio_and_labels_come_back(noises: list[Any], shar: Path) -> None:
    batches = Batches(shar, config(), labels={"text": text_of}, train=False)
    by_id = {cut.id: cut for cut in noises}
    names = []
    for batch in batches:
        for row, name in enumerate(batch.ids):
            names.append(name)
            expected = by_id[name].load_audio()[0]
            # flac holds 16 bits, as the wav files did.
            np.testing.assert_array_equal(batch.waveform[row, : int(batch.lengths[row])].numpy(), expected)
            assert batch.labels["text"][row] == text_of(by_id[name])
    assert names == [cut.id for cut in noises]


def test_lhotse_reads_what_we_write(noises: list[Any], shar: Path) -> None:
    cuts = CutSet.from_shar(in_dir=shar)
    source = as_source(cuts)
    assert isinstance(source, ShardedCuts)
    assert source.fingerprint() == ShardedCuts(shar).fingerprint()
    assert [cut.id for cut in source_cuts(source)] == [cut.id for cut in noises]


def source_cuts(source: ShardedCuts) -> list[Any]:
    cursor, cuts = source.cursor_of(0), []
    while True:
        window = source.window(cursor, 0, False)
        cuts += [source.cut(ref) for ref in window.chosen(np.arange(len(window.durations)))]
        cursor = window.next
        if window.last:
            return cuts


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(shar: Path, workers: int) -> None:
    alone, shared = take(stream(shar), 25), take(stream(shar, num_workers=workers), 25)
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


@pytest.mark.parametrize("taken, workers", [(1, 2), (6, 0), (13, 1), (21, 2)])
def test_resume_is_exact(shar: Path, taken: int, workers: int) -> None:
    whole = take(stream(shar), 30)
    first = stream(shar, num_workers=2)
    take(first, taken)
    state = json.loads(json.dumps(first.state_dict()))
    assert set(state["position"]["cursor"]) == {"pass", "shard"}
    again = stream(shar, num_workers=workers)
    again.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(whole[taken:], take(again, 30 - taken), strict=True))


def test_resume_reads_one_window_and_no_more(shar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stream(shar)
    take(first, first.num_steps() - 1)
    read: list[Path] = []
    import sonorant.data.shards as shards

    lines = shards._read_lines
    monkeypatch.setattr(shards, "_read_lines", lambda path: (read.append(path), lines(path))[1])
    again = stream(shar)
    again.load_state_dict(first.state_dict())
    take(again, 1)
    assert 1 <= len(read) <= 3


def test_each_pass_holds_every_item_once_in_a_new_order(noises: list[Any], shar: Path) -> None:
    batches = stream(shar)
    steps = batches.num_steps()
    passes = [[name for batch in take(batches, steps) for name in batch.ids]]
    passes.append([name for batch in take(batches, batches.num_steps()) for name in batch.ids])
    assert all(sorted(names) == sorted(cut.id for cut in noises) for names in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_stream(noises: list[Any], shar: Path, world_size: int) -> None:
    def rank(r: int) -> Batches:
        return Batches(ShardedCuts(shar, shards_in_window=3), config(), seed=3, rank=r, world_size=world_size)

    steps = {rank(r).num_steps() for r in range(world_size)}
    assert len(steps) == 1
    names = [{n for batch in take(rank(r), max(steps)) for n in batch.ids} for r in range(world_size)]
    assert set.union(*names) == {cut.id for cut in noises}


def test_memory_stays_bounded(shar: Path) -> None:
    source = ShardedCuts(shar, shards_in_window=2)
    take(Batches(source, config(), seed=1), 60)
    assert len(source._open) <= 4


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files under /proc")
def test_no_file_stays_open(shar: Path) -> None:
    take(stream(shar), 2)
    before = len(os.listdir("/proc/self/fd"))
    walk = iter(stream(shar))
    for _ in range(20):
        next(walk)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mixture_of_shards_and_memory(noises: list[Any], shar: Path) -> None:
    def mixed() -> Batches:
        both = mixture([(ShardedCuts(shar, shards_in_window=2), 0.5), (noises[:7], 0.5)], window_seconds=20.0)
        return Batches(both, config(), labels={"text": text_of}, seed=1)

    whole, first = take(mixed(), 40), mixed()
    take(first, 17)
    again = mixed()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert all(same(a, b) for a, b in zip(whole[17:], take(again, 23), strict=True))
    with pytest.raises(ConfigError, match="in shards needs a weight"):
        mixture([(shar, None)])


@pytest.mark.parametrize("audio_format, likeness", [("wav", 1.0), ("opus", 0.9)])
def test_audio_formats(tmp_path: Path, audio_format: str, likeness: float) -> None:
    path = tmp_path / "tone.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(path, tone, 16000)
    recording = Recording.from_file(path)
    write_shar([MonoCut("tone", 0.0, 1.0, 0, recording=recording)], tmp_path / "s", audio_format=audio_format)
    batch = next(iter(Batches(tmp_path / "s", config(sample_rate=16000), train=False)))
    assert int(batch.lengths[0]) == 16000
    assert np.corrcoef(batch.waveform[0].numpy(), tone)[0, 1] >= likeness - 1e-6


def test_several_channels(tmp_path: Path) -> None:
    cuts = noise_corpus(tmp_path, 5, channels=2)
    write_shar(cuts, tmp_path / "s", shard_size=2)
    batch = next(iter(Batches(tmp_path / "s", config(channels=2), train=False)))
    np.testing.assert_array_equal(batch.waveform[0, :, : int(batch.lengths[0])].numpy(), cuts[0].load_audio())


def test_part_of_a_recording(noises: list[Any], tmp_path: Path) -> None:
    part = noises[0].truncate(offset=0.05, duration=0.1)
    write_shar([part], tmp_path / "s")
    batch = next(iter(Batches(tmp_path / "s", config(), train=False)))
    np.testing.assert_array_equal(batch.waveform[0].numpy(), part.load_audio()[0])


# --- what goes wrong ---


def test_a_stopped_writing_leaves_nothing_behind(noises: list[Any], shar: Path, tmp_path: Path) -> None:
    def stopping() -> Iterator[Any]:
        yield from noises[:10]
        raise KeyboardInterrupt

    target = tmp_path / "s"
    write_shar(noises[:3], target)
    with pytest.raises(KeyboardInterrupt):
        write_shar(stopping(), target)
    assert len(source_cuts(ShardedCuts(target))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_unreadable_items_are_left_out_and_listed(tmp_path: Path) -> None:
    cuts = noise_corpus(tmp_path, 30)
    (tmp_path / "n4.wav").write_bytes(b"")
    written = write_shar(cuts, tmp_path / "s", shard_size=10)
    assert (written.num_items, set(written.skipped)) == (29, {"n4"})
    assert len([name for batch in Batches(tmp_path / "s", config(), train=False) for name in batch.ids]) == 29
    with pytest.raises(DataError, match="1 of 30 items cannot be read"):
        write_shar(cuts, tmp_path / "t", max_skipped_share=0.0)
    with pytest.raises(DataError, match="corpus is empty"):
        write_shar([], tmp_path / "t")


def test_a_shard_that_was_cut_short_is_reported(noises: list[Any], tmp_path: Path, caplog: Any) -> None:
    write_shar(noises[:30], tmp_path / "s", shard_size=10)
    tar = tmp_path / "s" / "recording.000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(DataError, match=r"recording.000001.tar ends before item"):
        list(Batches(tmp_path / "s", config(), train=False))
    batches = Batches(tmp_path / "s", config(max_unreadable_share=0.5), seed=1)
    take(batches, batches.num_steps())
    assert 1 <= len(batches.skipped) <= 9


def test_folders_that_are_no_shards(tmp_path: Path, shar: Path) -> None:
    with pytest.raises(DataError, match="no folder of shards"):
        ShardedCuts(tmp_path / "absent")
    with pytest.raises(DataError, match="no files"):
        ShardedCuts(tmp_path)
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(b"")
    (tmp_path / "recording.000000.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="a tar uncompressed"):
        ShardedCuts(tmp_path)
    with pytest.raises(ConfigError, match="audio_format"):
        write_shar([], tmp_path / "s", audio_format="mp3")
