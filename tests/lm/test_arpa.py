import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest
from tests.lm.texts import zipf_lines

from sonorant.core.errors import DataError
from sonorant.lm.ngram import NGram, train_ngram

LINES = zipf_lines(300)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
@pytest.mark.parametrize("order", [1, 3])
def test_round_trip(tmp_path: Path, name: str, order: int) -> None:
    model = train_ngram(LINES, order=order)
    model.save_arpa(tmp_path / name)
    again = NGram.load_arpa(tmp_path / name)
    assert again.words == model.words
    for ours, theirs in zip(again.levels, model.levels, strict=True):
        assert np.array_equal(ours.keys, theirs.keys)
        assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-6)
        assert ours.backoffs == pytest.approx(theirs.backoffs, abs=1e-6)
    again.save_arpa(tmp_path / f"again.{name}")
    model.save_arpa(tmp_path / f"twice.{name}")
    assert (tmp_path / f"twice.{name}").read_bytes() == (tmp_path / name).read_bytes()


def _kenlm_scores(path: Path, words: list[str], sentences: list[list[str]]) -> list[float]:
    """Base-10 log-probabilities with the sentence's end, by the KenLM inside flashlight-text."""
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    dictionary = Dictionary()
    for word in words:
        dictionary.add_entry(word)
    kenlm = KenLM(str(path), dictionary)
    scores = []
    for sentence in sentences:
        state, total = kenlm.start(False), 0.0
        for word in sentence:
            state, score = kenlm.score(state, dictionary.get_index(word))
            total += score
        scores.append(total + kenlm.finish(state)[1])
    return scores


@pytest.mark.parametrize("cutoffs", [(), (1,)])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kenlm_reads_it_and_scores_the_same(tmp_path: Path, order: int, cutoffs: tuple[int, ...]) -> None:
    model = train_ngram(LINES, order=order, cutoffs=cutoffs, max_words=200)
    model.save_arpa(tmp_path / "lm.arpa")
    generator = random.Random(3)
    words = [*model.words[3:], "unheard-of"]
    sentences = [generator.choices(words, k=generator.randint(1, 12)) for _ in range(150)]
    sentences += [line.split() for line in zipf_lines(50, seed=9)]
    vocabulary = sorted({word for sentence in sentences for word in sentence})
    theirs = _kenlm_scores(tmp_path / "lm.arpa", vocabulary, sentences)
    assert model.score_sentences(sentences) / math.log(10) == pytest.approx(theirs, rel=2e-6, abs=1e-4)


GOOD = (
    "\\data\\\nngram 1=3\nngram 2=1\n\n"
    "\\1-grams:\n-1 <s> -0.3\n-0.5 </s>\n-0.7\ta\t-0.2\n\n\\2-grams:\n-0.1 <s> a\n\n\\end\\\n"
)


def test_a_hand_made_file(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(GOOD)
    model = NGram.load_arpa(tmp_path / "lm.arpa")
    assert model.token_log_probs("a a") / math.log(10) == pytest.approx([-0.1, -0.2 - 0.7, -0.2 - 0.5])
    assert model.token_log_probs("b")[0] / math.log(10) == pytest.approx(-100.3)


@pytest.mark.parametrize(
    "old, new, match",
    [
        ("\\data\\", "\\dta\\", "no ARPA file"),
        ("ngram 2=1", "ngram 3=1", "ngram 2="),
        ("-0.1 <s> a\n", "", "0 of 1"),
        ("-0.1 <s> a", "-0.1 <s> b", "'b' is not among"),
        ("-0.5 </s>", "x </s>", "line 7: not a number"),
        ("-0.5 </s>", "-0.5 a", "comes twice"),
        ("-0.1 <s> a", "-0.1 <s> a 0 0", "line 11: no entry"),
        ("\n-0.1 <s> a\n\n\\end\\\n", "\n", "cut off"),
        ("\\end\\\n", "", "no .end.; it was cut off"),
        ("\\end\\", "-0.1 a a", "line 13: .*end.* is due"),
        ("-0.5 </s>", "nan </s>", "line 7: not a number"),
        ("ngram 2=1", "ngram 2=99999999999", "more than a file of its size can hold"),
        ("ngram 2=1", "ngram 2=-1", "ngram 2="),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, old: str, new: str, match: str) -> None:
    assert old in GOOD
    (tmp_path / "lm.arpa").write_text(GOOD.replace(old, new))
    with pytest.raises(DataError, match=match):
        NGram.load_arpa(tmp_path / "lm.arpa")


def test_a_packed_file_that_was_cut_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD.encode())
    for damaged in (whole[:5], whole[: len(whole) // 2], whole[:20] + b"\xff\xff\xff" + whole[23:]):
        (tmp_path / "lm.arpa.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"lm.arpa.gz is damaged"):
            NGram.load_arpa(tmp_path / "lm.arpa.gz")
    (tmp_path / "lm.arpa").write_bytes(whole)
    with pytest.raises(DataError, match="not UTF-8"):
        NGram.load_arpa(tmp_path / "lm.arpa")


def test_a_missing_history_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("ngram 2=1\n", "ngram 2=1\nngram 3=1\n").replace("\\end\\", "\\3-grams:\n-0.1 a a a\n\n\\end\\")
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(DataError, match="no entry for its first 2 words"):
        NGram.load_arpa(tmp_path / "lm.arpa")
