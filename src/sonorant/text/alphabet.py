"""Vocabularies that are a plain list: characters, phones, or words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError, DataError
from sonorant.text.tokenizer import BLANK, shown

__all__ = ["Alphabet"]

Unit = Literal["char", "phone", "word"]


class Alphabet:
    """A list of symbols behind a blank.

    `symbols` are given without the blank, which is put at 0. `unit`: "char" (every code point; any run of white space
    is the symbol `space`), "phone" or "word" (white space parts the symbols and is none). A word alphabet may name
    a symbol `unknown` that stands for every other word. `special` are those of the symbols that no text is encoded to, such
    as the marks of sentences in vocabularies of other toolkits; they may be of any length. Raises `ConfigError` for an
    empty vocabulary, a doubled symbol, or one that its unit cannot hold.

    >>> alphabet = Alphabet.build(["hello you"])
    >>> alphabet.symbols
    ('<blank>', '|', 'e', 'h', 'l', 'o', 'u', 'y')
    >>> alphabet.encode("hello"), alphabet.decode([3, 2, 4, 4, 5, 1, 7])
    ([3, 2, 4, 4, 5], 'hello y')
    """

    kind = "alphabet"

    def __init__(
        self,
        symbols: Iterable[str],
        unit: Unit = "char",
        *,
        space: str = "|",
        unknown: str = "",
        special: Iterable[str] = (),
    ) -> None:
        one_of("unit", unit, ("char", "phone", "word"))
        self.unit, self.space, self.unknown = unit, space if unit == "char" else "", unknown
        self.symbols: tuple[str, ...] = (BLANK, *symbols)
        self.special = tuple(special)
        self._check()
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols) if index and symbol not in self.special}

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        unit: Unit = "char",
        *,
        space: str = "|",
        unknown: str = "",
        min_count: int = 1,
        max_symbols: int | None = None,
    ) -> "Alphabet":
        """Of all symbols in `texts` that occur `min_count` times, in code point order (space first, then `unknown`).

        With `max_symbols` only the most frequent are kept, ties by code point. The same texts give the same alphabet in
        any order.
        """
        one_of("unit", unit, ("char", "phone", "word"))
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_split(text, unit, space))
        special = [symbol for symbol in ((space if unit == "char" and space in counts else ""), unknown) if symbol]
        ranked = sorted((-count, symbol) for symbol, count in counts.items() if symbol not in special)
        kept = [symbol for count, symbol in ranked if -count >= min_count][:max_symbols]
        return cls([*special, *sorted(kept)], unit, space=space, unknown=unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    @property
    def blank_id(self) -> int:
        return 0

    @property
    def word_boundary(self) -> str:
        return self.space

    @cached_property
    def unknown_id(self) -> int | None:
        """Id of the symbol for unknown words, None where there is none."""
        return self._ids[self.unknown] if self.unknown else None

    def encode(self, text: str, *, item: str = "", skipped: Counter[str] | None = None) -> list[int]:
        symbols = _split(text, self.unit, self.space)
        known = self._ids
        try:
            return [known[symbol] for symbol in symbols]
        except KeyError:
            return self._encode_partly(symbols, text, item, skipped)

    def decode(self, ids: Sequence[int]) -> str:
        symbols = self.to_symbols(ids)
        if self.unit == "char":
            return "".join(" " if symbol == self.space else symbol for symbol in symbols)
        return " ".join(symbols)

    def to_symbols(self, ids: Sequence[int]) -> list[str]:
        """The symbol of each id, blanks left out."""
        wrong = [index for index in ids if not 0 <= index < len(self.symbols)]
        if wrong:
            raise DataError(f"token ids must lie in [0, {len(self.symbols)}), got {wrong[0]}")
        return [self.symbols[index] for index in ids if index]

    def uncovered(self, texts: Iterable[str]) -> Counter[str]:
        missing: Counter[str] = Counter()
        for text in texts:
            missing.update(symbol for symbol in _split(text, self.unit, self.space) if symbol not in self._ids)
        return missing

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "unit": self.unit,
            "space": self.space,
            "unknown": self.unknown,
            "symbols": list(self.symbols[1:]),
            **({"special": list(self.special)} if self.special else {}),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Alphabet":
        special = plain.get("special", ())
        return cls(plain["symbols"], plain["unit"], space=plain["space"], unknown=plain["unknown"], special=special)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphabet) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.symbols, self.unit, self.space, self.unknown, self.special))

    def __repr__(self) -> str:
        return f"Alphabet({self.vocab_size} {self.unit}s with blank)"

    def _encode_partly(self, symbols: list[str], text: str, item: str, skipped: Counter[str] | None) -> list[int]:
        if self.unknown:
            other = self._ids[self.unknown]
            return [self._ids.get(symbol, other) for symbol in symbols]
        missing = [symbol for symbol in symbols if symbol not in self._ids]
        if skipped is None:
            where = f" of item '{item}'" if item else ""
            raise DataError(
                f"the alphabet does not cover {', '.join(map(shown, dict.fromkeys(missing)))} in the text{where}: "
                f"{text[:80]!r}; normalise the text, build the alphabet from it, or pass skipped=Counter() to leave "
                "such symbols out and count them"
            )
        skipped.update(missing)
        return [self._ids[symbol] for symbol in symbols if symbol in self._ids]

    def _check(self) -> None:
        doubled = [symbol for symbol, count in Counter(self.symbols).items() if count > 1]
        if len(self.symbols) == 1:
            raise ConfigError("an alphabet needs at least one symbol besides the blank, got none; are the texts empty?")
        if doubled:
            raise ConfigError(f"symbols of an alphabet must differ, got twice: {', '.join(map(shown, doubled))}")
        if self.unknown and self.unknown not in self.symbols:
            raise ConfigError(f"unknown={self.unknown!r} must be one of the symbols")
        absent = [symbol for symbol in self.special if symbol not in self.symbols]
        if absent:
            raise ConfigError(f"special={absent[0]!r} must be one of the symbols")
        for symbol in self.symbols[1:]:
            if not symbol or any(char.isspace() for char in symbol):
                raise ConfigError(f"a symbol must not be empty or hold white space, got {symbol!r}")
            if self.unit == "char" and len(symbol) > 1 and symbol not in (self.space, self.unknown, *self.special):
                raise ConfigError(
                    f"a character alphabet holds single characters, got {symbol!r}; unit='phone' or 'word'?"
                )


def _split(text: str, unit: str, space: str) -> list[str]:
    """Symbols of a text. A literal `space` symbol inside a text is a character like any other and not covered."""
    words = text.split()
    if unit != "char":
        return words
    symbols: list[str] = []
    for index, word in enumerate(words):
        symbols += [space] if index else []
        symbols += [_literal(char) if char == space else char for char in word]
    return symbols


def _literal(char: str) -> str:
    """The space symbol where it stands for itself: a string that no alphabet can hold, so it is uncovered."""
    return f"literal {char}"
