"""From the plain values in a checkpoint back to a tokeniser."""

from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import DataError, unknown_name
from sonorant.text.alphabet import Alphabet
from sonorant.text.pieces import Pieces
from sonorant.text.pronounced import Pronounced
from sonorant.text.subword import Subword
from sonorant.text.tokenizer import Tokenizer

__all__ = ["TOKENIZERS", "tokenizer_from_plain"]

TOKENIZERS: dict[str, type[Alphabet] | type[Subword] | type[Pronounced] | type[Pieces]] = {
    "alphabet": Alphabet,
    "pieces": Pieces,
    "pronounced": Pronounced,
    "subword": Subword,
}
"""The catalogue of tokenisers."""


def tokenizer_from_plain(plain: Mapping[str, Any]) -> Tokenizer:
    """The tokeniser that `to_plain` wrote down; raises `DataError` for an unknown kind or a missing entry.

    >>> tokenizer_from_plain(Alphabet("abc").to_plain()).encode("cab")
    [3, 1, 2]
    """
    kind = str(plain.get("kind"))
    if kind not in TOKENIZERS:
        raise DataError(unknown_name("kind of tokeniser", kind, TOKENIZERS))
    try:
        return TOKENIZERS[kind].from_plain(plain)
    except KeyError as error:
        raise DataError(f"the description of this {kind} lacks {error}; it has {', '.join(plain)}") from error
