"""Prepared folders: whole or not at all, and made again when they no longer fit their source."""

import gzip
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sonorant.core.errors import ConfigError, DataError
from sonorant.data.corpora import prepared as store
from sonorant.data.corpora.catalogue import open_corpus, prepare
from sonorant.data.corpora.corpus import text_of


def source(folder: Path, text: str = "hello") -> Path:
    import numpy as np
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", np.full(8000, 0.1), 16000)
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_prepared_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    place, out = source(tmp_path / "source"), tmp_path / "out"
    first = prepare("folder", place, out, language="en")
    assert sorted(path.name for path in out.iterdir()) == ["corpus.json", "cuts.all.jsonl.gz"]
    stamp = (out / "corpus.json").stat().st_mtime_ns
    caplog.clear()
    second = prepare("folder", place, out, language="en")
    assert (out / "corpus.json").stat().st_mtime_ns == stamp
    assert not caplog.records
    assert [cut.to_dict() for cut in first.split("all")] == [cut.to_dict() for cut in second.split("all")]
    opened = open_corpus(f"prepared:{out}", tmp_path / "unused")
    assert opened.card == first.card
    assert not (tmp_path / "unused").exists()


def test_provenance_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("folder", source(tmp_path / "source"), out, licence="CC0")
    entry = json.loads((out / "corpus.json").read_text())
    assert entry["schema"] == store.SCHEMA
    assert entry["sonorant"]
    assert entry["kind"] == "folder"
    assert entry["card"]["licence"] == "CC0"
    assert entry["source_state"]["num_files"] == 4
    assert entry["splits"]["all"]["num_items"] == 2
    assert entry["splits"]["all"]["seconds"] == 1.0
    assert len(entry["splits"]["all"]["sha256"]) == 64


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    place = source(tmp_path / "source")
    prepare("folder", place, tmp_path / "one")
    prepare("folder", place, tmp_path / "two")
    assert (tmp_path / "one" / "cuts.all.jsonl.gz").read_bytes() == (
        tmp_path / "two" / "cuts.all.jsonl.gz"
    ).read_bytes()


def change_text(place: Path, out: Path) -> None:
    (place / "a.txt").write_text("goodbye")


def add_file(place: Path, out: Path) -> None:
    (place / "c.wav").write_bytes((place / "a.wav").read_bytes())


def touch(place: Path, out: Path) -> None:
    os.utime(place / "a.wav", ns=(1, 1))


def lose_manifest(place: Path, out: Path) -> None:
    (out / "cuts.all.jsonl.gz").unlink()


def cut_manifest(place: Path, out: Path) -> None:
    raw = (out / "cuts.all.jsonl.gz").read_bytes()
    (out / "cuts.all.jsonl.gz").write_bytes(raw[: len(raw) // 2])


def lose_card(place: Path, out: Path) -> None:
    (out / "corpus.json").unlink()


def cut_card(place: Path, out: Path) -> None:
    (out / "corpus.json").write_text((out / "corpus.json").read_text()[:50])


def old_schema(place: Path, out: Path) -> None:
    entry = json.loads((out / "corpus.json").read_text())
    (out / "corpus.json").write_text(json.dumps(entry | {"schema": 0}))


def other_kind(place: Path, out: Path) -> None:
    entry = json.loads((out / "corpus.json").read_text())
    (out / "corpus.json").write_text(json.dumps(entry | {"kind": "timit"}))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (change_text, "the source changed"),
        (add_file, "4 → 5 files"),
        (touch, "sizes or times"),
        (lose_manifest, "is missing"),
        (cut_manifest, "another checksum"),
        (lose_card, "no corpus.json"),
        (cut_card, "is damaged"),
        (old_schema, "schema 0, now 1"),
        (other_kind, "made as 'timit'"),
    ],
)
def test_stale_or_broken_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil, said: str) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    prepare("folder", place, out)
    spoil(place, out)
    with caplog.at_level(logging.WARNING):
        corpus = prepare("folder", place, out)
    assert said in caplog.text
    assert "again" in caplog.text
    fresh = prepare("folder", place, tmp_path / "fresh")
    assert [cut.to_dict() for cut in corpus.split("all")] == [cut.to_dict() for cut in fresh.split("all")]


def test_other_options_make_it_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    prepare("folder", place, out, language="en")
    with caplog.at_level(logging.WARNING):
        corpus = prepare("folder", place, out, language="de")
    assert "language: en → de" in caplog.text
    assert corpus.card.languages == ("de",)


@pytest.mark.parametrize("spoil", [lose_manifest, cut_manifest, lose_card, cut_card])
def test_a_broken_folder_is_not_opened(tmp_path: Path, spoil) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    prepare("folder", place, out)
    spoil(place, out)
    with pytest.raises(DataError):
        open_corpus(f"prepared:{out}", tmp_path)


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    prepare("folder", place, out)
    entry = json.loads((out / "corpus.json").read_text())
    (out / "corpus.json").write_text(json.dumps(entry | {"schema": 99}))
    with pytest.raises(DataError, match="update sonorant"):
        prepare("folder", place, out)
    assert json.loads((out / "corpus.json").read_text())["schema"] == 99


def test_prepared_inside_the_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = source(tmp_path / "source")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert prepare("folder", place, place / "prepared").num_items == 2
    assert not caplog.records, "its own files are no change of the source"


def test_hidden_files_are_no_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = source(tmp_path / "source")
    prepare("folder", place, tmp_path / "out")
    (place / ".git").mkdir()
    (place / ".git" / "index").write_text("x")
    (place / ".DS_Store").write_text("x")
    with caplog.at_level(logging.WARNING):
        prepare("folder", place, tmp_path / "out")
    assert not caplog.records


def test_a_link_is_followed_to_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = source(tmp_path / "real")
    (tmp_path / "source").mkdir()
    for path in place.iterdir():
        (tmp_path / "source" / path.name).symlink_to(path)
    prepare("folder", tmp_path / "source", tmp_path / "out")
    (place / "a.txt").write_text("another text")
    with caplog.at_level(logging.WARNING):
        corpus = prepare("folder", tmp_path / "source", tmp_path / "out")
    assert "the source changed" in caplog.text
    assert text_of(corpus.split("all")[0]) == "another text"


def test_foreign_folders_are_never_replaced(tmp_path: Path) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        prepare("folder", place, out)
    assert (out / "thesis.tex").read_text() == "years of work"
    with pytest.raises(DataError, match="a.wav"):
        prepare("folder", place, place)


def test_a_failed_build_leaves_the_old_one(tmp_path: Path) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    prepare("folder", place, out)
    before = (out / "cuts.all.jsonl.gz").read_bytes()
    for path in place.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no audio below"):
        prepare("folder", place, out)
    assert (out / "cuts.all.jsonl.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_leftovers_of_a_killed_preparation_go(tmp_path: Path) -> None:
    place, out = source(tmp_path / "source"), tmp_path / "out"
    (tmp_path / ".out.x1y2.part").mkdir()
    (tmp_path / ".out.x1y2.part" / "cuts.all.jsonl.gz").write_bytes(b"half")
    prepare("folder", place, out)
    assert not (tmp_path / ".out.x1y2.part").exists()


def test_nothing_to_read_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no item; 1 faults, the first: a: empty file"):
        prepare("folder", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_streams_equal_lists(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("folder", source(tmp_path / "source"), out)
    lazy, eager = store.open_prepared(out, lazy=True), store.open_prepared(out, lazy=False)
    assert lazy.split("all").is_lazy
    assert not eager.split("all").is_lazy
    assert [c.to_dict() for c in lazy.split("all")] == [c.to_dict() for c in eager.split("all")]


def test_the_folder_moves_with_its_manifests(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("folder", source(tmp_path / "source"), out)
    out.rename(tmp_path / "moved")
    assert [text_of(c) for c in open_corpus(f"prepared:{tmp_path / 'moved'}", tmp_path).split("all")] == ["hello"] * 2


def test_split_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "source"
    source(place)
    lines = [json.dumps({"id": n, "audio": f"{n}.wav", "split": f"../{n}/é"}) + "\n" for n in ("a", "b")]
    (place / "manifest.jsonl").write_text("".join(lines))
    corpus = prepare("pack", place, tmp_path / "out")
    assert sorted(corpus.splits) == ["../a/é", "../b/é"]
    assert len(list((tmp_path / "out").iterdir())) == 3
    with gzip.open(next((tmp_path / "out").glob("cuts.*")), "rt") as lines_read:
        assert json.loads(next(iter(lines_read)))["type"] == "MonoCut"


def test_several_at_once_prepare_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # The lock is one of the file system's, so threads stand for processes (the ranks of one training run).
    place, out = source(tmp_path / "source"), tmp_path / "out"
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: prepare("folder", place, out).num_items, range(8))) == [2] * 8
    assert sum("preparing" in record.message for record in caplog.records) == 1
    assert sorted(path.name for path in out.iterdir()) == ["corpus.json", "cuts.all.jsonl.gz"]


def test_unknown_names(tmp_path: Path) -> None:
    for call in (lambda: prepare("foldr", tmp_path, tmp_path / "o"), lambda: open_corpus("foldr:x", tmp_path)):
        with pytest.raises(ConfigError, match="unknown corpus 'foldr'; did you mean 'folder'"):
            call()
    with pytest.raises(ConfigError, match="unknown option 'langauge'; did you mean 'language'"):
        prepare("folder", tmp_path, tmp_path / "o", langauge="en")
    with pytest.raises(ConfigError, match="must name its source: pack:FOLDER"):
        open_corpus("pack", tmp_path)
    with pytest.raises(ConfigError, match="options are key=value"):
        open_corpus(f"folder:{tmp_path}?language", tmp_path)
    with pytest.raises(ConfigError, match="speaker: unknown value 'parnt'; did you mean 'parent'"):
        open_corpus(f"folder:{tmp_path}?speaker=parnt", tmp_path)
    with pytest.raises(DataError, match="no file or folder at"):
        open_corpus(f"folder:{tmp_path / 'gone'}", tmp_path)
