"""Logits and losses of hidden units, by the formula and against the reference's."""

import math

import pytest
import torch

from sonorant.losses.masked_units import cosine_logits, unit_loss, unit_weights


def test_cosines_by_formula() -> None:
    torch.manual_seed(0)
    frames, words = torch.randn(2, 3, 8), torch.randn(5, 8)
    logits = cosine_logits(frames, words)
    expected = torch.cosine_similarity(frames[:, :, None], words[None, None], dim=-1) / 0.1
    torch.testing.assert_close(logits, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine_logits(frames, words), logits)


def test_the_loss_is_a_weighted_sum_over_targets() -> None:
    torch.manual_seed(0)
    logits, units = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    weights = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.0, 0.25])
    loss = unit_loss(logits, units, weights)
    by_hand = sum(-float(logits[i].log_softmax(0)[units[i]]) * float(weights[i]) for i in range(6))
    assert float(loss.total) == pytest.approx(by_hand, rel=1e-6)
    assert float(loss.count) == 6
    assert float(loss.parts["correct"]) == int((logits.argmax(1) == units).sum())
    assert float(unit_loss(torch.zeros(3, 100), torch.tensor([1, 2, 3])).mean) == pytest.approx(math.log(100))
    assert float(unit_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).mean) == 0


def test_weights_of_hidden_and_seen_frames() -> None:
    mask = torch.tensor([[True, False, True, False]])
    valid = torch.tensor([[True, True, False, False]])
    assert unit_weights(mask, valid).tolist() == [[1, 0, 0, 0]]
    torch.testing.assert_close(unit_weights(mask, valid, 0.7, 0.3), torch.tensor([[0.7, 0.3, 0, 0]]))
