import pytest
from tests.contracts.tokenizers import check_tokenizer

from sonorant.core.errors import ConfigError, DataError
from sonorant.text.load import tokenizer_from_plain
from sonorant.text.subword import Subword

VERBS = ("turn", "switch", "put", "set", "please turn", "leave", "bring", "dim")
THINGS = ("the lights", "été", "it", "the radio", "kitchen music", "bedroom heating", "every window", "my alarm")
TEXTS = [f"{verb} {state} {thing}" for verb in VERBS for state in ("on", "off", "down") for thing in THINGS]


@pytest.mark.parametrize("method", ["unigram", "bpe"])
def test_contract(method: str) -> None:
    subword = Subword.train(TEXTS, 40, method=method)
    assert subword.vocab_size == 40
    check_tokenizer(subword, TEXTS, "turn zzq ß")


@pytest.mark.parametrize("method", ["unigram", "bpe"])
def test_training_is_repeatable_and_takes_a_stream(method: str) -> None:
    assert Subword.train(TEXTS, 40, method=method).model == Subword.train(iter(TEXTS), 40, method=method).model


def test_longer_vocabularies_make_shorter_texts() -> None:
    lengths = [sum(len(Subword.train(TEXTS, size).encode(text)) for text in TEXTS) for size in (28, 40, 60)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_byte_fallback_covers_everything() -> None:
    subword = Subword.train(TEXTS, 300, byte_fallback=True)
    assert subword.decode(subword.encode("日本 turn")) == "日本 turn"
    assert not subword.uncovered(["日本 ß"])


def test_required_pieces_are_never_split() -> None:
    subword = Subword.train(TEXTS, 40, required=["<laugh>"])
    assert "<laugh>" in subword.to_symbols(subword.encode("turn<laugh> on"))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="vocab_size"):
        Subword.train(TEXTS, 5, method="bpe")
    with pytest.raises(DataError, match="empty"):
        Subword.train(["", " "], 10)
    with pytest.raises(DataError, match="no SentencePiece model"):
        Subword(b"not a model")
    with pytest.raises(DataError, match=r"'subwrd'.*subword"):
        tokenizer_from_plain({"kind": "subwrd"})
    with pytest.raises(DataError, match="symbols"):
        tokenizer_from_plain({"kind": "alphabet", "unit": "char"})
