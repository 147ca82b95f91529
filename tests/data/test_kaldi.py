"""Kaldi's archives against kaldiio, and data directories there and back."""

import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import MonoCut, Recording, SupervisionSegment

from sonorant.core.errors import DataError
from sonorant.data.corpora.corpus import text_of
from sonorant.data.corpora.kaldi_folder import read_kaldi, write_kaldi
from sonorant.data.corpora.pack import read_pack
from sonorant.data.kaldi import Features, plain_path, read_ark, read_matrix, read_table, write_features, write_table


def matrices() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "utt-a": generator.normal(5, 3, (120, 13)).astype("f4"),
        "utt-b": generator.normal(size=(3, 40)).astype("f4"),
        "utt-c": np.full((20, 4), 2.5, dtype="f4"),
        "vector": generator.normal(size=30).astype("f4"),
    }


def test_float_archives_equal_kaldiio_both_ways(tmp_path: Path) -> None:
    items = matrices() | {"double": np.random.default_rng(1).normal(size=(5, 6))}
    assert write_features(tmp_path, items.items()) == 5
    theirs = kaldiio.load_scp(str(tmp_path / "feats.scp"))
    ours = Features(tmp_path / "feats.scp")
    assert list(ours) == sorted(items)
    for key, value in items.items():
        np.testing.assert_array_equal(theirs[key], value)
        np.testing.assert_array_equal(ours[key], value)
        assert ours[key].dtype == value.dtype
    kaldiio.save_ark(str(tmp_path / "k.ark"), items, scp=str(tmp_path / "k.scp"))
    assert {key: value.tobytes() for key, value in read_ark(tmp_path / "k.ark")} == {
        key: value.tobytes() for key, value in items.items()
    }


@pytest.mark.parametrize("compression, method", [("speech", 2), ("two-byte", 3), ("one-byte", 5)])
def test_compressed_archives_equal_kaldiio(tmp_path: Path, compression: str, method: int) -> None:
    items = {key: value for key, value in matrices().items() if value.ndim == 2}
    write_features(tmp_path, items.items(), compression=compression)
    kaldiio.save_ark(str(tmp_path / "k.ark"), items, scp=str(tmp_path / "k.scp"), compression_method=method)
    theirs_of_ours = kaldiio.load_scp(str(tmp_path / "feats.scp"))
    ours_of_ours, ours_of_theirs = Features(tmp_path / "feats.scp"), Features(tmp_path / "k.scp")
    theirs_of_theirs = kaldiio.load_scp(str(tmp_path / "k.scp"))
    for key, value in items.items():
        np.testing.assert_allclose(ours_of_ours[key], theirs_of_ours[key], atol=1e-5)
        np.testing.assert_allclose(ours_of_theirs[key], theirs_of_theirs[key], atol=1e-5)
        spread = max(float(np.ptp(value)), 1.0)
        step = {"speech": 1 / 63, "two-byte": 1 / 65535, "one-byte": 1 / 255}[compression]
        assert np.abs(ours_of_ours[key] - value).max() <= spread * step
    # One byte a value, and some bytes of head.
    if compression != "two-byte":
        assert (tmp_path / "feats.ark").stat().st_size < sum(v.size for v in items.values()) * 1.4


def test_integer_vectors(tmp_path: Path) -> None:
    alignment = np.array([1, 1, 70000, -3], dtype="i4")
    write_features(tmp_path, [("a", alignment)], name="ali")
    np.testing.assert_array_equal(Features(tmp_path / "ali.scp")["a"], alignment)
    np.testing.assert_array_equal(kaldiio.load_scp(str(tmp_path / "ali.scp"))["a"], alignment)


def test_text_archives_and_ranges(tmp_path: Path) -> None:
    (tmp_path / "t.ark").write_text("a  [\n  1 2 3\n  4 5 6 ]\nv  [ 1 2.5 ]\n")
    found = dict(read_ark(tmp_path / "t.ark"))
    np.testing.assert_array_equal(found["a"], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(found["v"], [1, 2.5])
    value = matrices()["utt-a"]
    write_features(tmp_path, [("a", value)])
    place = read_table(tmp_path / "feats.scp")["a"]
    np.testing.assert_array_equal(read_matrix(f"{place}[10:19,2:3]"), value[10:20, 2:4])
    with pytest.raises(DataError, match="does not fit"):
        read_matrix(f"{place}[10:400]")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_compression_stays_within_its_step(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, centre: float, scale: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("ark")
    value = (np.random.default_rng(seed).normal(size=(rows, columns)) * scale + centre).astype("f4")
    for compression, step in (("two-byte", 1 / 65535), ("one-byte", 1 / 255)):
        write_features(folder, [("a", value)], compression=compression)
        spread = float(np.ptp(value)) or 1 + abs(centre)
        assert np.abs(Features(folder / "feats.scp")["a"] - value).max() <= spread * step + abs(centre) * 1e-6


def test_damage_is_named(tmp_path: Path) -> None:
    write_features(tmp_path, [("a", matrices()["utt-a"])])
    raw = (tmp_path / "feats.ark").read_bytes()
    (tmp_path / "feats.ark").write_bytes(raw[:-10])
    with pytest.raises(DataError, match="cut short"):
        Features(tmp_path / "feats.scp")["a"]
    (tmp_path / "feats.ark").write_bytes(b"a \0BXX " + raw[7:])
    with pytest.raises(DataError, match="not a Kaldi matrix"):
        list(read_ark(tmp_path / "feats.ark"))
    with pytest.raises(DataError, match="not finite"):
        write_features(tmp_path, [("a", np.array([[np.nan]], dtype="f4"))])
    with pytest.raises(DataError, match="no archive"):
        read_matrix(str(tmp_path / "gone.ark:3"))


def _sized(kind: bytes, *sizes: int) -> bytes:
    return b"a \0B" + kind + b"".join(b"\4" + struct.pack("<i", size) for size in sizes)


@pytest.mark.parametrize(
    "raw, match",
    [
        (_sized(b"FM ", 2**31 - 1, 2**31 - 1), "bytes of data expected and 0 there"),
        (_sized(b"FM ", -1, 3), "size of a matrix is -1"),
        (_sized(b"FM ", -3, -3), "size of a matrix is -3"),
        (b"a \0B\4\0\0", "cut short in the head"),
        (b"a \0B\4" + struct.pack("<i", -5), "negative"),
        (b"a \0BCM " + struct.pack("<ffii", 0, 1, -2, 4), "-2 × 4"),
        (b"a \0BCM2 " + struct.pack("<ffii", 0, 1, 2**30, 2**30), "cut short"),
        (b"a \0BCM " + b"123", "cut short in the head"),
        (b"\xff\xfe \0BFM ", "not UTF-8"),
        (b"x" * 20_000, "more than 10000 bytes"),
        (b"a RIFF" + b"0" * 100, "neither binary nor a text matrix"),
        (b"a \0B" + b"F" * 100, "not a Kaldi matrix"),
    ],
)
def test_no_bytes_ask_for_memory_or_end_in_another_error(tmp_path: Path, raw: bytes, match: str) -> None:
    (tmp_path / "feats.ark").write_bytes(raw)
    with pytest.raises(DataError, match=match):
        list(read_ark(tmp_path / "feats.ark"))


def test_a_range_of_too_many_axes_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path, [("v", matrices()["vector"])])
    place = read_table(tmp_path / "feats.scp")["v"]
    with pytest.raises(DataError, match="does not fit a matrix of shape"):
        read_matrix(f"{place}[0:1,0:1]")


def test_tables(tmp_path: Path) -> None:
    write_table(tmp_path / "text", {"b": "two  words", "B": "ö", "a-1": "", "a": "x\ny"})
    assert (tmp_path / "text").read_text() == "B ö\na x y\na-1\nb two words\n"
    assert read_table(tmp_path / "text") == {"B": "ö", "a": "x y", "a-1": "", "b": "two words"}
    with pytest.raises(DataError, match="white space"):
        write_table(tmp_path / "text", {"a b": "x"})
    (tmp_path / "text").write_text("a x\na y\n")
    with pytest.raises(DataError, match="line 2: 'a' stands twice"):
        read_table(tmp_path / "text")


def test_commands_are_refused(tmp_path: Path) -> None:
    assert plain_path("cat /d/a.wav |", "x") == "/d/a.wav"
    for entry in ("sph2pipe -f wav a.sph |", "touch /tmp/x; cat a.wav |", "cat $(id) |", "|gzip", "-"):
        with pytest.raises(DataError, match="never run"):
            plain_path(entry, "wav.scp 'a'")
    (tmp_path / "wav.scp").write_text(f"a touch {tmp_path}/ran |\n")
    with pytest.raises(DataError, match="never run"):
        read_kaldi(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def data_directory(folder: Path) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (32000, 2))
    soundfile.write(folder / "r1.wav", noise[:, 0], 16000)
    soundfile.write(folder / "r2.wav", noise, 16000)
    (folder / "wav.scp").write_text(f"r1 {folder}/r1.wav\nr2 r2.wav\nr3 gone.wav\n")
    (folder / "segments").write_text(
        "s1-a r1 0.5 1.5\ns1-b r1 1.5 -1\ns2-a r2 0.25 3.0\ns2-b r2 1.5 1.0\ns3-a r3 0 1\n"
    )
    (folder / "text").write_text("s1-a ONE TWO\ns1-b THREE\ns2-a FOUR\ns4-a LOST\n")
    (folder / "utt2spk").write_text("s1-a s1\ns1-b s1\ns2-a s2\ns2-b s2\ns3-a s3\n")
    (folder / "spk2gender").write_text("s1 f\ns2 m\n")
    (folder / "reco2file_and_channel").write_text("r1 r1 A\nr2 r2 B\n")
    return folder


def test_a_data_directory_is_read(tmp_path: Path) -> None:
    folder = data_directory(tmp_path / "train")
    corpus = read_kaldi(str(folder), language="en")
    cuts = {cut.id: cut for cut in corpus.split("all")}
    assert sorted(cuts) == ["s1-a", "s1-b", "s2-a"]
    assert (cuts["s1-b"].start, cuts["s1-b"].duration) == (1.5, 0.5)
    assert cuts["s1-a"].supervisions[0].gender == "f"
    assert text_of(cuts["s1-a"]) == "ONE TWO"
    samples, _ = soundfile.read(folder / "r2.wav", dtype="float32")
    np.testing.assert_array_equal(cuts["s2-a"].load_audio()[0], samples[4000:, 1])
    assert {(f.id, f.reason, f.dropped) for f in corpus.faults} == {
        ("r3", "missing file", True), ("s3-a", "no audio", True), ("s2-b", "empty segment", True),
        ("s2-a", "segment past the end", False), ("s4-a", "transcript without audio", True),
    }  # fmt: skip


def test_a_folder_of_directories_gives_splits(tmp_path: Path) -> None:
    data_directory(tmp_path / "test")
    data_directory(tmp_path / "train")
    corpus = read_kaldi(str(tmp_path))
    assert list(corpus.splits) == ["train", "test"]


def test_written_and_read_again(packs: Path, tmp_path: Path) -> None:
    cuts = read_pack(str(packs / "digits_fsdd")).split("test").filter(lambda cut: cut.id.endswith("_00")).to_eager()
    cuts = cuts.subset(first=12)
    with pytest.raises(DataError, match="audio='copy'"):
        write_kaldi(cuts, tmp_path / "linked")
    assert write_kaldi(cuts, tmp_path / "data", audio="copy") == 12
    # The speaker goes in front, since "0_george_00 … 0_jackson_00 … 1_george_00" sorts speakers apart.
    back = read_kaldi(str(tmp_path / "data")).split("all")
    assert [cut.id for cut in back] == sorted(f"{c.supervisions[0].speaker}-{c.id}" for c in cuts)
    by_id = {cut.id: cut for cut in back}
    for cut in cuts:
        other = by_id[f"{cut.supervisions[0].speaker}-{cut.id}"]
        assert text_of(other) == text_of(cut)
        assert other.supervisions[0].speaker == cut.supervisions[0].speaker
        assert other.supervisions[0].gender == cut.supervisions[0].gender
        np.testing.assert_allclose(other.load_audio(), cut.load_audio(), atol=1 / 32768)
    for table in ("wav.scp", "text", "utt2spk", "segments", "spk2utt"):
        lines = (tmp_path / "data" / table).read_bytes().splitlines()
        assert lines == sorted(lines)


def test_ids_that_differ_in_a_slash_keep_files_of_their_own(tmp_path: Path) -> None:
    cuts = []
    for level, name in enumerate(("a/b", "a_b", "a/b/"), start=1):
        path = tmp_path / f"{level}.wav"
        soundfile.write(path, np.full(800, level / 8), 8000)
        found = Recording.from_file(path, recording_id=name)
        said = [SupervisionSegment(name, name, 0.0, found.duration, text="a", speaker=f"s{level}")]
        cuts.append(MonoCut(name, 0.0, found.duration, 0, said, recording=found))
    write_kaldi(cuts, tmp_path / "data", audio="copy")
    levels = [float(cut.load_audio()[0, 400]) for cut in read_kaldi(str(tmp_path / "data")).split("all")]
    assert sorted(levels) == [1 / 8, 2 / 8, 3 / 8]


def test_segments_survive_the_way_there_and_back(tmp_path: Path) -> None:
    cuts = [cut for cut in read_kaldi(str(data_directory(tmp_path / "in"))).split("all") if cut.channel == 0]
    write_kaldi(cuts, tmp_path / "out")
    back = {cut.id: cut for cut in read_kaldi(str(tmp_path / "out")).split("all")}
    assert sorted(back) == ["s1-a", "s1-b"]
    for cut in cuts:
        assert (back[cut.id].start, back[cut.id].duration) == (cut.start, cut.duration)
        np.testing.assert_array_equal(back[cut.id].load_audio(), cut.load_audio())
    # Kaldi's own rule: a whole recording needs no segments, and an old table does not stay.
    whole = [cut.recording.to_cut().with_id(cut.recording.id) for cut in cuts[:1]]
    write_kaldi(whole, tmp_path / "out")
    assert not (tmp_path / "out" / "segments").exists()


def test_ids_must_be_unique(tmp_path: Path) -> None:
    cuts = list(read_kaldi(str(data_directory(tmp_path / "in"))).split("all"))[:1]
    with pytest.raises(DataError, match="stands twice"):
        write_kaldi([*cuts, *cuts], tmp_path / "out")
