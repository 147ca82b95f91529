"""CTC prefix beam search in plain Python (Hannun et al., 2014, arXiv:1408.2873, algorithm 1): short, exact, slow.

With `beam_size=None` nothing is pruned and the score of a prefix is the sum over all its alignments, plus what the scorer
adds; the C++ search is tested against this one, and this one against brute force. `CtcBeam` hands it the searches that
ask a scorer written in Python: from C++ each question would be asked for every token of every frame, while here tokens
can be left out frame by frame.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sonorant.decoding.hypothesis import Hypothesis, spelled_out
from sonorant.decoding.scorers import NoScorer, Scorer

__all__ = ["ctc_beam_search"]

_NEVER = -math.inf


def _add(first: float, second: float) -> float:
    """log(exp(first) + exp(second))."""
    high, low = (first, second) if first >= second else (second, first)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))


class _Prefix:
    """Log-probabilities of all alignments of one prefix, apart by whether they end in a blank."""

    __slots__ = ("blank", "gain", "longer", "state", "token")

    def __init__(self, state: Any, gain: float, longer: dict[int, tuple[Any, float]]) -> None:
        self.blank, self.token = _NEVER, _NEVER
        self.state, self.gain = state, gain
        self.longer = longer
        """What the scorer said about each token after this prefix: it is asked once, not once a frame."""

    @property
    def score(self) -> float:
        return _add(self.blank, self.token) + self.gain


def ctc_beam_search(
    log_probs: Float[Tensor, "frame vocab"],
    scorer: Scorer | None = None,
    *,
    blank_id: int = 0,
    beam_size: int | None = 50,
    beam_threshold: float = math.inf,
    token_threshold: float = math.inf,
    tokens_per_frame: int | None = None,
    num_best: int = 1,
    symbols: Sequence[str] | None = None,
) -> list[Hypothesis]:
    """The best prefixes of one item; `frames` stay empty, for a prefix has many alignments.

    Args:
        log_probs: valid frames of one item, logarithms of probabilities.
        scorer: what tokens add beside the frames; nothing where None.
        blank_id: index of the blank.
        beam_size: prefixes kept after each frame; all where None.
        beam_threshold: prefixes further than this below the best are dropped.
        token_threshold: tokens of a frame less likely than exp(−this) are not tried.
        tokens_per_frame: how many tokens of a frame are tried at most.
        num_best: how many are returned, best first.
        symbols: of the vocabulary, for the text.
    """
    scorer = scorer or NoScorer()
    beam: dict[tuple[int, ...], _Prefix] = {(): _Prefix(scorer.start(), 0.0, {})}
    beam[()].blank = 0.0
    scores = log_probs.detach().cpu().double().numpy()
    for frame in scores:
        beam = _advance(beam, _candidates(frame, blank_id, token_threshold, tokens_per_frame), frame, scorer, blank_id)
        beam = _pruned(beam, beam_size, beam_threshold)
    answers = []
    for tokens, prefix in beam.items():
        gain = prefix.gain + scorer.finish(prefix.state)
        text = "" if symbols is None else spelled_out(tokens, symbols)
        acoustic = _add(prefix.blank, prefix.token)
        answers.append(Hypothesis(tokens, (), acoustic + gain, text=text, acoustic_score=acoustic, lm_score=gain))
    return sorted(answers, key=lambda answer: answer.score, reverse=True)[:num_best]


def _candidates(frame: np.ndarray, blank_id: int, threshold: float, count: int | None) -> list[int]:
    """The tokens of a frame that are tried, the blank left out."""
    kept = np.flatnonzero(frame > -threshold)
    if count is not None and len(kept) > count:
        kept = kept[np.argpartition(-frame[kept], count - 1)[:count]]
    return [token for token in kept.tolist() if token != blank_id]


def _pruned(beam: dict[tuple[int, ...], _Prefix], size: int | None, threshold: float) -> dict[tuple[int, ...], _Prefix]:
    if threshold == math.inf and (size is None or len(beam) <= size):
        return beam
    scored = [(prefix.score, tokens) for tokens, prefix in beam.items()]
    floor = max(score for score, _ in scored) - threshold
    best = sorted((entry for entry in scored if entry[0] >= floor), key=lambda entry: entry[0], reverse=True)
    return {tokens: beam[tokens] for _, tokens in best[:size]}


def _advance(
    beam: dict[tuple[int, ...], _Prefix], candidates: list[int], scores: np.ndarray, scorer: Scorer, blank_id: int
) -> dict[tuple[int, ...], _Prefix]:
    frame: list[float] = scores.tolist()
    following = {tokens: _Prefix(prefix.state, prefix.gain, prefix.longer) for tokens, prefix in beam.items()}
    for tokens, prefix in beam.items():
        stayed, total = following[tokens], _add(prefix.blank, prefix.token)
        stayed.blank = total + frame[blank_id]
        last = tokens[-1] if tokens else -1
        if last >= 0:
            stayed.token = _add(stayed.token, prefix.token + frame[last])
        for token in candidates:
            # A repeat needs a blank before it to count as a new token.
            reached = prefix.blank if token == last else total
            if reached == _NEVER:
                continue
            longer = (*tokens, token)
            grown = following.get(longer)
            if grown is None:
                answer = prefix.longer.get(token)
                if answer is None:
                    answer = prefix.longer[token] = scorer.extend(prefix.state, token)
                grown = following[longer] = _Prefix(answer[0], prefix.gain + answer[1], {})
            grown.token = _add(grown.token, reached + frame[token])
    return following
