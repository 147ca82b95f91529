"""N-gram language models: `train_ngram` makes one, `NGram` scores with it.

All logarithms are natural; ARPA files hold base 10. A sentence is scored as `<s> … </s>`, </s> being predicted and <s>
not. A word outside the vocabulary is scored as <unk>. Where to read on: memory layout in `tables.py`, counting in
`counting.py`, smoothing in `kneser_ney.py`, and in their own files pruning, interpolation and the ARPA format.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sonorant.core.config import at_least
from sonorant.core.errors import DataError
from sonorant.lm.arpa import read_arpa, write_arpa
from sonorant.lm.counting import BLOCK, count_ngrams, depths, read_corpus
from sonorant.lm.kneser_ney import Discounts, estimate
from sonorant.lm.tables import BEGIN, END, UNKNOWN, Level, find

__all__ = ["Evaluation", "NGram", "train_ngram"]

_BATCH = 1_000_000
"""Words scored at a time."""
State = tuple[int, ...]
"""Where a history stands: for each length from 1 word on, the index of its n-gram or -1."""


@dataclass(frozen=True)
class Evaluation:
    """A model on a text."""

    log_prob: float
    """Sum over all predicted words and sentence ends."""
    num_tokens: int
    """Words and sentence ends."""
    num_unknown: int
    """Words that were scored as <unk>."""
    num_sentences: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability, unknown words and sentence ends counted."""
        return float(np.exp(-self.log_prob / self.num_tokens))


class Size(NamedTuple):
    order: int
    num_ngrams: int


class NGram:
    """A back-off model: words, and one `Level` an order.

    >>> model = train_ngram(["a b a b", "a b c", "b a"] * 2, order=2)
    >>> bool(model.score(["a", "b"]) > model.score(["b", "b"]))
    True
    """

    def __init__(
        self, words: Sequence[str], levels: Sequence[Level], discounts: Sequence[Discounts] | None = None
    ) -> None:
        self.words = tuple(words)
        self.levels = list(levels)
        self.discounts = None if discounts is None else list(discounts)
        """Of each order, where the model was trained here."""

    @property
    def order(self) -> int:
        return len(self.levels)

    @property
    def sizes(self) -> list[Size]:
        """N-grams of each order."""
        return [Size(order, len(level)) for order, level in enumerate(self.levels, 1)]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word → id; what is not there is <unk>, id 0."""
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def _inner_ids(self) -> dict[str, int]:
        """As `ids`, without the sentence marks: a text that holds one has an unknown word there."""
        return {word: index for word, index in self.ids.items() if index not in (BEGIN, END)}

    def __contains__(self, word: str) -> bool:
        return word in self.ids

    def __repr__(self) -> str:
        sizes = ", ".join(str(size.num_ngrams) for size in self.sizes)
        return f"NGram(order {self.order}: {sizes})"

    @classmethod
    def load_arpa(cls, path: str | Path) -> "NGram":
        """From an ARPA file, `.gz` or not."""
        return cls(*read_arpa(path))

    def save_arpa(self, path: str | Path) -> None:
        """As an ARPA file, packed where the name ends in `.gz`; KenLM and SRILM read it."""
        write_arpa(path, self.words, self.levels)

    def score(self, words: str | Sequence[str], *, eos: bool = True) -> float:
        """Log-probability of one sentence; `eos=False` leaves out that it ends there."""
        return float(self.token_log_probs(words, eos=eos).sum())

    def token_log_probs(self, words: str | Sequence[str], *, eos: bool = True) -> Float[np.ndarray, " token"]:
        """Log-probability of each word and, with `eos`, of the sentence's end."""
        stream = self._stream([words])
        found = self._predict(stream)[1:]
        return found if eos else found[:-1]

    def score_sentences(self, sentences: Iterable[str | Sequence[str]]) -> Float[np.ndarray, " sentence"]:
        """Log-probability of each sentence; batched, for rescoring."""
        totals: list[np.ndarray] = []
        for stream in self._streams(sentences):
            predicted = np.where(stream == BEGIN, 0.0, self._predict(stream))
            totals.append(np.add.reduceat(predicted, np.flatnonzero(stream == BEGIN)))
        return np.concatenate(totals) if totals else np.empty(0)

    def evaluate(self, lines: Iterable[str | Sequence[str]]) -> Evaluation:
        """The model on a text, a sentence a line; blank lines are left out. Raises `DataError` for an empty text."""
        total, tokens, unknown, sentences = 0.0, 0, 0, 0
        for stream in self._streams(line for line in lines if (line.split() if isinstance(line, str) else line)):
            predicted = stream != BEGIN
            total += float(self._predict(stream)[predicted].sum())
            tokens += int(predicted.sum())
            unknown += int((stream == UNKNOWN).sum())
            sentences += int((stream == BEGIN).sum())
        if not sentences:
            raise DataError("no text to evaluate on: every line is blank")
        return Evaluation(total, tokens, unknown, sentences)

    def perplexity(self, lines: Iterable[str | Sequence[str]]) -> float:
        """Perplexity of a text; `evaluate` also says how many words were unknown."""
        return self.evaluate(lines).perplexity

    def distribution(self, history: Sequence[str], *, begin: bool = True) -> Float[np.ndarray, " vocab"]:
        """p(word | history) of every word, in the order of `words`; that of <s> is 0. With `begin` the history starts
        at the sentence's start."""
        state = self.start() if begin else ()
        for word in history:
            state, _ = self.step(state, word)
        words = np.arange(len(self.words))
        probs = self.levels[0].log_probs.copy()
        for order, node in enumerate(state, 2):
            if node >= 0:
                probs += self.levels[order - 2].backoffs[node]
                places = find(self.levels[order - 1].keys, node * len(self.words) + words)
                there = places >= 0
                probs[there] = self.levels[order - 1].log_probs[places[there]]
        probs = np.exp(probs)
        probs[BEGIN] = 0.0
        return probs

    def start(self) -> State:
        """State at the start of a sentence, for `step`."""
        return (BEGIN,)[: self.order - 1]

    def step(self, state: State, word: str) -> tuple[State, float]:
        """The state after one more word, and the word's log-probability: what a beam search asks. `word` may be "</s>"."""
        index = self.ids.get(word, UNKNOWN)
        log_prob = float(self.levels[0].log_probs[index])
        nodes = [index]
        for order, node in enumerate(state, 2):
            found = -1
            if node >= 0:
                level = self.levels[order - 1]
                key = node * len(self.words) + index
                place = int(np.searchsorted(level.keys, key))
                if place < len(level.keys) and level.keys[place] == key:
                    found, log_prob = place, float(level.log_probs[place])
                else:
                    log_prob += float(self.levels[order - 2].backoffs[node])
            nodes.append(found)
        return tuple(nodes[: self.order - 1]), log_prob

    def nodes(self, stream: Int[np.ndarray, " token"], depth: Int[np.ndarray, " token"]) -> list[Int[np.ndarray, " _"]]:
        """For each order and position of a stream of word ids, the index of the n-gram that ends there, or -1.
        `depth` is how many words before each position belong to it."""
        found = [stream.astype(np.int64)]
        for order in range(2, self.order + 1):
            current = np.full(len(stream), -1, dtype=np.int64)
            places = 1 + np.flatnonzero((depth[1:] >= order - 1) & (found[-1][:-1] >= 0))
            current[places] = find(
                self.levels[order - 1].keys, found[-1][places - 1] * len(self.words) + stream[places]
            )
            found.append(current)
        return found

    def predict(
        self, stream: Int[np.ndarray, " token"], depth: Int[np.ndarray, " token"]
    ) -> Float[np.ndarray, " token"]:
        """Log-probability of each id of a stream given those before it, as far as `depth` reaches."""
        nodes = self.nodes(stream, depth)
        result = self.levels[0].log_probs[stream]
        for order in range(2, self.order + 1):
            history = np.concatenate([[-1], nodes[order - 2][:-1]])
            history[depth < order - 1] = -1
            longer = nodes[order - 1] >= 0
            backed = (history >= 0) & ~longer
            result[backed] += self.levels[order - 2].backoffs[history[backed]]
            result[longer] = self.levels[order - 1].log_probs[nodes[order - 1][longer]]
        return result

    def _predict(self, stream: np.ndarray) -> np.ndarray:
        return self.predict(stream, depths(stream))

    def _stream(self, sentences: Iterable[str | Sequence[str]]) -> np.ndarray:
        known, flat = self._inner_ids, []
        for sentence in sentences:
            words = sentence.split() if isinstance(sentence, str) else sentence
            flat.append(BEGIN)
            flat += [known.get(word, UNKNOWN) for word in words]
            flat.append(END)
        return np.array(flat, dtype=np.int64)

    def _streams(self, sentences: Iterable[str | Sequence[str]]) -> Iterator[np.ndarray]:
        """Word ids of whole sentences, about `_BATCH` at a time."""
        batch: list[str | Sequence[str]] = []
        length = 0
        for sentence in sentences:
            batch.append(sentence)
            length += len(sentence) // (6 if isinstance(sentence, str) else 1) + 2
            if length >= _BATCH:
                yield self._stream(batch)
                batch, length = [], 0
        if batch:
            yield self._stream(batch)


def train_ngram(
    lines: Iterable[str],
    order: int = 3,
    *,
    discounts: Sequence[Discounts | None] | None = None,
    cutoffs: Sequence[int] = (),
    vocabulary: Collection[str] | None = None,
    max_words: int | None = None,
    min_count: int = 1,
    block: int = BLOCK,
) -> NGram:
    """An interpolated modified Kneser–Ney model of a text, a sentence a line, read once.

    `cutoffs`: from order 2 on, n-grams that occur at most so often are dropped (the last one holds for all higher orders).
    `vocabulary`, `max_words`, `min_count`: which words are known (see `read_corpus`); the rest trains <unk>. `block`:
    words that are sorted at a time, which bounds memory. `discounts`: D1, D2, D3+ of each order, instead of estimates.

    >>> train_ngram(["the cat sat", "the cat ran"], order=2)
    NGram(order 2: 7, 6)
    """
    at_least("order", order, 1)
    corpus = read_corpus(lines, vocabulary=vocabulary, max_words=max_words, min_count=min_count)
    counted = count_ngrams(corpus.stream, len(corpus.words), order, block=block)
    words = corpus.words
    del corpus  # the text is not needed for the estimates, and is large
    levels, used = estimate(counted, discounts=discounts, cutoffs=cutoffs)
    return NGram(words, levels, used)
