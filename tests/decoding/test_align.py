"""Alignment: brute force over all paths, batches, padding, spans, what cannot be aligned."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.decoding.align import ctc_align
from sonorant.decoding.viterbi import viterbi


def best_path(log_probs: Tensor, tokens: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    num_frames, vocab_size = log_probs.shape
    best: tuple[float, tuple[int, ...]] = (-math.inf, ())
    for path in itertools.product(range(vocab_size), repeat=num_frames):
        if tuple(label for label, _ in itertools.groupby(path) if label) == tokens:
            best = max(best, (sum(float(log_probs[t, v]) for t, v in enumerate(path)), path))
    return best


@pytest.mark.parametrize("tokens", [(), (1,), (1, 1), (1, 2), (2, 1, 2), (1, 1, 1), (2, 2, 1)])
def test_equals_brute_force(tokens: tuple[int, ...]) -> None:
    torch.manual_seed(len(tokens))
    log_probs = torch.randn(3, 6, 3, dtype=torch.float64).log_softmax(-1)
    ids = torch.tensor([tokens] * 3) if tokens else torch.zeros(3, 0, dtype=torch.long)
    lengths = torch.tensor([6, 5, 6])
    alignment = ctc_align(log_probs, lengths, ids, torch.full((3,), len(tokens)))
    for item, length in enumerate(lengths.tolist()):
        score, path = best_path(log_probs[item, :length], tokens)
        assert float(alignment.log_likelihoods[item]) == pytest.approx(score, abs=1e-9)
        assert tuple(alignment.labels[item, :length].tolist()) == path
        spans, position = [], 0
        for label, run in itertools.groupby(path):
            size = len(list(run))
            if label:
                spans.append((position, position + size))
            position += size
        assert alignment.spans(item) == spans


def test_batch_equals_single_and_padding_never_matters() -> None:
    torch.manual_seed(0)
    lengths, sizes = torch.tensor([50, 31, 12, 44]), torch.tensor([20, 9, 1, 0])
    tokens = torch.randint(1, 8, (4, 20))
    log_probs = torch.randn(4, 57, 8).log_softmax(-1)
    for item, length in enumerate(lengths.tolist()):
        log_probs[item, length:] = math.nan
    together = ctc_align(log_probs, lengths, tokens, sizes)
    assert not together.starts[3].any()
    assert not together.labels[1, 31:].any()
    for item, (length, size) in enumerate(zip(lengths.tolist(), sizes.tolist(), strict=True)):
        alone = ctc_align(
            log_probs[item : item + 1, :length],
            lengths[item : item + 1],
            tokens[item : item + 1, :size],
            sizes[item : item + 1],
        )
        assert alone.spans(0) == together.spans(item)
        assert torch.equal(alone.labels[0], together.labels[item, :length])
        torch.testing.assert_close(alone.scores[0, :size], together.scores[item, :size])


def test_scores_are_mean_probabilities_and_words_gather_them() -> None:
    log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05], [0.2, 0.1, 0.7]]]).log()
    alignment = ctc_align(log_probs, torch.tensor([4]), torch.tensor([[1, 2]]), torch.tensor([2]))
    assert alignment.spans(0) == [(0, 2), (3, 4)]
    assert alignment.scores[0].tolist() == pytest.approx([0.7, 0.7])
    (word,) = alignment.words(0, ("", "x", "y"))
    assert (word.text, word.start, word.end) == ("xy", 0, 4)


def test_items_that_cannot_be_aligned_are_named() -> None:
    log_probs = torch.randn(2, 3, 4).log_softmax(-1)
    tokens, sizes = torch.tensor([[1, 2, 3], [1, 1, 2]]), torch.tensor([3, 3])
    with pytest.raises(DataError, match="1 of 2 items cannot be aligned; item 'second' has 3 frames and needs 4"):
        ctc_align(log_probs, torch.tensor([3, 3]), tokens, sizes, ids=("first", "second"))
    with pytest.raises(DataError, match="another vocabulary"):
        ctc_align(log_probs, torch.tensor([3, 3]), tokens + 2, sizes)


def test_viterbi_equals_brute_force() -> None:
    torch.manual_seed(0)
    emissions, transitions = torch.randn(3, 5, 3), torch.randn(3, 3)
    initial, final, lengths = torch.randn(3), torch.randn(3), torch.tensor([5, 3, 1])
    states, scores = viterbi(emissions, lengths, transitions, initial, final)
    for item, length in enumerate(lengths.tolist()):

        def total(path: tuple[int, ...], item: int = item) -> float:
            score = float(initial[path[0]] + final[path[-1]])
            score += sum(float(emissions[item, t, s]) for t, s in enumerate(path))
            return score + sum(float(transitions[a, b]) for a, b in itertools.pairwise(path))

        best = max(itertools.product(range(3), repeat=length), key=total)
        assert tuple(states[item, :length].tolist()) == best
        assert float(scores[item]) == pytest.approx(total(best), abs=1e-5)
        assert not states[item, length:].any()
