"""CTC prefix beam search in plain Python (Hannun et al., 2014, arXiv:1408.2873, algorithm 1): short, exact, slow.

With `beam_size=None` nothing is pruned and the score of a prefix is the sum over all its alignments, plus what the scorer
adds; the C++ search is tested against this one, and this one against brute force.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sonorant.decoding.hypothesis import Hypothesis, text_of
from sonorant.decoding.scorers import NoScorer, Scorer

__all__ = ["ctc_beam_search"]

_NEVER = -math.inf


def _add(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    high, low = (first, second) if first >= second else (second, first)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))


class _Prefix:
    """Log-probabilities of all alignments of one prefix, apart by whether they end in a blank."""

    __slots__ = ("blank", "gain", "state", "token")

    def __init__(self, state: Any, gain: float) -> None:
        self.blank, self.token = _NEVER, _NEVER
        self.state, self.gain = state, gain

    @property
    def acoustic(self) -> float:
        return _add(self.blank, self.token)

    @property
    def score(self) -> float:
        return self.acoustic + self.gain


def ctc_beam_search(
    log_probs: Float[Tensor, "frame vocab"],
    scorer: Scorer | None = None,
    *,
    blank_id: int = 0,
    beam_size: int | None = 50,
    num_best: int = 1,
    symbols: Sequence[str] | None = None,
) -> list[Hypothesis]:
    """The best prefixes of one item; `frames` stay empty, for a prefix has many alignments.

    Args:
        log_probs: valid frames of one item, logarithms of probabilities.
        scorer: what tokens add beside the frames; nothing where None.
        blank_id: index of the blank.
        beam_size: prefixes kept after each frame; all where None.
        num_best: how many are returned, best first.
        symbols: of the vocabulary, for the text.
    """
    scorer = scorer or NoScorer()
    beam: dict[tuple[int, ...], _Prefix] = {(): _Prefix(scorer.start(), 0.0)}
    beam[()].blank = 0.0
    for frame in log_probs.detach().cpu().numpy().astype(np.float64):
        beam = _advance(beam, frame, scorer, blank_id)
        if beam_size is not None and len(beam) > beam_size:
            best = sorted(beam.items(), key=lambda entry: entry[1].score, reverse=True)[:beam_size]
            beam = dict(best)
    answers = []
    for tokens, prefix in beam.items():
        gain = prefix.gain + scorer.finish(prefix.state)
        text = "" if symbols is None else text_of(tokens, symbols)
        acoustic = prefix.acoustic
        answers.append(Hypothesis(tokens, (), acoustic + gain, text=text, acoustic_score=acoustic, lm_score=gain))
    return sorted(answers, key=lambda answer: answer.score, reverse=True)[:num_best]


def _advance(
    beam: dict[tuple[int, ...], _Prefix], frame: np.ndarray, scorer: Scorer, blank_id: int
) -> dict[tuple[int, ...], _Prefix]:
    following: dict[tuple[int, ...], _Prefix] = {}

    def entry(tokens: tuple[int, ...], state: Any, gain: float) -> _Prefix:
        if tokens not in following:
            following[tokens] = _Prefix(state, gain)
        return following[tokens]

    for tokens, prefix in beam.items():
        stayed = entry(tokens, prefix.state, prefix.gain)
        stayed.blank = _add(stayed.blank, prefix.acoustic + frame[blank_id])
        if tokens:
            stayed.token = _add(stayed.token, prefix.token + frame[tokens[-1]])
        for token, score in enumerate(frame):
            if token == blank_id or score == _NEVER:
                continue
            # A repeat needs a blank before it to count as a new token.
            reached = prefix.blank if tokens and token == tokens[-1] else prefix.acoustic
            if reached == _NEVER:
                continue
            longer = (*tokens, token)
            if longer in following:
                grown = following[longer]
            else:
                state, gain = scorer.extend(prefix.state, token)
                grown = entry(longer, state, prefix.gain + gain)
            grown.token = _add(grown.token, reached + score)
    return following
