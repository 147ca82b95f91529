"""Entropies and penalties by hand, and the diversity of the reference."""

import math

import pytest
import torch

from sonorant.losses.information import code_perplexity, diversity_penalty, entropy, feature_penalty, mean_probs


def test_entropy_and_perplexity() -> None:
    torch.testing.assert_close(
        entropy(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])), torch.tensor([math.log(2), 0])
    )
    assert float(code_perplexity(torch.arange(12).view(3, 4), 12)) == pytest.approx(12)
    assert float(code_perplexity(torch.zeros(5, dtype=torch.long), 12)) == pytest.approx(1)


def test_diversity_between_one_code_and_all() -> None:
    assert float(diversity_penalty(torch.full((2, 320), 1 / 320))) == pytest.approx(0, abs=1e-5)
    one = torch.zeros(2, 320)
    one[:, 3] = 1
    assert float(diversity_penalty(one)) == pytest.approx((640 - 2) / 640)


def test_diversity_equals_the_reference() -> None:
    modeling = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")
    torch.manual_seed(0)
    probs = torch.randn(3, 11, 2, 8).softmax(-1)
    mask = torch.rand(3, 11) < 0.5
    perplexity = modeling.Wav2Vec2GumbelVectorQuantizer._compute_perplexity(probs.flatten(0, 1), mask)
    torch.testing.assert_close(diversity_penalty(mean_probs(probs, mask)), (16 - perplexity) / 16)


def test_diversity_rewards_using_more_codes() -> None:
    logits = torch.zeros(1, 4, 1, 6)
    logits[..., 0] = 2.0
    logits.requires_grad_()
    valid = torch.ones(1, 4, dtype=torch.bool)
    diversity_penalty(mean_probs(logits.softmax(-1), valid)).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 0] > 0).all()
    assert (logits.grad[..., 1:] < 0).all()


def test_feature_penalty_is_each_items_mean_square() -> None:
    values = torch.randn(2, 5, 3)
    values[1, 2:] = math.nan
    penalty = feature_penalty(values, torch.tensor([5, 2]))
    torch.testing.assert_close(penalty, torch.stack([values[0].square().mean(), values[1, :2].square().mean()]))


def test_a_choice_that_is_never_made_breaks_no_gradient() -> None:
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]], requires_grad=True)
    diversity_penalty(probs).backward()
    assert probs.grad is not None
    assert probs.grad.isfinite().all()
