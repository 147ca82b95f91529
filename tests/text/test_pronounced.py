from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.tokenizers import check_tokenizer

from sonorant.core.errors import ConfigError, DataError
from sonorant.text.lexicon import Lexicon
from sonorant.text.pronounced import Pronounced

LEXICON = Lexicon.parse_kaldi(["red r eh d", "read r iy d", "read r eh d", "row r ow", "wrote r ow t", "i ay"])


def test_contract() -> None:
    check_tokenizer(Pronounced(LEXICON, language="en"), ["read row", "i wrote red  i"], "row ghost")


@given(st.lists(st.sampled_from(sorted(LEXICON)), max_size=8))
def test_words_come_back_from_their_phones(words: list[str]) -> None:
    tokenizer = Pronounced(LEXICON)
    ids = tokenizer.encode(" ".join(words))
    assert tokenizer.decode(ids) == " ".join(words)
    assert ids.count(1) == max(0, len(words) - 1)


def test_a_words_usual_pronunciation_goes_before_anothers_variant() -> None:
    late = Lexicon.parse_kaldi(["read r iy d", "read r eh d", "red r eh d", "redd r eh d"])
    tokenizer = Pronounced(late)
    assert tokenizer.decode(tokenizer.encode("read red redd")) == "read red red"
    assert tokenizer.spellings(["read", "ghost"]) == {"read": [tokenizer.encode("read"), tokenizer.encode("red")]}


def test_what_no_word_sounds_like_is_given_as_phones() -> None:
    tokenizer = Pronounced(LEXICON)
    ids = [tokenizer.symbols.index(symbol) for symbol in ("d", "ow", "|", "|", "ay")]
    assert tokenizer.decode(ids) == "dow i"


def test_further_words_are_encoded_and_never_answered() -> None:
    more = Lexicon.parse_kaldi(["toe t ow", "zoo z uw"])
    tokenizer = Pronounced(LEXICON).knowing(more)
    assert tokenizer.symbols == Pronounced(LEXICON).symbols
    assert tokenizer.decode(tokenizer.encode("toe row")) == "tow row"
    assert tokenizer.uncovered(["toe zoo"]) == Counter(["zoo"]), "a phone outside of the vocabulary"
    assert Pronounced.from_plain(tokenizer.to_plain()).uncovered(["toe"])
    wider = Pronounced(LEXICON, more=more)
    assert set(wider.symbols) - set(tokenizer.symbols) == {"z", "uw"}
    assert wider.knowing(Lexicon.parse_kaldi(["oat ow t"])).decode(wider.encode("zoo toe")) == "zuw tow"
    assert not wider.knowing(Lexicon.parse_kaldi(["oat ow t"])).uncovered(["zoo toe oat row"])


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no word"):
        Pronounced(Lexicon([]))
    with pytest.raises(ConfigError, match=r"called '\|'"):
        Pronounced(Lexicon.parse_kaldi(["a |"]))
    with pytest.raises(DataError, match=r"no pronunciation of 'ghost' in the text of item 'utt-3'.*lexicon"):
        Pronounced(LEXICON).encode("red ghost", item="utt-3")
