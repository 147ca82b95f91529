from collections import Counter
from pathlib import Path

import pytest

from sonorant.core.errors import DataError
from sonorant.text.alphabet import Alphabet
from sonorant.text.lexicon import Lexicon
from sonorant.text.subword import Subword

CMU = """;;; a comment
A  AH0
A(1)  EY1
#HASH-MARK  HH AE1 SH # place, danish
(BEGIN-PARENS  P ER0
READ  R EH1 D
READ(2)  R IY1 D
RED  R EH1 D
"""


def test_cmudict() -> None:
    lexicon = Lexicon.parse_cmudict(CMU.splitlines())
    assert list(lexicon) == ["a", "#hash-mark", "(begin-parens", "read", "red"]
    assert [entry.phones for entry in lexicon["a"]] == [("AH0",), ("EY1",)]
    assert lexicon["#hash-mark"][0].phones == ("HH", "AE1", "SH")
    assert Lexicon.parse_cmudict(CMU.splitlines(), stress=False, lower=False)["READ"][0].phones == ("R", "EH", "D")


def test_old_cmudicts_are_latin_1(tmp_path: Path) -> None:
    (tmp_path / "cmudict").write_bytes("DÉJÀ  D EY2\n".encode("latin-1"))
    assert list(Lexicon.read_cmudict(tmp_path / "cmudict")) == ["déjà"]


@pytest.mark.parametrize("probs", [False, True])
def test_kaldi_round_trip(tmp_path: Path, probs: bool) -> None:
    lexicon = Lexicon.parse_kaldi(["a 0.7 ə", "a 0.3 eɪ", "été 1.0 e t e"], probs=True)
    path = tmp_path / ("lexiconp.txt" if probs else "lexicon.txt")
    lexicon.write_kaldi(path, probs=probs)
    again = Lexicon.read_kaldi(path)
    assert list(again) == list(lexicon)
    assert [entry.phones for word in again for entry in again[word]] == [("ə",), ("eɪ",), ("e", "t", "e")]
    assert [entry.prob for entry in again["a"]] == ([0.7, 0.3] if probs else [1.0, 1.0])


def test_homophones_missing_words_and_pronunciations() -> None:
    lexicon = Lexicon.parse_cmudict(CMU.splitlines(), stress=False)
    assert lexicon.homophones() == {("R", "EH", "D"): ("read", "red")}
    assert lexicon.missing(["a red rose", "rose"]) == Counter(rose=2)
    assert lexicon.pronounce("a red") == ["AH", "R", "EH", "D"]
    assert lexicon.phones() == ("AE", "AH", "D", "EH", "ER", "EY", "HH", "IY", "P", "R", "SH")
    with pytest.raises(DataError, match=r"'rose'.*utt-1"):
        lexicon.pronounce("a rose", item="utt-1")


def test_spellings() -> None:
    letters = Lexicon.spelling(["cab", "be", "cab"], Alphabet("|abce"))
    assert {word: letters[word][0].phones for word in letters} == {"cab": tuple("cab|"), "be": tuple("be|")}
    texts = ["the cat sat", "the hat"] * 3
    subword = Subword.train(texts, 14)
    pieces = Lexicon.spelling(["cat", "hat"], subword)["cat"][0].phones
    assert "".join(pieces) == "\u2581cat"
    with pytest.raises(DataError, match="dog"):
        Lexicon.spelling(["dog"], subword)


@pytest.mark.parametrize(
    "lines, probs, match",
    [(["word"], False, "line 1"), (["ok a", "w x y"], True, "line 1"), (["w 1.5 a"], True, r"\(0, 1\]")],
)
def test_damaged_lines_are_named(lines: list[str], probs: bool, match: str) -> None:
    with pytest.raises(DataError, match=match):
        Lexicon.parse_kaldi(lines, probs=probs)
