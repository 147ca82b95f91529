"""What a set of choices tells: entropy, perplexity, and penalties on codebooks and features."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.core.lengths import valid_mask

__all__ = ["code_perplexity", "diversity_penalty", "entropy", "feature_penalty", "mean_probs"]


def entropy(probs: Float[Tensor, "*rest choice"]) -> Float[Tensor, "*rest"]:
    """In nats, over the last axis; probabilities of 0 add nothing.

    >>> round(float(entropy(torch.full((4,), 0.25)).exp()), 4)
    4.0
    """
    # A probability of exactly 0 has the gradient 0 / 0 under its own logarithm.
    return -torch.special.xlogy(probs, probs.clamp(min=1e-20)).sum(dim=-1)


def mean_probs(
    probs: Float[Tensor, "batch frame codebook code"], valid: Bool[Tensor, "batch frame"]
) -> Float[Tensor, "codebook code"]:
    """Of each codebook the mean distribution over the valid frames of the batch, float32."""
    kept = torch.where(valid[..., None, None], probs.float(), 0)
    return kept.sum(dim=(0, 1)) / valid.sum().clamp(min=1)


def diversity_penalty(probs: Float[Tensor, "codebook code"]) -> Float[Tensor, ""]:
    """(GV − Σ_g exp H(p̄_g)) / GV: 0 where all codes are used alike, near 1 where each codebook knows one code.

    wav2vec 2.0 (arXiv:2006.11477, equation 4) writes the negative entropy; this is the form of its code, by perplexities.

    Args:
        probs: mean distribution of each codebook over a batch, from `mean_probs`.
    """
    num_codes = probs.numel()
    return (num_codes - entropy(probs).exp().sum()) / num_codes


def code_perplexity(ids: Int[Tensor, "*shape"], num_codes: int) -> Float[Tensor, ""]:
    """exp of the entropy of how often each code is chosen: the number of codes in equal use.

    >>> round(float(code_perplexity(torch.tensor([0, 0, 1, 1]), 10)), 4)
    2.0
    """
    counts = torch.bincount(ids.flatten(), minlength=num_codes).float()
    return entropy(counts / counts.sum().clamp(min=1)).exp()


def feature_penalty(
    values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Mean square of each item's features, float32: a brake on the front end's scale (wav2vec 2.0, HuBERT; weight 10)."""
    valid = valid_mask(lengths, values.shape[1])[..., None]
    squares = torch.where(valid, values, 0).float().square().mean(dim=2)
    return squares.sum(dim=1) / lengths.clamp(min=1)
