"""The border to flashlight-text: dictionaries, KenLM, and hot words dressed as its language model.

flashlight keeps its language model's states in a tree whose nodes it compares by address. A Python model hangs its own
state on such a node in a dictionary, which also keeps the node alive for as long as one search runs.
"""

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sonorant.core.errors import DataError
from sonorant.core.optional import require
from sonorant.decoding.arpa import LN10
from sonorant.decoding.scorers import HotWords

__all__ = ["KenLmModel", "load_kenlm", "scored_words"]

_LOADING = threading.Lock()
_OUTSIDE = "\x00outside"  # a word that no model knows, so that KenLM scores it as <unk>


def load_kenlm(path: str | Path, words: Sequence[str]) -> Any:
    """KenLM's model of a file, asked by the positions of `words`; the position behind the last is unknown to it.

    Raises:
        DataError: KenLM cannot read it; the message is KenLM's own.
    """
    kenlm = require("flashlight.lib.text.decoder.kenlm", extra="decode", purpose="for n-gram language models")
    entries = require(
        "flashlight.lib.text.dictionary", extra="decode", purpose="for n-gram language models"
    ).Dictionary()
    for position, word in enumerate([*words, _OUTSIDE]):
        entries.add_entry(word, position)
    try:
        with _quiet():
            return kenlm.KenLM(str(path), entries)
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the terminal the bar that KenLM draws on standard error; it has no other switch.

    The stream is exchanged below Python, for the whole process: a lock keeps two loads from exchanging it crosswise.
    """
    with _LOADING, open(os.devnull, "wb") as nowhere:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class KenLmModel:
    """KenLM as a `WordModel`: words as strings, natural logarithms."""

    def __init__(self, kenlm: Any, words: Sequence[str]) -> None:
        self.kenlm = kenlm
        self.positions = {word: position for position, word in enumerate(words)}

    def start(self) -> Any:
        return self.kenlm.start(False)

    def score(self, state: Any, word: str) -> tuple[Any, float]:
        state, score = self.kenlm.score(state, self.positions.get(word, len(self.positions)))
        return state, score * LN10

    def finish(self, state: Any) -> float:
        return self.kenlm.finish(state)[1] * LN10


def scored_words(inner: Any, words: Sequence[str], weight: float, hot_words: Mapping[str, float]) -> Any:
    """KenLM (or no model) and hot words as flashlight's model over the words of a lexicon; for one search only.

    Args:
        inner: flashlight's own model.
        words: of the lexicon, by position.
        weight: what the inner model's scores are multiplied by (its weight, and the step from log10).
        hot_words: word or phrase → bonus.
    """
    library = require("flashlight.lib.text.decoder", extra="decode", purpose="for beam search")
    hot = HotWords(hot_words)

    class Boosted(library.LM):
        def __init__(self) -> None:
            super().__init__()
            self.states: dict[Any, Any] = {}

        def start(self, start_with_nothing: bool) -> Any:
            node = inner.start(start_with_nothing)
            self.states[node] = hot.start()
            return node

        def score(self, node: Any, position: int) -> tuple[Any, float]:
            following, score = inner.score(node, position)
            self.states[following], gain = hot.advance(self.states[node], words[position] + " ")
            return following, weight * score + gain

        def finish(self, node: Any) -> tuple[Any, float]:
            following, score = inner.finish(node)
            gain = hot.finish(self.states[node])
            self.states[following] = None
            return following, weight * score + gain

    return Boosted()
