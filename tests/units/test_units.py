import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.units.corpora import tone_corpus
from torch import nn

from sonorant.core.alignment import frame_centres
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Features, Units
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.corpora.corpus import Corpus
from sonorant.encoders.spectral import SpectralFront, log_mel_front, mfcc_front
from sonorant.units.store import UnitStore, write_units
from sonorant.units.tokenizer import UnitTokenizer, tokenise


class Loudest(nn.Module):
    """The band with the most energy."""

    def encode(self, features: Features) -> Units:
        return Units(features.values.argmax(-1), features.lengths, features.frame_rate, features.values.shape[2])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones"), train=7, dev=1, test=1)


@pytest.fixture
def tokenizer() -> UnitTokenizer:
    return UnitTokenizer(SpectralFront(log_mel_front(100)), Loudest())


def made(folder: Path, tokenizer: UnitTokenizer, cuts: Any, **options: Any) -> UnitStore:
    items = tokenise(tokenizer, cuts, BatchConfig(max_seconds=3))
    return write_units(folder / "units", items, offset=tokenizer.offset, sample_rate=16000, **options)


def test_units_are_the_same_in_any_batch_and_training_gets_them_as_labels(
    corpus: Corpus, tokenizer: UnitTokenizer, tmp_path: Path
) -> None:
    cuts = corpus.split("train")
    store = made(tmp_path, tokenizer, cuts, note={"layer": 6})
    assert sorted(store.ids) == sorted(cut.id for cut in cuts)
    assert (store.frame_rate, store.num_units, store.offset, store.note) == (100.0, 40, 0.01246875, {"layer": 6})
    store = pickle.loads(pickle.dumps(store))
    for batch in Batches(cuts, BatchConfig(max_seconds=4), labels={"units": store.of}, train=False):
        assert batch.labels["units_lengths"].tolist() == tokenizer.output_lengths(batch.lengths).tolist()
        for row, length in enumerate(batch.lengths.tolist()):
            alone = Loudest().encode(tokenizer.encoder(batch.waveform[row : row + 1, :length], torch.tensor([length])))
            assert torch.equal(batch.labels["units"][row, : int(alone.lengths[0])], alone.ids[0])
    assert store.counts().counts.sum() == store.num_frames == sum(len(store[name]) for name in store.ids)


def test_units_follow_the_frames_of_an_encoder_at_another_rate(
    corpus: Corpus, tokenizer: UnitTokenizer, tmp_path: Path
) -> None:
    store = made(tmp_path, tokenizer, corpus.split("train"))
    other = SpectralFront(mfcc_front(frame_rate=25))
    offset = UnitTokenizer(other, Loudest()).offset
    label = store.at(25.0, offset, other.output_lengths)
    cut = next(iter(corpus.split("train")))
    found = label(cut)
    assert len(found) == other.output_lengths(cut.num_samples)
    middles = frame_centres(len(store[cut.id]), 100.0, store.offset)
    for centre, unit in zip(frame_centres(len(found), 25.0, offset), found, strict=True):
        assert unit in store[cut.id][np.abs(middles - centre) < 0.0051]
    same = store.at(store.frame_rate, store.offset, tokenizer.output_lengths)
    assert np.array_equal(same(cut), store[cut.id])


def test_large_inventories_and_no_units_at_all(tmp_path: Path) -> None:
    def items(num_units: int) -> Any:
        for name, frames in (("a", 3), ("b", 0)):
            yield name, Units(torch.full((1, frames), num_units - 1), torch.tensor([frames]), 50.0, num_units), 320

    for num_units in (1 << 15, (1 << 15) + 1, 1 << 20):
        store = write_units(tmp_path / "units", items(num_units), offset=0.0, sample_rate=16000)
        assert store["a"].tolist() == [num_units - 1] * 3
        assert len(store["b"]) == 0
    with pytest.raises(DataError, match="split is empty"):
        write_units(tmp_path / "none", iter([]), offset=0.0, sample_rate=16000)
    assert not (tmp_path / "none").exists()


def test_a_failure_leaves_the_store_that_was_there(corpus: Corpus, tokenizer: UnitTokenizer, tmp_path: Path) -> None:
    before = made(tmp_path, tokenizer, corpus.split("train"))

    def broken() -> Any:
        yield from tokenise(tokenizer, corpus.split("dev"))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        write_units(tmp_path / "units", broken(), offset=0.0, sample_rate=16000)
    assert UnitStore(tmp_path / "units").ids == before.ids


def test_refusals(corpus: Corpus, tokenizer: UnitTokenizer, tmp_path: Path) -> None:
    store = made(tmp_path, tokenizer, corpus.split("train"))
    cut = next(iter(corpus.split("train")))
    with pytest.raises(DataError, match="no units of 'test-0'"):
        store.of(next(iter(corpus.split("test"))))
    with pytest.raises(DataError, match="another cut of the same id"):
        store.of(cut.truncate(duration=0.3, preserve_id=True))
    with pytest.raises(ConfigError, match="layer"):
        UnitTokenizer(tokenizer.encoder, Loudest(), layer=1)
    once = next(tokenise(tokenizer, corpus.split("dev")))
    with pytest.raises(DataError, match="came twice"):
        write_units(tmp_path / "twice", iter([once, once]), offset=0.0, sample_rate=16000)
    with pytest.raises(DataError, match="of one kind"):
        slow = ("x", Units(once[1].ids, once[1].lengths, 50.0, 40), once[2])
        write_units(tmp_path / "mixed", iter([once, slow]), offset=0.0, sample_rate=16000)
    with pytest.raises(DataError, match="no units at"):
        UnitStore(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no units of 'test-0'"):
        store.samples("test-0")
    meta, index = (store.folder / name for name in ("store.json", "index.jsonl"))
    whole, lines = meta.read_text(), index.read_text()
    for damage in (lines[:-9], lines.rpartition("[")[0], lines.replace("[", "", 1), "3\n"):
        index.write_text(damage)
        with pytest.raises(DataError, match=r"index.jsonl is (damaged|cut short)(.|\n)*anew"):
            UnitStore(store.folder).of(cut)
    index.write_text(lines)
    for damage, message in ((whole.replace("num_units", "units"), "store.json is damaged"), ("[1]", "no units at"),
                            (whole.replace('"schema": 1', '"schema": 2'), "has schema 2, this version reads 1")):  # fmt: skip
        meta.write_text(damage)
        with pytest.raises(DataError, match=message):
            UnitStore(store.folder)
    meta.write_text(whole)
    assert UnitStore(store.folder).of(cut).tolist() == store.of(cut).tolist()
    (store.folder / "units.bin").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="cut short"):
        UnitStore(store.folder)
