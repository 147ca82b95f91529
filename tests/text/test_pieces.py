"""Lists of pieces split as the tokenizers library splits, and keep the contract."""

import json
from typing import Any

import pytest
from tests.contracts.tokenizers import check_tokenizer

from sonorant.core.errors import ConfigError
from sonorant.text.pieces import Pieces

TEXTS = ["the cat sat on the mat", "the hat that sat", "a cat at the hat", "on a mat the cat"]


def trained(kind: str) -> tuple[Any, Pieces]:
    """Theirs, and its vocabulary as ours; their unknown piece is special."""
    library = pytest.importorskip("tokenizers")
    special = ["<unk>"]
    if kind == "bpe":
        theirs = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
        trainer = library.trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False)
    else:
        theirs = library.Tokenizer(library.models.Unigram())
        trainer = library.trainers.UnigramTrainer(
            vocab_size=24, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    theirs.pre_tokenizer = library.pre_tokenizers.Metaspace()
    theirs.train_from_iterator(TEXTS * 5, trainer)
    model = json.loads(theirs.to_str())["model"]
    if kind == "bpe":
        symbols = sorted(model["vocab"], key=model["vocab"].get)
        return theirs, Pieces(symbols, merges=[tuple(pair) for pair in model["merges"]], special=special)
    return theirs, Pieces(
        [s for s, _ in model["vocab"]], scores=[score for _, score in model["vocab"]], special=special
    )


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_splits_are_theirs(kind: str) -> None:
    theirs, own = trained(kind)
    for text in [*TEXTS, "hat", "ttt", "the the mathat", "oooo a"]:
        expected = [index + 1 for index in theirs.encode(text).ids]
        assert own.encode(text) == expected, text
    check_tokenizer(own, TEXTS, "zebra")
    assert own.uncovered(["<unk>"]).keys() >= {"<", ">", "u"}


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="pieces must differ, got twice: 'a'"):
        Pieces(["▁", "a", "a"])
    with pytest.raises(ConfigError, match="either merges, or scores"):
        Pieces(["▁", "a"], scores=[1.0])
    with pytest.raises(ConfigError, match="pieces need '▁' itself"):
        Pieces(["a"])
