"""Batches from files: the same items, order and bytes for any number of workers; exact resume; nothing skipped in silence."""

import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Segment, Segments
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.collate import collate_labels
from sonorant.data.reading import read_cut
from sonorant.data.shards import mixture

RATE = 8000


def tone_corpus(folder: Path, count: int = 40, channels: int = 1, prefix: str = "t") -> list[Any]:
    """Sines of different pitch and duration, one file an item."""
    cuts = []
    for i in range(count):
        samples = int(RATE * (0.3 + 0.05 * (i * 7 % 19)))
        time = np.arange(samples) / RATE
        wave = np.stack([0.4 * np.sin(2 * np.pi * (200 + 11 * i + 50 * c) * time) for c in range(channels)], axis=1)
        path = folder / f"{prefix}{i}.wav"
        soundfile.write(path, wave, RATE)
        recording = Recording.from_file(path, recording_id=path.stem)
        text = SupervisionSegment(
            path.stem, path.stem, 0.0, recording.duration, text="ab" * (1 + i % 3), speaker=f"s{i % 4}"
        )
        kind, channel = (MonoCut, 0) if channels == 1 else (MultiCut, list(range(channels)))
        cuts.append(kind(path.stem, 0.0, recording.duration, channel, supervisions=[text], recording=recording))
    return cuts


def tokens_of(cut: Any) -> list[int]:
    return [ord(letter) - 96 for letter in cut.supervisions[0].text]


def text_of(cut: Any) -> str:
    return cut.supervisions[0].text


def failing(cut: Any) -> list[int]:
    raise KeyError("no such word")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return tone_corpus(tmp_path_factory.mktemp("tones"))


def config(**options: Any) -> BatchConfig:
    return BatchConfig(**{"max_seconds": 6.0, "sample_rate": RATE, "start_method": "fork", **options})


def same(left: Batch, right: Batch) -> bool:
    return (
        left.ids == right.ids
        and torch.equal(left.waveform, right.waveform)
        and torch.equal(left.lengths, right.lengths)
        and left.seeds is not None
        and right.seeds is not None
        and torch.equal(left.seeds, right.seeds)
        and torch.equal(left.labels["tokens"], right.labels["tokens"])
    )


def take(batches: Iterator[Batch] | Batches, count: int) -> list[Batch]:
    walk = iter(batches)
    taken = list(itertools.islice(walk, count))
    walk.close()  # type: ignore[attr-defined]
    return taken


LABELS = {"tokens": tokens_of, "text": text_of}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(tones: list[Any], workers: int) -> None:
    alone = take(Batches(tones, config(), labels=LABELS, seed=1), 15)
    before = torch.random.get_rng_state()
    shared = take(Batches(tones, config(num_workers=workers), labels=LABELS, seed=1), 15)
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_kept_audio_changes_no_byte(tones: list[Any], workers: int) -> None:
    alone = take(Batches(tones, config(), labels=LABELS, seed=1), 15)
    kept = take(Batches(tones, config(num_workers=workers, memory_mb=1.0), labels=LABELS, seed=1), 15)
    assert all(same(a, b) for a, b in zip(alone, kept, strict=True))


def test_kept_audio_is_read_once_and_within_its_room(tones: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(cut: Any, *options: Any) -> torch.Tensor:
        read.append(cut.id)
        return read_cut(cut, *options)

    monkeypatch.setattr("sonorant.data.reading.read_cut", counted)
    size = 4e-6 * RATE * sum(cut.duration for cut in tones)

    def reads(memory_mb: float) -> int:
        read.clear()
        batches = Batches(tones, config(memory_mb=memory_mb), seed=1)
        ids = [name for batch in itertools.takewhile(lambda _: batches.epoch < 3, batches) for name in batch.ids]
        assert len(ids) > 2.5 * len(tones)
        return len(read)

    none, half, everything = reads(0.0), reads(size / 2), reads(1.01 * size)
    assert everything == len(tones) < half < none


@pytest.mark.parametrize("saved, resumed", [(0, 2), (2, 0), (2, 1)])
@pytest.mark.parametrize("taken", [1, 4, 11])
def test_resume_is_exact_when_the_number_of_workers_changes(
    tones: list[Any], saved: int, resumed: int, taken: int
) -> None:
    whole = take(Batches(tones, config(), labels=LABELS, seed=2), 16)
    first = Batches(tones, config(num_workers=saved, prefetch=3), labels=LABELS, seed=2)
    take(first, taken)
    state = json.loads(json.dumps(first.state_dict()))
    assert first.consumed == taken
    again = Batches(tones, config(num_workers=resumed), labels=LABELS, seed=2)
    again.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(whole[taken:], take(again, 16 - taken), strict=True))


def test_padding_lengths_labels_and_seeds(tones: list[Any]) -> None:
    by_id = {cut.id: cut for cut in tones}
    batches = Batches(tones, config(), labels=LABELS, seed=5)
    for batch in take(batches, 12):
        assert batch.waveform.shape[0] * batch.waveform.shape[1] <= 6.0 * RATE
        for row, name in enumerate(batch.ids):
            audio = by_id[name].load_audio()[0]
            length = int(batch.lengths[row])
            assert length == len(audio)
            np.testing.assert_array_equal(batch.waveform[row, :length].numpy(), audio)
            assert not batch.waveform[row, length:].any()
            count = int(batch.labels["tokens_lengths"][row])
            assert batch.labels["tokens"][row, :count].tolist() == tokens_of(by_id[name])
            assert not batch.labels["tokens"][row, count:].any()
            assert batch.labels["text"][row] == text_of(by_id[name])
    first = take(Batches(tones, config(), seed=5), 1)[0]
    assert first.seeds is not None
    assert torch.equal(first.seeds, item_seeds(5, 0, first.ids))


def test_epochs_differ_and_draw_anew(tones: list[Any]) -> None:
    batches = Batches(tones, config(), seed=1)
    steps = batches.num_steps()
    stream = take(batches, 2 * steps)
    assert batches.epoch >= 1
    first = {name: int(seed) for b in stream[:steps] for name, seed in zip(b.ids, b.seeds)}  # type: ignore[arg-type]
    second = {name: int(seed) for b in stream[steps:] for name, seed in zip(b.ids, b.seeds)}  # type: ignore[arg-type]
    assert set(first) == {cut.id for cut in tones}
    assert all(first[name] != seed for name, seed in second.items())
    assert [b.ids for b in stream[:steps]] != [b.ids for b in stream[steps:]]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_is_one_pass_in_order_each_time(tones: list[Any], workers: int) -> None:
    batches = Batches(tones, config(num_workers=workers), train=False)
    for _ in range(2):
        assert [name for batch in batches for name in batch.ids] == [cut.id for cut in tones]


def test_evaluation_goes_on_after_a_stop(tones: list[Any]) -> None:
    whole = [batch.ids for batch in Batches(tones, config(), train=False)]
    stopped = Batches(tones, config(), train=False)
    take(stopped, 2)
    again = Batches(tones, config(), train=False)
    again.load_state_dict(stopped.state_dict())
    assert [batch.ids for batch in again] == whole[2:]
    # Without a state it begins at the beginning, although it was left in the middle.
    assert [batch.ids for batch in stopped] == whole


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch(tones: list[Any], world_size: int) -> None:
    ranks = [Batches(tones, config(), seed=4, rank=r, world_size=world_size) for r in range(world_size)]
    steps = {batches.num_steps() for batches in ranks}
    assert len(steps) == 1
    seen = [{name for batch in take(batches, max(steps)) for name in batch.ids} for batches in ranks]
    assert set.union(*seen) == {cut.id for cut in tones}
    evaluation = [Batches(tones, config(), train=False, rank=r, world_size=world_size) for r in range(world_size)]
    names = [name for batches in evaluation for batch in batches for name in batch.ids]
    assert sorted(names) == sorted(cut.id for cut in tones)


def test_state_of_one_rank_serves_all(tones: list[Any]) -> None:
    def rank(r: int) -> Batches:
        return Batches(tones, config(), labels=LABELS, seed=4, rank=r, world_size=2)

    leader, follower = rank(0), rank(1)
    take(leader, 3)
    expected = take(follower, 6)[3:]
    resumed = rank(1)
    resumed.load_state_dict(leader.state_dict())
    assert all(same(a, b) for a, b in zip(expected, take(resumed, 3), strict=True))


def test_audio_is_resampled(tones: list[Any]) -> None:
    batch = take(Batches(tones, config(sample_rate=16000)), 1)[0]
    spectrum = torch.fft.rfft(batch.waveform[0, : int(batch.lengths[0])]).abs()
    peak = float(spectrum.argmax()) * 16000 / int(batch.lengths[0])
    assert peak == pytest.approx(200 + 11 * int(batch.ids[0][1:]), abs=3)
    assert batch.sample_rate == 16000


def test_several_channels(tmp_path: Path) -> None:
    cuts = tone_corpus(tmp_path, 8, channels=3)
    batch = take(Batches(cuts, config(channels=3)), 1)[0]
    assert batch.waveform.dim() == 3
    assert batch.waveform.shape[1] == 3
    by_id = {cut.id: cut for cut in cuts}
    for row, name in enumerate(batch.ids):
        np.testing.assert_array_equal(
            batch.waveform[row, :, : int(batch.lengths[row])].numpy(), by_id[name].load_audio()
        )
    mono = read_cut(cuts[0], RATE)
    np.testing.assert_allclose(mono.numpy(), cuts[0].load_audio().mean(axis=0), atol=1e-7)
    with pytest.raises(DataError, match="has 3 channels, expected channels=2"):
        take(Batches(cuts, config(channels=2)), 1)


def test_token_budget(tones: list[Any]) -> None:
    batches = Batches(tones, config(max_seconds=30.0, max_tokens=12), labels=LABELS)
    for batch in take(batches, 20):
        assert batch.labels["tokens"].numel() <= 12
    with pytest.raises(ConfigError, match="max_tokens counts the label 'tokens'"):
        Batches(tones, config(max_tokens=12))


# --- what goes wrong ---


@pytest.fixture
def damaged(tmp_path: Path) -> list[Any]:
    cuts = tone_corpus(tmp_path, 40)
    Path(cuts[3].recording.sources[0].source).write_bytes(b"not audio")
    Path(cuts[17].recording.sources[0].source).unlink()
    return cuts


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_items_are_skipped_counted_and_listed(damaged: list[Any], workers: int, tmp_path: Path) -> None:
    batches = Batches(damaged, config(num_workers=workers), seed=1)
    steps = batches.num_steps()
    seen = {name for batch in take(batches, steps) for name in batch.ids}
    assert {cut.id for cut in damaged} - seen == {"t3", "t17"}
    assert set(batches.skipped) == {"t3", "t17"}
    assert batches.state_dict()["num_unreadable"] == 2
    batches.write_skipped(tmp_path / "skipped.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"t3", "t17"}
    assert all(row["reason"] for row in rows)


def test_skipped_items_count_only_once_they_are_taken(damaged: list[Any]) -> None:
    batches = Batches(damaged, config(num_workers=2, prefetch=4), seed=1)
    alone = Batches(damaged, config(), seed=1)
    take(batches, 2)
    take(alone, 2)
    assert batches.state_dict() == alone.state_dict()


def test_too_many_unreadable_items_stop_training(damaged: list[Any]) -> None:
    for cut in damaged[20:]:
        Path(cut.recording.sources[0].source).write_bytes(b"")
    with pytest.raises(DataError, match="more than max_unreadable_share=0.05 allows"):
        take(Batches(damaged, config()), 200)


def test_no_readable_item_at_all(damaged: list[Any]) -> None:
    for cut in damaged:
        Path(cut.recording.sources[0].source).write_bytes(b"")
    with pytest.raises(DataError, match="no item of .* batches in a row"):
        take(Batches(damaged, config(max_unreadable_share=1.0)), 1)


def test_a_batch_without_readable_items_is_replaced(damaged: list[Any]) -> None:
    for cut in damaged[:12]:
        Path(cut.recording.sources[0].source).write_bytes(b"")
    settings = {"max_items": 1, "max_unreadable_share": 1.0}
    alone = take(Batches(damaged, config(**settings), labels=LABELS), 40)
    shared = take(Batches(damaged, config(num_workers=2, **settings), labels=LABELS), 40)
    assert all(len(batch) == 1 for batch in alone)
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_loses_no_item_in_silence(damaged: list[Any], workers: int) -> None:
    with pytest.raises(DataError, match="item 't3' cannot be read"):
        list(Batches(damaged, config(num_workers=workers), train=False))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_label_names_the_item(tones: list[Any], workers: int) -> None:
    batches = Batches(tones, config(num_workers=workers), labels={"tokens": failing}, train=False)
    with pytest.raises(DataError, match="label 'tokens' of item 't0' failed: KeyError"):
        list(batches)


def test_samples_that_are_not_finite_are_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.array([0.0, np.nan] * 400, dtype=np.float32), RATE, subtype="FLOAT")
    recording = Recording.from_file(path)
    with pytest.raises(DataError, match="'nan' is empty or holds samples"):
        read_cut(MonoCut("nan", 0.0, recording.duration, 0, recording=recording), RATE)


def test_a_state_of_something_else_is_refused(tones: list[Any]) -> None:
    state = Batches(tones, config(), seed=1).state_dict()
    with pytest.raises(ConfigError, match="seed was 1 and is 2"):
        Batches(tones, config(), seed=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="corpus was"):
        Batches(tones[1:], config(), seed=1).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"max_seconds was 6\.0 and is 7\.0"):
        Batches(tones, config(max_seconds=7.0), seed=1).load_state_dict(state)
    with pytest.raises(ConfigError, match="world_size was 1 and is 2"):
        Batches(tones, config(), seed=1, world_size=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="schema"):
        Batches(tones, config(), seed=1).load_state_dict({})


def test_nonsense_is_refused_by_name(tones: list[Any]) -> None:
    for name, value in (("max_seconds", 0.0), ("num_workers", -1), ("max_unreadable_share", 2.0), ("channels", 0)):
        with pytest.raises(ConfigError, match=name):
            config(**{name: value})
    with pytest.raises(ConfigError, match="evaluate each corpus by itself"):
        Batches(mixture([(tones, 1.0)]), config(), train=False)


def test_spawned_workers_need_picklable_labels(tones: list[Any]) -> None:
    batches = Batches(tones, config(num_workers=1, start_method="spawn"), labels={"tokens": lambda cut: [1]})
    with pytest.raises(ConfigError, match="label 'tokens' cannot be sent to workers"):
        take(batches, 1)


def test_spawned_workers_read_the_same(tones: list[Any]) -> None:
    alone = take(Batches(tones, config(), seed=1), 4)
    spawned = take(Batches(tones, config(num_workers=1, start_method="spawn"), seed=1), 4)
    assert all(a.ids == b.ids and torch.equal(a.waveform, b.waveform) for a, b in zip(alone, spawned, strict=True))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files under /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_no_file_stays_open(tones: list[Any], workers: int) -> None:
    batches = Batches(tones, config(num_workers=workers), seed=1)
    take(batches, 3)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        take(batches, 10)
    # A queue's own thread closes its pipe, some moments later on a busy machine.
    patience = time.monotonic() + 20
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < patience:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before


def worker_ids() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_a_worker_that_dies_is_not_silent(tones: list[Any]) -> None:
    walk = iter(Batches(tones, config(num_workers=1, prefetch=1)))
    next(walk)
    (worker,) = worker_ids()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exited unexpectedly|killed by signal"):
        list(itertools.islice(walk, 10))


def test_a_signal_to_the_whole_group_leaves_the_batches_to_the_trainer(tones: list[Any]) -> None:
    walk = iter(Batches(tones, config(num_workers=1), labels=LABELS, seed=1))
    first = next(walk)
    (worker,) = worker_ids()
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
    rest = list(itertools.islice(walk, 10))
    walk.close()  # type: ignore[attr-defined]
    alone = take(Batches(tones, config(), labels=LABELS, seed=1), 11)
    assert all(same(a, b) for a, b in zip([first, *rest], alone, strict=True))
    assert not worker_ids()


def test_a_mixture_of_files(tones: list[Any], tmp_path: Path) -> None:
    other = tone_corpus(tmp_path, 10, prefix="u")
    mixed = mixture([(CutSet.from_cuts(tones), 0.25), (other, 0.75)], window_seconds=60.0)
    batches = Batches(mixed, config(), labels=LABELS, seed=1)
    stream = take(batches, 60)
    seconds = {"t": 0.0, "u": 0.0}
    for batch in stream:
        for name, length in zip(batch.ids, batch.lengths.tolist()):
            seconds[name[0]] += length / RATE
    assert seconds["u"] / sum(seconds.values()) == pytest.approx(0.75, abs=0.03)
    half = Batches(mixed, config(), labels=LABELS, seed=1)
    take(half, 30)
    again = Batches(mixed, config(num_workers=1), labels=LABELS, seed=1)
    again.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert all(same(a, b) for a, b in zip(stream[30:], take(again, 30), strict=True))


# --- labels ---


def test_labels_of_every_kind() -> None:
    ids = ["a", "b"]
    assert collate_labels("x", [1, 2], ids)["x"].dtype == torch.int64
    assert collate_labels("x", [1.5, 2], ids)["x"].dtype == torch.float32
    assert collate_labels("x", ["one", "two"], ids)["x"] == ["one", "two"]
    tokens = collate_labels("x", [[], [4, 5]], ids)
    assert tokens["x"].tolist() == [[0, 0], [4, 5]]
    assert tokens["x_lengths"].tolist() == [0, 2]
    assert collate_labels("x", [[], []], ids)["x"].shape == (2, 0)
    pitch = collate_labels("x", [np.ones((2, 3)), np.zeros((1, 3))], ids)
    assert pitch["x"].shape == (2, 2, 3)
    assert pitch["x"].dtype == torch.float32
    word = Segment(0.0, 1.0, "word")
    assert collate_labels("x", [[word], []], ids)["x"] == Segments(((word,), ()))
    assert collate_labels("x", [Segments(((),)), Segments(((word,),))], ids)["x"] == Segments(((), (word,)))
    with pytest.raises(DataError, match="'a': number, 'b': other"):
        collate_labels("x", [1, "two"], ids)


def test_digits_of_the_packs(packs: Path) -> None:
    folder = packs / "digits_fsdd"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()][:60]
    cuts = []
    for row in rows:
        recording = Recording.from_file(folder / row["audio"], recording_id=row["id"])
        said = SupervisionSegment(row["id"], row["id"], 0.0, recording.duration, text=row["text"])
        cuts.append(MonoCut(row["id"], 0.0, recording.duration, 0, supervisions=[said], recording=recording))
    batches = Batches(cuts, BatchConfig(max_seconds=8.0), labels={"text": text_of}, train=False)
    seen = {name: text for batch in batches for name, text in zip(batch.ids, batch.labels["text"])}
    assert seen == {row["id"]: row["text"] for row in rows}
    assert batches.skipped == {}
