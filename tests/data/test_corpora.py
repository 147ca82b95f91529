"""Importers of plain folders, tables and TIMIT, on small sources made here."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonorant.core.errors import DataError
from sonorant.data.corpora.catalogue import open_corpus
from sonorant.data.corpora.corpus import Card, Corpus, describe, extra, named_splits, summarise, text_of
from sonorant.data.corpora.deepspeech_csv import read_csv, tables
from sonorant.data.corpora.folder import read_folder
from sonorant.data.corpora.pack import read_pack
from sonorant.data.corpora.timit import CORE_TEST_SPEAKERS, read_timit


def tone(path: Path, seconds: float = 0.5, sample_rate: int = 16000, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), sample_rate, **options)
    return path


def texts(corpus: Corpus) -> dict[str, dict[str, str | None]]:
    return {name: {cut.id: text_of(cut) for cut in cuts} for name, cuts in corpus.splits.items()}


# --- folder -----------------------------------------------------------------------------------------------------------


def test_folder_with_a_text_beside_each_file(tmp_path: Path) -> None:
    for name in ("train/anna/one.wav", "train/anna/two.flac", "test/ben/three.ogg", "test/ben/none.wav"):
        tone(tmp_path / name)
        if "none" not in name:
            (tmp_path / name).with_suffix(".txt").write_text(f"  the {Path(name).stem}\n")
    tone(tmp_path / "train/.hidden/four.wav")
    corpus = read_folder(str(tmp_path), speaker="parent", language="en")
    assert texts(corpus) == {
        "train": {"train-anna-one": "the one", "train-anna-two": "the two"},
        "test": {"test-ben-none": None, "test-ben-three": "the three"},
    }
    assert corpus.speakers == {"train": ("anna",), "test": ("ben",)}
    assert corpus.card.notes == ("1 of 4 files have no transcript",)
    assert corpus.card.languages == ("en",)


def test_folder_like_librispeech(tmp_path: Path) -> None:
    for split, speaker in (("train-clean-100", "84"), ("dev-other", "116")):
        for index in range(2):
            tone(tmp_path / split / speaker / "7" / f"{speaker}-7-{index:04d}.flac")
        lines = [f"{speaker}-7-{index:04d} LINE {index}\n" for index in range(3)]
        (tmp_path / split / speaker / "7" / f"{speaker}-7.trans.txt").write_text("".join(lines))
    corpus = read_folder(str(tmp_path))
    assert texts(corpus) == {
        "train-clean-100": {"84-7-0000": "LINE 0", "84-7-0001": "LINE 1"},
        "dev-other": {"116-7-0000": "LINE 0", "116-7-0001": "LINE 1"},
    }
    assert corpus.speakers["dev-other"] == ("116",)
    assert sorted((f.id, f.reason) for f in corpus.faults) == [
        ("116-7-0002", "transcript without audio"), ("84-7-0002", "transcript without audio"),
    ]  # fmt: skip


def test_folder_like_lj_speech(tmp_path: Path) -> None:
    tone(tmp_path / "wavs" / "LJ001-0001.wav")
    tone(tmp_path / "wavs" / "LJ001-0002.wav")
    (tmp_path / "metadata.csv").write_text('LJ001-0001|He said "1", no|He said "one", no\nLJ001-0002|Two|Two\n')
    assert texts(read_folder(str(tmp_path))) == {
        "all": {"wavs-LJ001-0001": 'He said "one", no', "wavs-LJ001-0002": "Two"}
    }


def test_folder_like_common_voice(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        tone(tmp_path / "clips" / f"{name}.wav")
    head = "client_id\tpath\tsentence\tage\tlocale\n"
    (tmp_path / "train.tsv").write_text(head + 's1\ta.wav\tHello, "you"\ttwenties\ten\ns2\tb.wav\tBye\t\ten\n')
    (tmp_path / "test.tsv").write_text(head + "s3\tc.wav\tAgain\tfifties\ten\n")
    (tmp_path / "invalidated.tsv").write_text(head + "s3\tc.wav\tWRONG\tfifties\ten\n")
    corpus = read_folder(str(tmp_path))
    assert texts(corpus) == {"train": {"clips-a": 'Hello, "you"', "clips-b": "Bye"}, "test": {"clips-c": "Again"}}
    cut = corpus.split("train")[0]
    assert (cut.supervisions[0].speaker, cut.supervisions[0].language, extra(cut, "age")) == ("s1", "en", "twenties")


def test_linked_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    tone(tmp_path / "disk" / "a.wav")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    assert texts(read_folder(str(tmp_path / "source"))) == {"train": {"train-a": None}}


def test_folder_without_audio_or_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no audio below"):
        read_folder(str(tmp_path))
    with pytest.raises(DataError, match="no folder at"):
        read_folder(str(tmp_path / "gone"))


def test_broken_files_become_faults(tmp_path: Path) -> None:
    tone(tmp_path / "good.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.wav").write_bytes(b"RIFF not audio at all" * 10)
    corpus = read_folder(str(tmp_path))
    assert {(f.id, f.reason, f.dropped) for f in corpus.faults} == {
        ("empty", "empty file", True), ("noise", "unreadable", True),
    }  # fmt: skip


# --- tables -----------------------------------------------------------------------------------------------------------


def csv_source(folder: Path) -> Path:
    rows = []
    for name in ("a", "b"):
        path = tone(folder / "clips" / f"{name}.wav")
        rows.append(f"clips/{name}.wav,{path.stat().st_size},text {name}\n")
    rows.append(f'{tone(folder / "c.wav")},1,"one, two"\n')
    rows.append("clips/gone.wav,100,lost\n")
    folder.joinpath("my-train.csv").write_text("wav_filename,wav_filesize,transcript\n" + "".join(rows))
    folder.joinpath("x.csv").write_text(
        "wav_filename,wav_filesize,transcript,speaker,mood\n" + rows[0][:-1] + ",s1,calm\n"
    )
    return folder


def test_csv_of_deepspeech(tmp_path: Path) -> None:
    folder = csv_source(tmp_path)
    corpus = read_csv(f"{folder / 'my-train.csv'},dev={folder / 'x.csv'}", language="en")
    assert texts(corpus) == {
        "train": {"clips-a": "text a", "clips-b": "text b", "c": "one, two"},
        "dev": {"clips-a": "text a"},
    }
    size = (folder / "c.wav").stat().st_size
    first = corpus.faults[0]
    assert (first.split, first.id, first.reason, first.detail, first.dropped) == (
        "train", "c", "wrong wav_filesize", f"table 1, file {size} bytes", False,
    )  # fmt: skip
    assert [(f.id, f.reason, f.dropped) for f in corpus.faults][1:] == [("clips-gone", "missing file", True)]
    cut = corpus.split("dev")[0]
    assert (cut.supervisions[0].speaker, extra(cut, "mood"), extra(cut, "wav_filesize")) == ("s1", "calm", None)


def test_csv_names_of_splits(tmp_path: Path) -> None:
    assert {name: len(files) for name, files in tables("a/ldc93s1.csv,b_test.csv,test=c.csv,cv-valid.csv").items()} == {
        "ldc93s1": 1, "test": 2, "valid": 1,
    }  # fmt: skip


def test_csv_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("wav_filename,transcript\nx.wav,y\n")
    with pytest.raises(DataError, match="lacks wav_filesize"):
        read_csv(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("wav_filename,wav_filesize,transcript\nx.wav,y\n")
    with pytest.raises(DataError, match="line 2 has 2 fields"):
        read_csv(str(tmp_path / "a.csv"))
    with pytest.raises(DataError, match="no table of transcripts"):
        read_csv(str(tmp_path / "gone.csv"))


def test_csv_through_the_front_door(tmp_path: Path) -> None:
    folder = csv_source(tmp_path / "source")
    corpus = open_corpus(f"csv:train={folder / 'my-train.csv'},dev={folder / 'x.csv'}", tmp_path / "work")
    assert list(corpus.splits) == ["train", "dev"]
    assert len(corpus.faults) == 2
    # Audio that the tables name is part of the source, wherever it lies.
    tone(folder / "clips" / "a.wav", seconds=0.7)
    again = open_corpus(f"csv:train={folder / 'my-train.csv'},dev={folder / 'x.csv'}", tmp_path / "work")
    assert again.split("dev")[0].duration == 0.7


# --- TIMIT ------------------------------------------------------------------------------------------------------------


def timit_source(folder: Path) -> Path:
    for split, region, speaker in (("TRAIN", "DR1", "FCJF0"), ("TEST", "DR2", "MWEW0"), ("TEST", "DR2", "FAAA0")):
        for sentence in ("SA1", "SX37"):
            base = folder / split / region / speaker / f"{sentence}.WAV"
            tone(base, seconds=1.0, format="NIST", subtype="PCM_16")
            base.with_suffix(".TXT").write_text("0 16000 She had it.\n")
            base.with_suffix(".WRD").write_text("1600 4800 she\n4800 8000 had\n8000 14400 it\n")
            base.with_suffix(".PHN").write_text("0 1600 h#\n1600 3200 sh\n3200 4800 iy\n")
    return folder


def test_timit(tmp_path: Path) -> None:
    corpus = read_timit(str(timit_source(tmp_path)))
    assert {name: size.num_items for name, size in corpus.summary.items()} == {"train": 2, "test": 4}
    cut = corpus.split("train")[0]
    assert (cut.id, text_of(cut), cut.sampling_rate) == ("FCJF0-SA1", "She had it.", 16000)
    assert (cut.supervisions[0].speaker, cut.supervisions[0].gender, extra(cut, "dialect")) == ("FCJF0", "f", "DR1")
    words = cut.supervisions[0].alignment["word"]
    assert [(w.symbol, w.start, w.duration) for w in words] == [("she", 0.1, 0.2), ("had", 0.3, 0.2), ("it", 0.5, 0.4)]
    assert cut.supervisions[0].alignment["phone"][0].symbol == "h#"
    assert cut.load_audio().shape == (1, 16000)
    assert corpus.faults == ()


def test_timit_options(tmp_path: Path) -> None:
    source = timit_source(tmp_path / "TIMIT")
    assert len(CORE_TEST_SPEAKERS) == 24
    assert sum(name.startswith("F") for name in CORE_TEST_SPEAKERS) == 8
    core = open_corpus(f"timit:{source}?test=core&keep_sa=no", tmp_path / "work")
    assert texts(core) == {"train": {"FCJF0-SX37": "She had it."}, "test": {"MWEW0-SX37": "She had it."}}
    alone = read_timit(str(source / "TRAIN"))
    assert list(alone.splits) == ["train"]


def test_one_sentence_like_ldc93s1(packs: Path, tmp_path: Path) -> None:
    (cut,) = (cut for cut in read_pack(str(packs / "assorted_samples")).split("all") if cut.id == "LDC93S1")
    samples = cut.load_audio()[0]
    soundfile.write(tmp_path / "LDC93S1.wav", samples, 16000, format="NIST", subtype="PCM_16")
    (tmp_path / "LDC93S1.txt").write_text(f"0 {len(samples)} {text_of(cut)}\n")
    (tmp_path / "LDC93S1.phn").write_text("0 3050 h#\n3050 4559 sh\nbroken line\n46000 99999 q\n")
    corpus = read_timit(str(tmp_path))
    (read,) = corpus.split("all")
    assert (read.id, text_of(read), read.duration) == ("LDC93S1", text_of(cut), cut.duration)
    np.testing.assert_array_equal(read.load_audio()[0], samples)
    phones = read.supervisions[0].alignment["phone"]
    assert phones[-1].end == pytest.approx(cut.duration)
    assert [f.reason for f in corpus.faults] == ["wrong annotation"] * 2
    assert "line 3 is not 'START END LABEL'" in corpus.faults[0].detail


# --- the noun ---------------------------------------------------------------------------------------------------------


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    tone(tmp_path / "train" / "a.wav")
    with pytest.raises(DataError, match="unknown split 'trian'; did you mean 'train'"):
        read_folder(str(tmp_path)).split("trian")


def test_describe_and_sums(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "dev/c"):
        tone(tmp_path / f"{name}.wav").with_suffix(".txt").write_text("same words")
    corpus = read_folder(str(tmp_path), licence="CC0")
    rows = dict(describe(corpus))
    assert rows["licence"] == "CC0"
    assert rows["train"] == "2 items, 0.00 h, speakers not named, 1 sentences, 4 words"
    assert rows["all"] == "3 items, 0.00 h"
    assert corpus.hours == pytest.approx(1.5 / 3600)
    assert summarise([]).num_items == 0
    assert list(named_splits({"x": [], "test": [], "dev": [], "train-b": [], "train-a": []})) == [
        "train-b", "train-a", "dev", "test", "x",
    ]  # fmt: skip
    assert Corpus("x", {}, Card(name="x")).hours == 0
    shutil.rmtree(tmp_path)
