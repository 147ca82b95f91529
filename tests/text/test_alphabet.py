from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.tokenizers import check_tokenizer

from sonorant.core.errors import ConfigError, DataError
from sonorant.text.alphabet import Alphabet

TEXTS = ["a cab", "bead  face\tdeaf", "éte"]


@pytest.mark.parametrize(
    "alphabet, texts, foreign",
    [
        (Alphabet.build(TEXTS), TEXTS, "zoo a"),
        (Alphabet.build(["h ə l oʊ", "w ɜː"], "phone"), ["h ə l oʊ", "w ɜː  h"], "x ə"),
        (Alphabet.build(TEXTS, "word"), TEXTS, "cab dab"),
        (Alphabet.build(TEXTS, space="_"), TEXTS, "a_b"),
    ],
)
def test_contract(alphabet: Alphabet, texts: list[str], foreign: str) -> None:
    check_tokenizer(alphabet, texts, foreign)


def test_the_order_of_texts_does_not_matter() -> None:
    assert Alphabet.build(TEXTS) == Alphabet.build(TEXTS[::-1])
    assert Alphabet.build(["b a", "c"]).symbols == ("<blank>", "|", "a", "b", "c")


def test_rare_symbols_can_be_left_out() -> None:
    assert Alphabet.build(["aaab"], min_count=2).symbols == ("<blank>", "a")
    words = Alphabet.build(["c b b a a a"], "word", max_symbols=2, unknown="<unk>")
    assert words.symbols == ("<blank>", "<unk>", "a", "b")
    assert words.encode("a c b d") == [2, 1, 3, 1]
    assert words.uncovered(["a c d"]) == Counter("cd")


def test_the_message_names_character_item_and_remedy() -> None:
    with pytest.raises(DataError, match=r"'ß' \(U\+00DF\).*utt-3.*normalise"):
        Alphabet("abc").encode("aßb", item="utt-3")


def test_skipping_counts() -> None:
    skipped: Counter[str] = Counter()
    assert Alphabet("abc").encode("axbyyc", skipped=skipped) == [1, 2, 3]
    assert skipped == Counter("xyy")


@pytest.mark.parametrize(
    "symbols, unit, match",
    [
        ([], "char", "at least one"),
        (["a", "a"], "char", "twice"),
        (["ab"], "char", "single"),
        (["a b"], "word", "white"),
    ],
)
def test_refusals(symbols: list[str], unit: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Alphabet(symbols, unit)


@given(st.lists(st.text("abc |é\u0301日\U0001f600", max_size=8), min_size=1))
def test_every_text_it_was_built_from_survives(texts: list[str]) -> None:
    usable = [text for text in texts if "|" not in text]
    if any(text.strip() for text in usable):
        alphabet = Alphabet.build(usable)
        assert [alphabet.decode(alphabet.encode(text)) for text in usable] == [" ".join(t.split()) for t in usable]
