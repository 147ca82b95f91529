"""Subwords as a list of pieces, as `tokenizer.json` files hold them: with pairs to merge (BPE), or a score each (unigram)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sonorant.core.errors import ConfigError, DataError
from sonorant.text.tokenizer import BLANK, shown

__all__ = ["Pieces"]

_BOUNDARY = "\u2581"


class Pieces:
    """Pieces behind a blank; those that begin a word begin with "▁".

    `Subword` holds a SentencePiece model; this holds what other toolkits keep of one.

    Args:
        symbols: pieces without the blank, which is put at 0.
        merges: BPE: pairs of pieces, the first to be joined first.
        scores: unigram: a log-probability for each symbol. One of the two is given.
        special: symbols that no text is encoded to.

    Raises:
        ConfigError: a doubled symbol, or not one of merges and scores.

    >>> pieces = Pieces(["▁", "a", "b", "▁a", "▁ab"], merges=[("▁", "a"), ("▁a", "b")])
    >>> pieces.encode("ab b"), pieces.decode([5, 1, 3])
    ([5, 1, 3], 'ab b')
    """

    kind = "pieces"

    def __init__(
        self,
        symbols: Iterable[str],
        *,
        merges: Iterable[tuple[str, str]] = (),
        scores: Iterable[float] = (),
        special: Iterable[str] = (),
    ) -> None:
        self.symbols: tuple[str, ...] = (BLANK, *symbols)
        self.merges = tuple((str(left), str(right)) for left, right in merges)
        self.scores, self.special = tuple(map(float, scores)), tuple(special)
        doubled = [symbol for symbol, count in Counter(self.symbols).items() if count > 1]
        if doubled:
            raise ConfigError(f"pieces must differ, got twice: {', '.join(map(shown, doubled))}")
        if bool(self.scores) and (bool(self.merges) or len(self.scores) != len(self.symbols) - 1):
            raise ConfigError("pieces have either merges, or scores for every symbol but the blank")
        if _BOUNDARY not in self.symbols:
            raise ConfigError(f"pieces need {_BOUNDARY!r} itself, which a word begins with where no longer piece fits")
        hidden = {BLANK, *self.special}
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols) if symbol not in hidden}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._longest = max(map(len, self._ids), default=0)

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    @property
    def blank_id(self) -> int:
        return 0

    @property
    def word_boundary(self) -> str:
        return _BOUNDARY

    def encode(self, text: str, *, item: str = "", skipped: Counter[str] | None = None) -> list[int]:
        missing = self.uncovered([text])
        if missing:
            if skipped is None:
                where = f" of item '{item}'" if item else ""
                raise DataError(
                    f"the pieces do not cover {', '.join(map(shown, missing))} in the text{where}: {text[:80]!r}; normalise "
                    "the text, or pass skipped=Counter() to leave them out"
                )
            skipped.update(missing)
            text = "".join(letter for letter in text if letter not in missing)
        split = self._by_score if self.scores else self._by_merges
        return [self._ids[piece] for word in text.split() for piece in split(_BOUNDARY + word)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join("".join(self.to_symbols(ids)).replace(_BOUNDARY, " ").split())

    def to_symbols(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id, blanks left out."""
        wrong = [index for index in ids if not 0 <= index < len(self.symbols)]
        if wrong:
            raise DataError(f"token ids must lie in [0, {len(self.symbols)}), got {wrong[0]}")
        return [self.symbols[index] for index in ids if index]

    def uncovered(self, texts: Iterable[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update("".join(text.split()))
        # A letter must be a piece of its own: no other piece is sure to be cut where it stands.
        return Counter({letter: count for letter, count in counts.items() if letter not in self._ids})

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "symbols": list(self.symbols[1:]),
            "merges": [list(pair) for pair in self.merges],
            "scores": list(self.scores),
            "special": list(self.special),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Pieces":
        merges = [(left, right) for left, right in plain["merges"]]
        return cls(plain["symbols"], merges=merges, scores=plain["scores"], special=plain["special"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pieces) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.symbols, self.merges, self.scores, self.special))

    def __repr__(self) -> str:
        return f"Pieces({self.vocab_size} with blank)"

    def _by_merges(self, word: str) -> list[str]:
        """Byte-pair encoding (Sennrich et al., 2016, arXiv:1508.07909): always the pair that was learnt first."""
        pieces = list(word)
        while len(pieces) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in zip(pieces, pieces[1:])]
            best = min(ranks)
            if best == len(self._ranks):
                break
            place = ranks.index(best)
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces

    def _by_score(self, word: str) -> list[str]:
        """The likeliest split (Kudo, 2018, arXiv:1804.10959): the best way to each place of the word."""
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(word) + 1):
            starts = range(max(0, end - self._longest), end)
            ways = [
                (best[start][0] + self.scores[self._ids[word[start:end]] - 1], start)
                for start in starts
                if word[start:end] in self._ids
            ]
            best.append(max(ways, default=(float("-inf"), end - 1)))
        pieces: list[str] = []
        end = len(word)
        while end:
            start = best[end][1]
            pieces.append(word[start:end])
            end = start
        return pieces[::-1]
