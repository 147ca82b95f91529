"""Each fault is found and named, in corpora broken by hand."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment

from sonorant.audio.io import write_audio
from sonorant.core.errors import ConfigError, DataError
from sonorant.data.checks import CheckReport, check_corpus
from sonorant.data.corpora.audio_probe import probe_cut
from sonorant.data.corpora.corpus import Card, Corpus, Fault
from sonorant.data.corpora.folder import read_folder
from sonorant.data.corpora.pack import read_pack
from sonorant.text.alphabet import Alphabet

RATE = 16000


LETTERS = Alphabet("abcdefghijklmnopqrstuvwxyz|")


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype("f4")


def cut_of(folder: Path, id: str, samples: np.ndarray | None = None, **label: str | None) -> MonoCut:
    path = folder / f"{id}.wav"
    samples = noise() if samples is None else samples
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    recording = Recording(id, [AudioSource("file", [0], str(path))], RATE, len(samples), len(samples) / RATE)
    return labelled(recording, id, **{"text": f"sentence of {id}", "speaker": f"speaker {id}"} | label)


def labelled(recording: Recording, id: str, text: str | None, speaker: str | None) -> MonoCut:
    supervision = SupervisionSegment(id, recording.id, 0.0, recording.duration, text=text, speaker=speaker)
    return MonoCut(id, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)


def corpus_of(train: list[MonoCut], licence: str = "CC0", faults: tuple[Fault, ...] = (), **splits: list) -> Corpus:
    sets = {name: CutSet.from_cuts(cuts) for name, cuts in {"train": train, **splits}.items()}
    return Corpus("made", sets, Card(name="made", licence=licence), faults)


def good_cuts(folder: Path, count: int = 4) -> list[MonoCut]:
    return [cut_of(folder, name) for name in "abcdefghij"[:count]]


def only_problem(folder: Path, bad: MonoCut, **options: object) -> tuple[str, str]:
    """Reason and detail of the one bad item among good ones; the others are kept."""
    report = check_corpus(corpus_of([*good_cuts(folder), bad]), max_bad_share=0.5, out_folder=folder, **options)
    assert [cut.id for cut in report.corpus.split("train")] == ["a", "b", "c", "d"]
    assert len(report.skipped) == 1
    assert json.loads((folder / "skipped.jsonl").read_text())["reason"] == report.skipped[0].reason
    return report.skipped[0].reason, report.skipped[0].detail


def test_a_good_corpus_passes_unchanged(tmp_path: Path) -> None:
    corpus = corpus_of(good_cuts(tmp_path))
    report = check_corpus(corpus, tokenizer=LETTERS, frame_rate=50.0, out_folder=tmp_path / "out")
    assert report.skipped == report.remarks == report.warnings == ()
    assert list(report.corpus.split("train")) == list(corpus.split("train"))
    assert (report.num_items, report.num_files_probed, report.num_cuts_decoded) == (4, 4, 4)
    assert (tmp_path / "out" / "skipped.jsonl").read_text() == ""


# --- audio ------------------------------------------------------------------------------------------------------------


def test_missing_empty_and_unreadable_files(tmp_path: Path) -> None:
    for content, reason in ((None, "missing file"), (b"", "empty file"), (b"not audio" * 99, "unreadable")):
        bad = cut_of(tmp_path, "bad")
        path = tmp_path / "bad.wav"
        path.unlink() if content is None else path.write_bytes(content)
        assert only_problem(tmp_path, bad)[0] == reason


@pytest.mark.parametrize("ending", ["flac", "mp3"])
def test_a_file_cut_short_under_a_whole_header(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    soundfile.write(path, noise(3.0), RATE)
    recording = Recording("bad", [AudioSource("file", [0], str(path))], RATE, 3 * RATE, 3.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert soundfile.info(path).frames == 3 * RATE, "the header still promises everything"
    reason, _ = only_problem(tmp_path, labelled(recording, "bad", "text", "s"), decode_sample=0)
    assert reason == "cut short"
    assert probe_cut(labelled(recording, "bad", "text", "s"))[0][0] in ("cut short", "unreadable")


def test_duration_and_rate_that_are_not_the_manifests(tmp_path: Path) -> None:
    bad = cut_of(tmp_path, "bad")
    soundfile.write(tmp_path / "bad.wav", noise(0.9), RATE)
    assert only_problem(tmp_path, bad) == ("wrong duration", "manifest 1.000 s, file 0.900 s")
    soundfile.write(tmp_path / "bad.wav", noise(), 8000)
    assert only_problem(tmp_path, bad) == ("wrong sample rate", "manifest 16000 Hz, file 8000 Hz")


def test_a_cut_past_the_end_of_its_recording(tmp_path: Path) -> None:
    bad = cut_of(tmp_path, "bad")
    bad.start = 0.5
    assert only_problem(tmp_path, bad) == ("past the end", "ends 0.500 s after its recording")


def test_silence_and_values_that_are_not_finite(tmp_path: Path) -> None:
    assert only_problem(tmp_path, cut_of(tmp_path, "bad", noise() * 1e-5))[0] == "silent"
    broken = noise()
    broken[5000] = np.nan
    assert only_problem(tmp_path, cut_of(tmp_path, "bad", broken))[0] == "not finite"
    broken = noise()
    broken[-3] = np.inf
    assert only_problem(tmp_path, cut_of(tmp_path, "bad", broken), decode_sample=0)[0] == "not finite"


def test_silence_is_that_of_the_cut_not_of_its_file(tmp_path: Path) -> None:
    samples = np.concatenate([noise(), np.zeros(RATE, "f4")])
    whole = cut_of(tmp_path, "long", samples)
    assert probe_cut(whole) == []
    assert probe_cut(whole.truncate(duration=1.0)) == []
    assert probe_cut(whole.truncate(offset=1.0))[0][0] == "silent"


def test_clipping_is_a_remark(tmp_path: Path) -> None:
    loud = np.clip(noise() * 20, -1, 1)
    report = check_corpus(corpus_of([*good_cuts(tmp_path), cut_of(tmp_path, "loud", loud)]))
    assert report.skipped == ()
    assert [(r.id, r.reason) for r in report.remarks] == [("loud", "clipped")]
    assert len(report.corpus.split("train")) == 5
    # A peak at full scale is no clipping.
    peak = noise() / np.abs(noise()).max()
    assert probe_cut(cut_of(tmp_path, "peak", peak)) == []


def test_samples_of_the_audio_are_spread_and_counted(tmp_path: Path) -> None:
    cuts = good_cuts(tmp_path, 10)
    report = check_corpus(corpus_of(cuts), audio_sample=3, decode_sample=2)
    assert (report.num_files_probed, report.num_cuts_decoded) == (3, 2)
    (tmp_path / "d.wav").unlink()  # the second of three spread over ten
    assert check_corpus(corpus_of(cuts), audio_sample=3, decode_sample=0, max_bad_share=0.5).reasons == {
        "missing file": 1
    }


def test_one_file_of_many_cuts_is_read_once(tmp_path: Path) -> None:
    whole = cut_of(tmp_path, "long", noise(4.0))
    cuts = [whole.truncate(offset=i, duration=1.0).with_id(f"part {i}") for i in range(4)]
    assert check_corpus(corpus_of(cuts)).num_files_probed == 1
    (tmp_path / "long.wav").unlink()
    report = check_corpus(corpus_of([*cuts, *good_cuts(tmp_path)]), max_bad_share=0.5)
    assert report.reasons == {"missing file": 4}


# --- labels -----------------------------------------------------------------------------------------------------------


def test_durations_out_of_bounds(tmp_path: Path) -> None:
    short = cut_of(tmp_path, "bad", noise(0.05))
    assert only_problem(tmp_path, short) == ("too short", "0.050 s, at least 0.1 s wanted")
    long = cut_of(tmp_path, "bad", noise(2.0))
    assert only_problem(tmp_path, long, max_seconds=1.5) == ("too long", "2.00 s, at most 1.5 s wanted")


def test_items_without_words(tmp_path: Path) -> None:
    for text in (None, "", "  "):
        bad = cut_of(tmp_path, "bad", text=text)
        assert only_problem(tmp_path, bad, tokenizer=LETTERS)[0] == "no transcript"
        report = check_corpus(corpus_of([*good_cuts(tmp_path), bad]))
        assert report.skipped == (), "without a vocabulary no transcript is asked for"


def test_uncovered_characters_are_counted(tmp_path: Path) -> None:
    cuts = [*good_cuts(tmp_path, 8), cut_of(tmp_path, "x", text="déjà vu"), cut_of(tmp_path, "y", text="é 4")]
    report = check_corpus(corpus_of(cuts), tokenizer=LETTERS, max_bad_share=0.3)
    assert report.uncovered == {"é": 2, "à": 1, "4": 1}
    assert report.reasons == {"uncovered characters": 2}
    assert report.skipped[0].detail == "'é', 'à' in “déjà vu”"
    with pytest.raises(DataError, match=r"the vocabulary lacks 'é' ×2, 'à' ×1"):
        check_corpus(corpus_of(cuts), tokenizer=LETTERS)
    plain = str.maketrans({"é": "e", "à": "a", "4": "four"})
    mended = check_corpus(corpus_of(cuts), tokenizer=LETTERS, normalise=lambda text: text.translate(plain))
    assert mended.skipped == ()


@pytest.mark.parametrize("text, frames", [("abcdef", 6), ("aabb", 6), ("aaaa", 7)])
def test_ctc_needs_a_frame_for_each_token_and_each_repeat(tmp_path: Path, text: str, frames: int) -> None:
    cut = cut_of(tmp_path, "bad", text=text)
    corpus = corpus_of([*good_cuts(tmp_path), cut])
    small = corpus_of([cut])
    assert check_corpus(small, tokenizer=LETTERS, frame_rate=float(frames)).skipped == ()
    with pytest.raises(DataError, match=f"{frames - 1} frames for {len(text)} tokens and {frames - len(text)} repeats"):
        check_corpus(small, tokenizer=LETTERS, frame_rate=frames - 1.0)
    with pytest.raises(DataError, match="too few frames"):
        check_corpus(small, tokenizer=LETTERS, frame_rate=float(frames), spare_frames=1)
    assert check_corpus(corpus, tokenizer=LETTERS, frame_rate=100.0).skipped == ()


@pytest.mark.parametrize("split", ["dev", "test"])
def test_what_cannot_be_trained_on_is_still_tested_on(tmp_path: Path, split: str) -> None:
    foreign, short = cut_of(tmp_path, "x", text="é"), cut_of(tmp_path, "y", text="a" * 60)
    examined = [cut_of(tmp_path, name) for name in ("f", "g")]
    corpus = corpus_of(good_cuts(tmp_path), **{split: [*examined, foreign, short]})
    report = check_corpus(corpus, tokenizer=LETTERS, frame_rate=50.0)
    assert [cut.id for cut in report.corpus.split(split)] == ["f", "g", "x", "y"]
    assert report.skipped == ()
    assert {(item.id, item.reason) for item in report.remarks} == {
        ("x", "uncovered characters"),
        ("y", "too few frames"),
    }


def test_the_toolkits_own_alphabet_fits(tmp_path: Path) -> None:
    cuts = good_cuts(tmp_path, 9)
    alphabet = Alphabet.build([f"sentence of {c.id}" for c in cuts])
    report = check_corpus(corpus_of([*cuts, cut_of(tmp_path, "x", text="quiz")]), tokenizer=alphabet, max_bad_share=0.1)
    assert set(report.uncovered) == {"q", "u", "z"}
    assert report.reasons == {"uncovered characters": 1}


def test_duplicate_ids(tmp_path: Path) -> None:
    cuts = good_cuts(tmp_path)
    again = cut_of(tmp_path, "e").with_id("b")
    assert only_problem(tmp_path, again) == ("duplicate id", "already in split 'train'")
    report = check_corpus(
        corpus_of(cuts, dev=[cut_of(tmp_path, "f"), cut_of(tmp_path, "g").with_id("c")]), max_bad_share=0.5
    )
    assert [(s.split, s.id, s.reason) for s in report.skipped] == [("dev", "c", "duplicate id")]


# --- splits -----------------------------------------------------------------------------------------------------------


def test_shared_speakers_stop(tmp_path: Path) -> None:
    corpus = corpus_of(good_cuts(tmp_path), test=[cut_of(tmp_path, "t", speaker="speaker b"), cut_of(tmp_path, "u")])
    with pytest.raises(DataError, match="1 of 'train' also in 'test' .1 items there., such as “speaker b”"):
        check_corpus(corpus)
    report = check_corpus(corpus, allow_shared_speakers=True)
    assert (report.shared_speakers[0].splits, report.shared_speakers[0].examples) == (("train", "test"), ("speaker b",))


def test_shared_sentences_warn_with_counts(tmp_path: Path) -> None:
    test = [
        cut_of(tmp_path, "t", text="Sentence  OF a"),
        cut_of(tmp_path, "u", text="sentence of a"),
        cut_of(tmp_path, "v"),
    ]
    report = check_corpus(corpus_of(good_cuts(tmp_path), test=test))
    (shared,) = report.shared_sentences
    assert (shared.count, shared.num_items, shared.examples) == (1, 2, ("sentence of a",))
    assert len(report.corpus.split("test")) == 3


def test_items_left_out_share_nothing(tmp_path: Path) -> None:
    bad = cut_of(tmp_path, "t", noise(0.01), speaker="speaker a")
    corpus = corpus_of(good_cuts(tmp_path), test=[bad, cut_of(tmp_path, "u")])
    assert check_corpus(corpus, max_bad_share=0.5).shared_speakers == ()


def test_warnings_about_the_whole(tmp_path: Path) -> None:
    cuts = [cut_of(tmp_path, name, speaker=None) for name in "ab"]
    report = check_corpus(corpus_of(cuts, licence="", dev=[]), max_bad_share=0.5)
    assert len(report.warnings) == 3
    assert "licence" in report.warnings[0]
    assert report.warnings[1] == "split 'dev' holds no item"
    assert "no speaker is named" in report.warnings[2]


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_too_many_bad_items_stop_with_a_table(tmp_path: Path) -> None:
    cuts = [*good_cuts(tmp_path, 8), cut_of(tmp_path, "x", noise(0.01)), cut_of(tmp_path, "y", noise(0))]
    with pytest.raises(DataError) as caught:
        check_corpus(corpus_of(cuts), out_folder=tmp_path / "out")
    assert "2 of 10 items of split 'train' are bad, and at most 5% may be" in str(caught.value)
    assert "too short       2  e.g. x: 0.010 s" in str(caught.value)
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "out" / "check.json").read_text())["reasons"] == {"too short": 2}
    assert len(check_corpus(corpus_of(cuts), max_bad_share=0.2).skipped) == 2


def test_each_split_has_its_own_share(tmp_path: Path) -> None:
    train = good_cuts(tmp_path, 10)
    with pytest.raises(DataError, match="1 of 2 items of split 'test'"):
        check_corpus(
            corpus_of(train, test=[cut_of(tmp_path, "t"), cut_of(tmp_path, "u", noise(0.01))]), max_bad_share=0.1
        )


def test_a_split_with_nothing_left_stops_at_any_share(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 1 items"):
        check_corpus(corpus_of([cut_of(tmp_path, "t", noise(0.01))]), max_bad_share=1.0)
    with pytest.raises(DataError, match="holds no item"):
        check_corpus(corpus_of([]))
    with pytest.raises(ConfigError, match="max_bad_share"):
        check_corpus(corpus_of([]), max_bad_share=5)


def test_faults_of_the_importer_count(tmp_path: Path) -> None:
    faults = (Fault("train", "gone", "missing file", "x.wav", dropped=True), Fault("train", "a", "wrong wav_filesize"))
    corpus = corpus_of(good_cuts(tmp_path), faults=faults)
    with pytest.raises(DataError, match="1 of 5 items"):
        check_corpus(corpus)
    report = check_corpus(corpus, max_bad_share=0.2)
    assert report.num_items == 5
    assert report.reasons == {"missing file": 1}
    assert [(r.id, r.reason) for r in report.remarks] == [("a", "wrong wav_filesize")]


# --- the report -------------------------------------------------------------------------------------------------------


def report_of(folder: Path) -> CheckReport:
    cuts = [*good_cuts(folder, 10), cut_of(folder, "x", text="né")]
    return check_corpus(
        corpus_of(cuts, test=[cut_of(folder, "t", text="sentence of a")]), tokenizer=LETTERS, max_bad_share=0.1
    )


def test_rows_and_json(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    rows = report.rows()
    assert ("items", "12 looked at, 1 left out") in rows
    assert ("left out: uncovered characters", "1") in rows
    assert ("uncovered characters", "'é' ×1") in rows
    assert ("shared sentences", "1 of 'train' also in 'test' (1 items there), such as “sentence of a”") in rows
    assert ("licence", "CC0") in rows
    plain = json.loads(json.dumps(report.to_plain()))
    assert (plain["num_items"], plain["num_skipped"], plain["uncovered"]) == (12, 1, {"é": 1})


def test_streams_stay_streams(tmp_path: Path) -> None:
    cuts = [*good_cuts(tmp_path), cut_of(tmp_path, "x", noise(0.01)), cut_of(tmp_path, "y")]
    path = tmp_path / "cuts.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    corpus = Corpus("made", {"train": CutSet.from_jsonl_lazy(path)}, Card(name="made", licence="CC0"))
    kept = check_corpus(corpus, max_bad_share=0.2).corpus.split("train")
    assert kept.is_lazy
    for _ in range(2):
        assert [cut.id for cut in kept] == ["a", "b", "c", "d", "y"]


def test_many_cuts_in_seconds(tmp_path: Path) -> None:
    # Here with every annotation checked; without, 100 000 cuts take two seconds of one core.
    audio = cut_of(tmp_path, "a").recording
    cuts = [labelled(audio, f"cut {i}", f"sentence of {chr(97 + i % 26)}", f"s{i % 500}") for i in range(10_000)]
    corpus = corpus_of(cuts)
    began = time.process_time()
    report = check_corpus(corpus, tokenizer=LETTERS, frame_rate=50.0, audio_sample=100, decode_sample=20)
    assert report.num_items == 10_000
    assert time.process_time() - began < 5


def test_several_files_of_one_recording(tmp_path: Path) -> None:
    for name in ("left", "right"):
        soundfile.write(tmp_path / f"{name}.wav", noise(), RATE)
    sources = [AudioSource("file", [i], str(tmp_path / f"{name}.wav")) for i, name in enumerate(("left", "right"))]
    both = Recording("both", sources, RATE, RATE, 1.0, channel_ids=[0, 1])
    cut = both.to_cut()
    assert check_corpus(corpus_of([cut])).num_files_probed == 2
    (tmp_path / "right.wav").unlink()
    assert only_problem(tmp_path, cut)[0] == "missing file"


def test_containers_that_libsndfile_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_audio(tmp_path / "a.m4a", torch.from_numpy(noise(2.0)), RATE)
    corpus = read_folder(str(tmp_path), licence="CC0")
    assert corpus.faults == ()
    (cut,) = corpus.split("all")
    assert cut.duration == pytest.approx(2.0, abs=0.1)
    assert check_corpus(corpus, decode_sample=0).skipped == ()


def test_real_packs(packs: Path) -> None:
    report = check_corpus(read_pack(str(packs / "speechocean762")), audio_sample=150, decode_sample=20)
    assert report.skipped == ()
    # As the pack's README says of its sentences.
    assert [(s.splits, s.num_items) for s in report.shared_sentences if s.splits == ("train", "test")] == [
        (("train", "test"), 10)
    ]
    with pytest.raises(DataError, match="share speakers"):
        check_corpus(read_pack(str(packs / "digits_fsdd")), audio_sample=10, decode_sample=0)
