"""What every tokeniser must keep. `check_tokenizer(tokenizer, texts, foreign)` can be called by third parties."""

import json
import pickle
from collections import Counter
from collections.abc import Sequence

import pytest

from sonorant.core.errors import DataError
from sonorant.text.load import tokenizer_from_plain
from sonorant.text.tokenizer import Tokenizer


def check_tokenizer(tokenizer: Tokenizer, texts: Sequence[str], foreign: str) -> None:
    """`texts` are covered by the tokeniser; `foreign` holds at least one character or word that is not."""
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.blank_id == 0
    assert len(tokenizer.symbols) == tokenizer.vocab_size
    assert len(set(tokenizer.symbols)) == tokenizer.vocab_size, "symbols must differ"
    for text in texts:
        ids = tokenizer.encode(text)
        assert all(0 < index < tokenizer.vocab_size for index in ids), "blank or an id out of range in an encoding"
        assert tokenizer.decode(ids) == " ".join(text.split()), "decode must invert encode up to white space"
        with_blanks = [index for pair in zip(ids, [0] * len(ids), strict=True) for index in pair]
        assert tokenizer.decode(with_blanks) == tokenizer.decode(ids), "blanks must be left out"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert not tokenizer.uncovered(texts)
    _check_foreign(tokenizer, texts[0], foreign)
    for index in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match=str(index)):
            tokenizer.decode([index])
    _check_copies(tokenizer, texts)


def _check_foreign(tokenizer: Tokenizer, text: str, foreign: str) -> None:
    missing = tokenizer.uncovered([foreign, foreign])
    assert missing, f"{foreign!r} is covered; give a text that is not"
    assert all(count >= 2 for count in missing.values())
    with pytest.raises(DataError, match="item-7") as refusal:
        tokenizer.encode(foreign, item="item-7")
    assert repr(next(iter(missing))) in str(refusal.value), "the message must name what is not covered"
    skipped: Counter[str] = Counter()
    ids = tokenizer.encode(f"{text} {foreign}", item="item-7", skipped=skipped)
    assert 0 not in ids
    assert skipped == tokenizer.uncovered([foreign]), "what was left out must be counted"


def _check_copies(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    through_json = tokenizer_from_plain(json.loads(json.dumps(tokenizer.to_plain())))
    through_pickle = pickle.loads(pickle.dumps(tokenizer))  # as worker processes get it
    for copy in (through_json, through_pickle):
        assert copy == tokenizer
        assert hash(copy) == hash(tokenizer)
        assert copy.symbols == tokenizer.symbols
        assert [copy.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]
