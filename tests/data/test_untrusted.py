"""Data that come from elsewhere: what they may name, and that nothing in them is run."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonorant.core.errors import DataError
from sonorant.data.checks import check_corpus
from sonorant.data.corpora.corpus import extra, load_audio
from sonorant.data.corpora.pack import read_pack
from sonorant.data.corpora.prepared import open_prepared, write_prepared
from sonorant.data.reading import read_cut


def pack(folder: Path, **fields: object) -> str:
    """A pack of one item, some of its fields others than they should be."""
    (folder / "pack" / "audio").mkdir(parents=True)
    soundfile.write(folder / "pack" / "audio" / "a.wav", np.full(8000, 0.1), 16000)
    line = {"id": "a", "audio": "audio/a.wav", "text": "hello", "split": "train", **fields}
    (folder / "pack" / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    return str(folder / "pack")


@pytest.mark.parametrize("audio", ["../secret.wav", "audio/../../secret.wav", "/etc/hostname", 7])
def test_a_pack_names_no_files_outside_itself(tmp_path: Path, audio: object) -> None:
    soundfile.write(tmp_path / "secret.wav", np.full(8000, 0.1), 16000)
    with pytest.raises(DataError, match="item 'a': `audio` must be a path inside the pack"):
        read_pack(pack(tmp_path, audio=audio))


def test_further_paths_outside_stay_text(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", np.full(8000, 0.1), 16000)
    cut = read_pack(pack(tmp_path, clean="../secret.wav", noise="audio/a.wav", odd="a/\0b")).split("train")[0]
    assert extra(cut, "clean") == "../secret.wav"
    assert extra(cut, "noise") == str(tmp_path / "pack" / "audio" / "a.wav")
    assert extra(cut, "odd") == "a/\0b"


@pytest.mark.parametrize(
    "fields", [{"duration": "long"}, {"word_alignment": [["a"]]}, {"word_alignment": [["a", "b", "c"]]}]
)
def test_fields_of_another_kind_are_named_with_their_item(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(DataError, match="item 'a': a field is not what it must be"):
        read_pack(pack(tmp_path, **fields))


def test_commands_in_manifests_are_never_run(tmp_path: Path) -> None:
    corpus = read_pack(pack(tmp_path))
    cut = corpus.split("train")[0]
    ran = tmp_path / "ran"
    cut.recording.sources[0].type, cut.recording.sources[0].source = "command", f"touch {ran}"
    for read in (load_audio, lambda cut: read_cut(cut, 16000)):
        with pytest.raises(DataError, match="item 'a': its audio is a command"):
            read(cut)
    with pytest.raises(DataError, match="commands in data are never run"):
        check_corpus(corpus)
    assert not ran.exists()


@pytest.mark.parametrize("change", [{"card": None}, {"faults": [{"x": 1}]}, {"splits": {"train": {}}}])
def test_a_prepared_folder_that_was_tampered_with_is_refused(tmp_path: Path, change: dict) -> None:
    write_prepared(read_pack(pack(tmp_path)), tmp_path / "out", kind="pack")
    entry = json.loads((tmp_path / "out" / "corpus.json").read_text())
    (tmp_path / "out" / "corpus.json").write_text(json.dumps(entry | change))
    with pytest.raises(DataError):
        open_prepared(tmp_path / "out")


def test_a_prepared_folder_reads_its_own_manifests_only(tmp_path: Path) -> None:
    write_prepared(read_pack(pack(tmp_path)), tmp_path / "out", kind="pack")
    entry = json.loads((tmp_path / "out" / "corpus.json").read_text())
    manifest = tmp_path / "out" / entry["splits"]["train"]["file"]
    (tmp_path / "outside.jsonl.gz").write_bytes(manifest.read_bytes())
    entry["splits"]["train"]["file"] = "../outside.jsonl.gz"
    (tmp_path / "out" / "corpus.json").write_text(json.dumps(entry))
    with pytest.raises(DataError, match="is missing"):
        open_prepared(tmp_path / "out")
