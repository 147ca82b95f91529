"""CTC's best path: the likeliest label of each frame, repeats and blanks removed (Graves et al., 2006, section 3.2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.lengths import valid_mask
from sonorant.decoding.hypothesis import Hypothesis, check_scores, spelled_out, words_of

__all__ = ["ctc_greedy"]


def ctc_greedy(
    log_probs: Float[Tensor, "batch frame vocab"],
    lengths: Int[Tensor, " batch"],
    blank_id: int = 0,
    symbols: Sequence[str] | None = None,
) -> list[Hypothesis]:
    """The best path of each item, for the whole batch at once.

    Args:
        log_probs: logarithms of probabilities; what stands in the padding does not matter.
        lengths: frames of each item.
        blank_id: index of the blank.
        symbols: of the vocabulary; with them the hypotheses bear text and words.

    Returns:
        a hypothesis for each item; its score is the log-probability of the path, its frames those of each run.

    >>> scores = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9]]]).log()
    >>> ctc_greedy(scores, torch.tensor([4]))[0].frames
    ((0, 2), (3, 4))
    """
    check_scores(log_probs, lengths, None if symbols is None else len(symbols))
    best, labels = log_probs.max(dim=-1)
    valid = valid_mask(lengths, log_probs.shape[1])
    labels = labels.masked_fill(~valid, blank_id)
    best = best.masked_fill(~valid, 0).double()
    edge = labels.new_full((len(labels), 1), -1)
    starts = (labels != torch.cat([edge, labels[:, :-1]], dim=1)) & (labels != blank_id)
    ends = (labels != torch.cat([labels[:, 1:], edge], dim=1)) & (labels != blank_id)
    # Starts and ends come in the same order, item by item, so they pair up.
    items, first = starts.nonzero(as_tuple=True)
    last = ends.nonzero(as_tuple=True)[1] + 1
    sums = torch.nn.functional.pad(best.exp().cumsum(1), (1, 0))
    confidences = ((sums[items, last] - sums[items, first]) / (last - first)).tolist()
    tokens, spans = labels[items, first].tolist(), list(zip(first.tolist(), last.tolist(), strict=True))
    counts, scores = starts.sum(1).tolist(), best.sum(1).tolist()
    hypotheses, position = [], 0
    for count, score in zip(counts, scores, strict=True):
        piece = slice(position, position + count)
        position += count
        hypotheses.append(_hypothesis(tokens[piece], spans[piece], confidences[piece], score, symbols))
    return hypotheses


def _hypothesis(
    tokens: list[int],
    spans: list[tuple[int, int]],
    confidences: list[float],
    score: float,
    symbols: Sequence[str] | None,
) -> Hypothesis:
    return Hypothesis(
        tuple(tokens),
        tuple(spans),
        score,
        tuple(confidences),
        text="" if symbols is None else spelled_out(tokens, symbols),
        words=() if symbols is None else words_of(tokens, spans, symbols, confidences),
        acoustic_score=score,
    )
