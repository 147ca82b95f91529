"""A vocabulary of phones for text in words: each word is encoded as its pronunciation, and read back from it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sonorant.core.errors import ConfigError, DataError
from sonorant.text.lexicon import Lexicon, Pronunciation
from sonorant.text.tokenizer import BLANK, shown

__all__ = ["Pronounced"]


class Pronounced:
    """Words ↔ phones with a boundary between words, as in Eesen (Miao et al., 2015, arXiv:1507.08240).

    A few hours of speech do not show how a language is spelt; with a lexicon they need not. `encode` takes each word's first
    pronunciation; `decode` gives for each stretch between boundaries the word of that pronunciation (of homophones the one
    that stands first in the lexicon), or the bare phones where no word has it. A search with a language model goes
    along `spellings`.

    Args:
        lexicon: words that can be recognised; their order decides between homophones.
        more: further words that can be encoded and are never answered, such as those of the test split; not stored.
        language: by whose rules further words can be pronounced; empty where the lexicon stands alone.
        boundary: symbol between words.

    Raises:
        ConfigError: an empty lexicon, or one with a phone of that name.

    >>> words = Pronounced(Lexicon.parse_kaldi(["red r e d", "read r e d", "row r o"]))
    >>> words.symbols, words.encode("read row"), words.decode([5, 3, 2, 1, 5, 4])
    (('<blank>', '|', 'd', 'e', 'o', 'r'), [5, 3, 2, 1, 5, 4], 'red row')
    """

    kind = "pronounced"

    def __init__(
        self, lexicon: Lexicon, *, more: Lexicon | None = None, language: str = "", boundary: str = "|"
    ) -> None:
        phones = {*lexicon.phones(), *(more.phones() if more else ())}
        if not lexicon or boundary in phones:
            what = (
                f"a phone is called {shown(boundary)}, as the boundary between words" if lexicon else "it has no word"
            )
            raise ConfigError(f"this lexicon cannot make a vocabulary: {what}")
        self._use(lexicon, more, (BLANK, boundary, *sorted(phones)), language)

    def _use(self, lexicon: Lexicon, more: Lexicon | None, symbols: tuple[str, ...], language: str) -> None:
        self.lexicon, self.more, self.symbols, self.language = lexicon, more, symbols, language
        self._ids = {symbol: index for index, symbol in enumerate(symbols) if index}

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    @property
    def blank_id(self) -> int:
        return 0

    @property
    def word_boundary(self) -> str:
        return self.symbols[1]

    @cached_property
    def _words(self) -> dict[tuple[str, ...], str]:
        """Pronunciation → the word it is read as. A word's usual pronunciation goes before another's variant."""
        found: dict[tuple[str, ...], str] = {}
        for rank in range(max(len(entries) for entries in self.lexicon.values())):
            for word, entries in self.lexicon.items():
                if rank < len(entries):
                    found.setdefault(entries[rank].phones, word)
        return found

    def encode(self, text: str, *, item: str = "", skipped: Counter[str] | None = None) -> list[int]:
        missing = self.uncovered([text])
        if missing and skipped is None:
            where = f" of item '{item}'" if item else ""
            listed = ", ".join(map(repr, missing))
            raise DataError(f"no pronunciation of {listed} in the text{where}: {text[:80]!r}; add them to the lexicon")
        if skipped is not None:
            skipped.update(missing)
        ids: list[int] = []
        for word in text.split():
            entries = self._entries(word)
            if entries:
                ids += [1] if ids else []
                ids += self._spelt(entries[0])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        wrong = [index for index in ids if not 0 <= index < len(self.symbols)]
        if wrong:
            raise DataError(f"token ids must lie in [0, {len(self.symbols)}), got {wrong[0]}")
        stretches: list[list[str]] = [[]]
        for index in ids:
            if index == 1:
                stretches.append([])
            elif index:
                stretches[-1].append(self.symbols[index])
        return " ".join(self._words.get(tuple(phones), "".join(phones)) for phones in stretches if phones)

    def uncovered(self, texts: Iterable[str]) -> Counter[str]:
        return Counter(word for text in texts for word in text.split() if not self._entries(word))

    def spellings(self, words: Iterable[str]) -> dict[str, list[list[int]]]:
        """Word → ids of all its pronunciations, as a search along a lexicon wants them; words without one are left out."""
        found = {word: [self._spelt(entry) for entry in self._entries(word)] for word in words}
        return {word: spelt for word, spelt in found.items() if spelt}

    def knowing(self, more: Lexicon) -> "Pronounced":
        """The same vocabulary with further words to encode, as far as their phones are in it; never answered by `decode`."""
        usable = [
            (word, entry)
            for word, entries in more.items()
            for entry in entries
            if set(entry.phones) <= self._ids.keys()
        ]
        earlier = [(word, entry) for word, entries in (self.more or {}).items() for entry in entries]
        copy = type(self).__new__(type(self))
        copy._use(self.lexicon, Lexicon([*earlier, *usable]), self.symbols, self.language)
        return copy

    def to_plain(self) -> dict[str, Any]:
        words = {word: [" ".join(entry.phones) for entry in entries] for word, entries in self.lexicon.items()}
        return {"kind": self.kind, "language": self.language, "symbols": list(self.symbols[1:]), "words": words}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Pronounced":
        entries = ((word, Pronunciation(tuple(p.split()))) for word, found in plain["words"].items() for p in found)
        tokenizer = cls.__new__(cls)
        tokenizer._use(Lexicon(entries), None, (BLANK, *plain["symbols"]), plain["language"])
        return tokenizer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pronounced) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.symbols, tuple(self.lexicon)))

    def __repr__(self) -> str:
        return f"Pronounced({len(self.lexicon)} words of {self.vocab_size - 2} phones)"

    def _entries(self, word: str) -> tuple[Pronunciation, ...]:
        return self.lexicon.get(word) or (self.more.get(word, ()) if self.more else ())

    def _spelt(self, entry: Pronunciation) -> list[int]:
        return [self._ids[phone] for phone in entry.phones]
