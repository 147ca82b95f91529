"""What every tokeniser offers: strings ↔ integers, with id 0 kept free for CTC's blank.

`Alphabet` (characters, phones, words) and `Subword` (SentencePiece) fulfil it;
`tests/contracts/tokenizers.py` checks it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["BLANK", "Tokenizer", "decoder_symbols", "shown"]

BLANK = "<blank>"
"""Name of symbol 0, which no text is encoded to."""


@runtime_checkable
class Tokenizer(Protocol):
    """Strings ↔ token ids in [1, vocab_size); 0 is the blank."""

    @property
    def vocab_size(self) -> int:
        """Number of symbols, blank included: the width of a CTC output layer."""
        ...

    @property
    def blank_id(self) -> int:
        """Always 0."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol in order of its id; `symbols[0]` is the blank."""
        ...

    @property
    def word_boundary(self) -> str:
        """The symbol, or first character of a symbol, that parts words; empty where every token is a word or phone."""
        ...

    def encode(self, text: str, *, item: str = "", skipped: Counter[str] | None = None) -> list[int]:
        """Ids of `text`.

        What the vocabulary does not cover raises `DataError` naming it and `item` (the id of what is encoded); given a
        counter as `skipped`, it is left out and counted there instead.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; blanks are left out, runs not merged. Raises `DataError` for an id out of range."""
        ...

    def uncovered(self, texts: Iterable[str]) -> Counter[str]:
        """Characters (or phones, words) that `encode` cannot encode, with how often each occurs."""
        ...

    def to_plain(self) -> dict[str, Any]:
        """Everything as JSON values, under `kind` what `tokenizer_from_plain` looks for."""
        ...

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Tokenizer":
        """What `to_plain` wrote."""
        ...


def decoder_symbols(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The symbols as decoders put them together to text: those that are whole words or phones begin with "▁".

    >>> from sonorant.text.alphabet import Alphabet
    >>> decoder_symbols(Alphabet(["no", "yes"], "word")), decoder_symbols(Alphabet("ab|"))
    (('<blank>', '▁no', '▁yes'), ('<blank>', 'a', 'b', '|'))
    """
    blank, *others = tokenizer.symbols
    return (blank, *others) if tokenizer.word_boundary else (blank, *(f"▁{symbol}" for symbol in others))


def shown(symbol: str) -> str:
    """A symbol for a message: printable, with its code point where one could mistake it for another.

    >>> shown("é"), shown("sh")
    ("'é' (U+00E9)", "'sh'")
    """
    return f"{symbol!r} (U+{ord(symbol):04X})" if len(symbol) == 1 else repr(symbol)
