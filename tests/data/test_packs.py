"""Every real pack opens, and its counts are those its README states."""

import re
from functools import cache
from pathlib import Path

import pytest

from sonorant.core.errors import DataError
from sonorant.data.corpora.catalogue import open_corpus
from sonorant.data.corpora.corpus import Corpus, describe, extra, text_of
from sonorant.data.corpora.pack import read_pack

NAMES = [
    "ami_diarization", "assorted_samples", "digits_fsdd", "emodb_2s", "enhancement_pairs", "esc10", "great_tit_songs",
    "grid_av", "libri2mix_8k", "librispeech_speakers", "ljspeech_mini", "mboshi_french", "multichannel", "noise_rir",
    "slu_coffee", "speechocean762", "tts_kathleen_en", "tts_kerstin_de", "tts_nathalie_nl", "voice_styles",
    "wakewords_picovoice", "wakewords_precise", "words20_zh_en",
]  # fmt: skip


def table_of(readme: Path) -> dict[str, tuple[float, int, str]]:
    """Pack → hours, items and speakers, from the table of the folder's README."""
    rows = re.findall(r"^\| \[(\w+)\]\S* \| ([\d.]+) \| (\d+) \| \d+ \| [\d.]+ \| ([^|]*) \|", readme.read_text(), re.M)
    return {name: (float(hours), int(items), speakers.strip()) for name, hours, items, speakers in rows}


@cache
def opened(folder: Path) -> Corpus:
    """A pack, read once for all tests of this file."""
    return read_pack(str(folder), num_workers=2)


def test_the_list_of_packs_is_complete(packs: Path) -> None:
    assert set(table_of(packs / "README.md")) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_readme(packs: Path, name: str) -> None:
    hours, items, speakers = table_of(packs / "README.md")[name]
    corpus = opened(packs / name)
    assert corpus.num_items == items
    assert corpus.hours == pytest.approx(hours, abs=0.0051)
    assert corpus.faults == ()
    if speakers.isdigit() and name != "multichannel":  # one man there, named twice for two of his voices
        named = set().union(*(corpus.speakers[split] for split in corpus.splits))
        # Mixtures name their speakers in a field of their own; some sets only say how many there are.
        listed = {s for cuts in corpus.splits.values() for cut in cuts for s in extra(cut, "speakers", [])}
        assert len(named | listed) in (int(speakers), 0)
    if name not in ("great_tit_songs",):
        assert corpus.card.licence
    assert dict(describe(corpus))["all"].startswith(f"{items} items")


def test_subset_goes_before_split(packs: Path) -> None:
    corpus = opened(packs / "speechocean762")
    assert {name: size.num_items for name, size in corpus.summary.items()} == {"train": 1900, "dev": 220, "test": 848}
    assert list(corpus.splits) == ["train", "dev", "test"]
    assert not set(corpus.speakers["train"]) & set(corpus.speakers["dev"])
    assert any("subset" in note for note in corpus.card.notes)
    official = read_pack(str(packs / "speechocean762"), split_by="split")
    assert {name: size.num_items for name, size in official.summary.items()} == {"train": 2120, "test": 848}


def test_fields_are_kept(packs: Path) -> None:
    cut = next(iter(opened(packs / "speechocean762").split("test")))
    assert text_of(cut) == "MARK IS GOING TO SEE ELEPHANT"
    assert cut.supervisions[0].speaker == "0003"
    assert cut.supervisions[0].gender == "m"
    assert extra(cut, "words")[0] == {"word": "MARK", "phones": ["M", "AA0", "R", "K"]}
    assert extra(cut, "age") == 6


def test_alignments_are_kept_in_seconds(packs: Path) -> None:
    cut = next(iter(opened(packs / "mboshi_french").split("train")))
    phones = cut.supervisions[0].alignment["phone"]
    assert (phones[1].symbol, phones[1].start, phones[1].duration) == ("K", 2.136, 0.13)
    assert phones[-1].end <= cut.duration


def test_turns_become_supervisions(packs: Path) -> None:
    cut = next(iter(opened(packs / "ami_diarization").split("dev")))
    assert [s.speaker for s in cut.supervisions[:2]] == ["MEE009", "MEE012"]
    assert cut.supervisions[0].start == 1.44
    assert cut.supervisions[0].end == pytest.approx(13.312)
    assert Path(extra(cut, "rttm")).is_file()


def test_further_files_are_absolute(packs: Path) -> None:
    pair = next(iter(opened(packs / "enhancement_pairs").split("train")))
    assert Path(extra(pair, "clean")).is_file()
    mixture = next(iter(opened(packs / "libri2mix_8k").split("train")))
    assert all(Path(path).is_file() for path in extra(mixture, "sources"))


def test_channels_are_kept(packs: Path) -> None:
    cut = next(iter(opened(packs / "multichannel").split("all")))
    assert cut.num_channels == 4
    assert cut.load_audio().shape == (4, 160000)


def test_any_field_can_make_the_splits(packs: Path, tmp_path: Path) -> None:
    corpus = open_corpus(f"pack:{packs / 'digits_fsdd'}?split_by=speaker", tmp_path)
    assert {name: size.num_items for name, size in corpus.summary.items()} == dict.fromkeys(
        ("george", "jackson", "lucas", "nicolas", "theo"), 200
    )
    with pytest.raises(DataError, match="did you mean 'speaker'"):
        read_pack(str(packs / "digits_fsdd"), split_by="speakr")


def test_the_prepared_corpus_is_the_same(packs: Path, tmp_path: Path) -> None:
    read = opened(packs / "words20_zh_en")
    kept = open_corpus(f"pack:{packs / 'words20_zh_en'}", tmp_path)
    assert kept.card == read.card
    assert kept.summary == read.summary
    for name in read.splits:
        assert [cut.to_dict() for cut in kept.split(name)] == [cut.to_dict() for cut in read.split(name)]
