"""CTC: brute force over all alignments, gradients, torch's own loss, padding, items that cannot be aligned."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.losses.ctc import ctc_loss, ctc_scores


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def brute_force(log_probs: Tensor, tokens: tuple[int, ...]) -> float:
    """log of the sum over all paths that collapse to the tokens."""
    num_frames, vocab_size = log_probs.shape
    paths = (p for p in itertools.product(range(vocab_size), repeat=num_frames) if collapse(p) == tokens)
    scores = [sum(float(log_probs[t, v]) for t, v in enumerate(path)) for path in paths]
    return math.log(sum(math.exp(score) for score in scores)) if scores else -math.inf


@pytest.mark.parametrize("tokens", [(), (1,), (1, 1), (1, 2), (2, 1, 2), (1, 1, 1), (1, 2, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_equals_brute_force(tokens: tuple[int, ...], num_frames: int) -> None:
    torch.manual_seed(len(tokens))
    log_probs = torch.randn(1, num_frames, 3, dtype=torch.float64).log_softmax(-1)
    ids = torch.tensor([tokens]) if tokens else torch.zeros(1, 0, dtype=torch.long)
    score = ctc_scores(log_probs, torch.tensor([num_frames]), ids, torch.tensor([len(tokens)]))
    assert float(score) == pytest.approx(brute_force(log_probs[0], tokens), abs=1e-9)


def batch(dtype: torch.dtype = torch.float64, vocab: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(4, 13, vocab, dtype=dtype)
    tokens = torch.tensor([[1, 1, 2, 3], [4, 5, 0, 0], [6, 6, 6, 0], [2, 0, 0, 0]])
    return logits, torch.tensor([13, 9, 6, 1]), tokens, torch.tensor([4, 2, 3, 1])


def test_gradient_is_exact_without_a_softmax_below() -> None:
    logits, lengths, tokens, sizes = batch()
    free = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ctc_scores(x, lengths, tokens, sizes), (free,))


def test_equals_torch_with_its_gradient() -> None:
    logits, lengths, tokens, sizes = batch()
    logits.requires_grad_()
    ours = ctc_loss(logits.log_softmax(-1), lengths, tokens, sizes)
    (gradient,) = torch.autograd.grad(ours.total, logits)
    args = (tokens, lengths, sizes)
    theirs = torch.nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), *args, reduction="sum")
    (expected,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(ours.total, theirs)
    torch.testing.assert_close(gradient, expected)
    assert int(ours.count) == 10


def test_long_items_in_single_precision() -> None:
    torch.manual_seed(1)
    log_probs = (8 * torch.randn(2, 700, 40)).log_softmax(-1)
    tokens, lengths, sizes = torch.randint(1, 40, (2, 150)), torch.tensor([700, 650]), torch.tensor([150, 90])
    ours = ctc_loss(log_probs, lengths, tokens, sizes).total
    exact = ctc_loss(log_probs.double(), lengths, tokens, sizes).total
    assert float(ours) == pytest.approx(float(exact), rel=1e-5)


def test_padding_never_matters() -> None:
    logits, lengths, tokens, sizes = batch()
    clean = logits.log_softmax(-1).requires_grad_()
    expected = ctc_loss(clean, lengths, tokens, sizes).total
    dirty = clean.detach().clone()
    for item, length in enumerate(lengths.tolist()):
        dirty[item, length:] = math.nan
    dirty.requires_grad_()
    other_tokens = tokens.clone()
    other_tokens[1, 2:] = 6
    total = ctc_loss(dirty, lengths, other_tokens, sizes).total
    assert total == expected
    (gradient,) = torch.autograd.grad(total, dirty)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, clean)[0])
    scores, clean = ctc_scores(clean, lengths, tokens, sizes).detach(), clean.detach()
    for item, length in enumerate(lengths.tolist()):
        assert not gradient[item, length:].any()
        alone = ctc_scores(
            clean[item : item + 1, :length], lengths[item : item + 1], tokens[item : item + 1], sizes[item : item + 1]
        )
        assert float(alone) == pytest.approx(float(scores[item]), abs=1e-12)


def test_items_that_cannot_be_aligned() -> None:
    logits, _, tokens, sizes = batch()
    log_probs = logits.log_softmax(-1).requires_grad_()
    short = torch.tensor([13, 9, 4, 1])  # three equal tokens need five frames
    with pytest.raises(DataError, match=r"item 'c' has 4 frames and needs 5 for 3 tokens"):
        ctc_loss(log_probs, short, tokens, sizes, ids=("a", "b", "c", "d"))
    loss = ctc_loss(log_probs, short, tokens, sizes, zero_infinity=True)
    kept = torch.tensor([0, 1, 3])
    expected = ctc_loss(log_probs[kept], short[kept], tokens[kept], sizes[kept])
    torch.testing.assert_close(loss.total, expected.total)
    assert int(loss.count) == int(expected.count) == 7
    assert float(loss.parts["skipped"]) == 1
    (gradient,) = torch.autograd.grad(loss.total, log_probs)
    assert gradient.isfinite().all()
    assert not gradient[2].any()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lengths": torch.tensor([14, 9, 6, 1])}, r"lengths of item 0 must lie in \[0, 13\]"),
        ({"tokens_lengths": torch.tensor([4, 2, 5, 1])}, r"tokens_lengths of item 2"),
        ({"tokens": torch.full((4, 4), 7)}, r"another vocabulary"),
        ({"tokens": torch.zeros(4, 4, dtype=torch.long)}, r"not be the blank"),
        ({"blank_id": 7}, r"blank_id must lie in \[0, 7\)"),
    ],
)
def test_refuses_what_does_not_fit(change: dict, message: str) -> None:
    logits, lengths, tokens, sizes = batch()
    arguments = {"lengths": lengths, "tokens": tokens, "tokens_lengths": sizes, **change}
    with pytest.raises(DataError, match=message):
        ctc_loss(logits.log_softmax(-1), **arguments)


def test_half_precision_is_summed_in_single() -> None:
    logits, lengths, tokens, sizes = batch(torch.float32)
    exact = ctc_loss(logits.log_softmax(-1), lengths, tokens, sizes).total
    half = ctc_loss(logits.log_softmax(-1).bfloat16(), lengths, tokens, sizes).total
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(exact), rel=0.02)
