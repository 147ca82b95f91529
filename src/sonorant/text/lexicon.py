"""Words and their pronunciations: CMUdict, Kaldi's `lexicon.txt` and `lexiconp.txt`, spellings, homophones."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write, read_text
from sonorant.text.tokenizer import Tokenizer

__all__ = ["Lexicon", "Pronunciation"]


class Pronunciation(NamedTuple):
    """Phones (or spelling tokens) and how probable they are among the word's pronunciations."""

    phones: tuple[str, ...]
    prob: float = 1.0


class Lexicon(Mapping[str, tuple[Pronunciation, ...]]):
    """Word → its pronunciations, the first one being the usual one; words keep the order in which they came.

    >>> lexicon = Lexicon.parse_kaldi(["read r iy d", "read r eh d", "red r eh d"])
    >>> [" ".join(pronunciation.phones) for pronunciation in lexicon["read"]]
    ['r iy d', 'r eh d']
    >>> lexicon.homophones()
    {('r', 'eh', 'd'): ('read', 'red')}
    """

    def __init__(self, entries: Iterable[tuple[str, Pronunciation]]) -> None:
        words: dict[str, dict[tuple[str, ...], Pronunciation]] = {}
        for word, pronunciation in entries:
            if not pronunciation.phones:
                raise DataError(f"the pronunciation of '{word}' is empty")
            words.setdefault(word, {}).setdefault(pronunciation.phones, pronunciation)  # a doubled line counts once
        self._words = {word: tuple(found.values()) for word, found in words.items()}

    def __getitem__(self, word: str) -> tuple[Pronunciation, ...]:
        return self._words[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)

    @classmethod
    def parse_cmudict(cls, lines: Iterable[str], *, stress: bool = True, lower: bool = True) -> "Lexicon":
        """CMUdict's lines: `WORD(2)  P1 P2 # comment`, `;;;` starts a comment. `stress=False` takes the digits off the
        vowels; `lower` writes words in lower case."""
        return cls(_cmudict(lines, stress, lower))

    @classmethod
    def parse_kaldi(cls, lines: Iterable[str], *, probs: bool = False) -> "Lexicon":
        """Kaldi's lines: `word p1 p2 …`, or `word prob p1 p2 …` with `probs`."""
        return cls(_kaldi(lines, probs))

    @classmethod
    def read_cmudict(cls, path: str | Path, *, stress: bool = True, lower: bool = True) -> "Lexicon":
        """A CMUdict file; UTF-8, or Latin-1 as its older releases are."""
        try:
            text = read_text(path)
        except DataError:
            if not Path(path).is_file():
                raise
            text = Path(path).read_bytes().decode("latin-1")
        return cls.parse_cmudict(text.splitlines(), stress=stress, lower=lower)

    @classmethod
    def read_kaldi(cls, path: str | Path, *, probs: bool | None = None) -> "Lexicon":
        """A Kaldi lexicon; `probs` None goes by the name, `lexiconp*.txt` having probabilities."""
        path = Path(path)
        with_probs = path.name.startswith("lexiconp") if probs is None else probs
        return cls.parse_kaldi(read_text(path).splitlines(), probs=with_probs)

    @classmethod
    def spelling(cls, words: Iterable[str], tokenizer: Tokenizer) -> "Lexicon":
        """Each word "pronounced" as the tokeniser spells it, followed by the word boundary where that is a symbol of
        its own (characters), as lexicon beam search wants it. Raises `DataError` for a word that is not covered."""
        end = (tokenizer.word_boundary,) if tokenizer.word_boundary in tokenizer.symbols[1:] else ()
        if tokenizer.word_boundary == "\u2581":
            end = ()  # subwords mark a word's start
        symbols = tokenizer.symbols
        return cls(
            (word, Pronunciation(tuple(symbols[index] for index in tokenizer.encode(word, item=word)) + end))
            for word in dict.fromkeys(words)
        )

    def write_kaldi(self, path: str | Path, *, probs: bool = False) -> None:
        """As `lexicon.txt`, or `lexiconp.txt` with `probs`."""
        with atomic_write(path) as file:
            for word, pronunciations in self._words.items():
                for phones, prob in pronunciations:
                    middle = f"{prob:.6g} " if probs else ""
                    file.write(f"{word} {middle}{' '.join(phones)}\n".encode())

    def phones(self) -> tuple[str, ...]:
        """Every phone, sorted."""
        return tuple(sorted({phone for found in self._words.values() for entry in found for phone in entry.phones}))

    def homophones(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Pronunciations that more than one word has."""
        words: dict[tuple[str, ...], list[str]] = {}
        for word, found in self._words.items():
            for pronunciation in found:
                words.setdefault(pronunciation.phones, []).append(word)
        return {phones: tuple(sharing) for phones, sharing in words.items() if len(sharing) > 1}

    def missing(self, texts: Iterable[str]) -> Counter[str]:
        """Words of `texts` that have no pronunciation, with how often each occurs."""
        return Counter(word for text in texts for word in text.split() if word not in self._words)

    def pronounce(self, text: str, *, item: str = "") -> list[str]:
        """Phones of a text by each word's first pronunciation; raises `DataError` naming a missing word and item."""
        phones: list[str] = []
        for word in text.split():
            if word not in self._words:
                where = f" (item '{item}')" if item else ""
                raise DataError(
                    f"no pronunciation of '{word}' in the lexicon of {len(self)} words{where}: {text[:80]!r}"
                )
            phones += self._words[word][0].phones
        return phones


def _cmudict(lines: Iterable[str], stress: bool, lower: bool) -> Iterator[tuple[str, Pronunciation]]:
    for number, line in enumerate(lines, 1):
        # the newer release comments with " #"; "#" itself is spelled "#HASH-MARK"
        fields = [] if line.startswith(";;;") else line.split(" #", 1)[0].split()
        if not fields:
            continue
        if len(fields) < 2:
            raise DataError(f"line {number} of the CMUdict has a word and no phones: {line!r}")
        head, variant, _ = fields[0].partition("(")
        word = head if variant and head else fields[0]
        phones = tuple(fields[1:] if stress else (phone.rstrip("012") for phone in fields[1:]))
        yield word.lower() if lower else word, Pronunciation(phones)


def _kaldi(lines: Iterable[str], probs: bool) -> Iterator[tuple[str, Pronunciation]]:
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        first = 2 if probs else 1
        if len(fields) <= first:
            raise DataError(f"line {number} of the lexicon has a word and no phones: {line!r}")
        try:
            prob = float(fields[1]) if probs else 1.0
        except ValueError:
            raise DataError(f"line {number} of the lexicon needs a probability after the word: {line!r}") from None
        if not 0 < prob <= 1:
            raise DataError(f"line {number} of the lexicon: a probability lies in (0, 1], got {prob}: {line!r}")
        yield fields[0], Pronunciation(tuple(fields[first:]), prob)
