"""What a prefix search asks besides the frames: a language model, a word bonus, hot words.

A `Scorer` follows a prefix token by token and answers with what each token adds to the score. All scores are natural
logarithms. The reference search takes any scorer; the C++ search takes one too, at the price of a call into Python for
each extension that it considers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sonorant.core.errors import ConfigError
from sonorant.decoding.hypothesis import WORD_START, is_separator

__all__ = ["HotWords", "NoScorer", "Scorer", "TokenScorer", "WordModel", "WordScorer"]


@runtime_checkable
class WordModel(Protocol):
    """A language model over words (or over tokens, spelled as their symbols)."""

    def start(self) -> Any: ...

    def score(self, state: Any, word: str) -> tuple[Any, float]: ...

    def finish(self, state: Any) -> float: ...


@runtime_checkable
class Scorer(Protocol):
    """What the tokens of a prefix add to its score."""

    def start(self) -> Any:
        """The state of the empty prefix."""

    def extend(self, state: Any, token: int) -> tuple[Any, float]:
        """The state after one more token, and what that token adds."""

    def finish(self, state: Any) -> float:
        """What is added when the prefix ends here."""


class NoScorer:
    """Adds nothing."""

    def start(self) -> None:
        return None

    def extend(self, state: None, token: int) -> tuple[None, float]:
        return None, 0.0

    def finish(self, state: None) -> float:
        return 0.0


class HotWords:
    """A bonus for each whole word (or phrase) of a list, paid in advance for each letter so that pruning spares it.

    While a prefix spells the beginning of a hot word it has been paid that share of the bonus; when the word breaks off
    the share is taken back. Every complete prefix has therefore received exactly the bonuses of the hot words in it,
    and so hot words change the ranking and never the sum of anything else. Longest match: of phrases that begin at the
    same word the bonus of each one that is completed is paid.

    Args:
        bonuses: word or phrase → natural logarithm that is added for each occurrence; negative ones suppress.
    """

    def __init__(self, bonuses: Mapping[str, float]) -> None:
        self.children: list[dict[str, int]] = [{}]
        self.bonus: list[float] = [0.0]
        self.promise: list[float] = [0.0]
        for phrase, bonus in bonuses.items():
            words = phrase.split()
            if not words:
                raise ConfigError("a hot word is empty")
            self._insert(" ".join(words) + " ", float(bonus))

    def _insert(self, letters: str, bonus: float) -> None:
        node = 0
        for depth, letter in enumerate(letters, 1):
            if letter not in self.children[node]:
                self.children[node][letter] = len(self.children)
                self.children.append({})
                self.bonus.append(0.0)
                self.promise.append(0.0)
            node = self.children[node][letter]
            # Only the space after the word completes it; nothing is promised beyond that.
            if depth < len(letters):
                self.promise[node] = max(self.promise[node], bonus * depth / len(letters))
        self.bonus[node] += bonus

    def start(self) -> tuple[int, ...]:
        """Nothing spelled yet: a word may begin."""
        return (0,)

    def advance(self, state: tuple[int, ...], text: str) -> tuple[tuple[int, ...], float]:
        """The state after some letters, and what they add; a space ends a word, further ones are ignored.

        The state holds the nodes of all hot words that the prefix may be inside of; node 0, the root, is among them
        exactly where a word may begin.
        """
        gain = 0.0
        for letter in text:
            if letter == " " and 0 in state:
                continue
            following = [self.children[node][letter] for node in state if letter in self.children[node]]
            paid = sum(self.bonus[node] for node in following)
            if letter == " ":
                following.append(0)
            after = tuple(following)
            gain += paid + self._promised(after) - self._promised(state)
            state = after
        return state, gain

    def finish(self, state: tuple[int, ...]) -> float:
        """What the end adds: it completes a word as a space does."""
        ended, gain = self.advance(state, " ")
        return gain - self._promised(ended)

    def _promised(self, state: tuple[int, ...]) -> float:
        return max((self.promise[node] for node in state), default=0.0)


class TokenScorer:
    """A language model over the tokens themselves.

    Args:
        symbols: of the vocabulary, as the model spells them.
        model: scores one symbol after others.
        lm_weight: what its logarithms are multiplied by.
    """

    def __init__(self, symbols: Sequence[str], model: WordModel, lm_weight: float) -> None:
        self.symbols, self.model, self.lm_weight = symbols, model, lm_weight

    def start(self) -> Any:
        return self.model.start()

    def extend(self, state: Any, token: int) -> tuple[Any, float]:
        state, score = self.model.score(state, self.symbols[token])
        return state, self.lm_weight * score

    def finish(self, state: Any) -> float:
        return self.lm_weight * self.model.finish(state)


class WordScorer:
    """A word model, a bonus for each word, and hot words, over a vocabulary that can spell any word.

    A word is complete when a separator or a token that begins a word follows, or at the end; only then does the model
    speak, while hot words pay letter by letter.

    Args:
        symbols: of the vocabulary; words are parted by " ", "|" or "▁", or begin with "▁".
        model: scores one word after others; None for none.
        lm_weight: what its logarithms are multiplied by.
        word_bonus: added for each word; above 0 favours more words.
        hot_words: word or phrase → bonus.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        model: WordModel | None = None,
        lm_weight: float = 1.0,
        word_bonus: float = 0.0,
        hot_words: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.lm_weight, self.word_bonus = model, lm_weight, word_bonus
        self.hot = HotWords(hot_words) if hot_words else None
        # Each token as (does a word end before it, letters of the word that goes on or begins).
        self.pieces = [
            (
                is_separator(symbol) or symbol.startswith(WORD_START),
                "" if is_separator(symbol) else symbol.lstrip(WORD_START),
            )
            for symbol in symbols
        ]

    def start(self) -> tuple[Any, str, Any]:
        return (
            self.model.start() if self.model else None,
            "",
            self.hot.start() if self.hot else None,
        )

    def extend(self, state: tuple[Any, str, Any], token: int) -> tuple[tuple[Any, str, Any], float]:
        history, word, hot = state
        boundary, letters = self.pieces[token]
        gain = 0.0
        if boundary and word:
            history, gain = self._complete(history, word)
            word = ""
        if self.hot is not None:
            hot, paid = self.hot.advance(hot, " " + letters if boundary else letters)
            gain += paid
        return (history, word + letters, hot), gain

    def finish(self, state: tuple[Any, str, Any]) -> float:
        history, word, hot = state
        gain = 0.0
        if word:
            history, gain = self._complete(history, word)
        if self.hot is not None:
            gain += self.hot.finish(hot)
        return gain + (self.lm_weight * self.model.finish(history) if self.model else 0.0)

    def _complete(self, history: Any, word: str) -> tuple[Any, float]:
        if self.model is None:
            return history, self.word_bonus
        history, score = self.model.score(history, word)
        return history, self.lm_weight * score + self.word_bonus
