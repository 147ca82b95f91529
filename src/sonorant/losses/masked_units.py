"""Which unit stands behind a hidden frame: logits by cosine with codewords or by a linear layer, and their loss."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from sonorant.core.types import Loss

__all__ = ["cosine_logits", "unit_loss", "unit_weights"]


def cosine_logits(
    projected: Float[Tensor, "*frames dim"], codewords: Float[Tensor, "code dim"], temperature: float = 0.1
) -> Float[Tensor, "*frames code"]:
    """cos(A·o_t, e_c) / τ (HuBERT, arXiv:2106.07447, equation 3), float32.

    >>> cosine_logits(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[10.0, 0.0]]
    """
    with torch.autocast(projected.device.type, enabled=False):
        mine, words = normalize(projected.float(), dim=-1, eps=1e-8), normalize(codewords.float(), dim=-1, eps=1e-8)
        return mine @ words.t() / temperature


def unit_weights(
    mask: Bool[Tensor, "*shape"],
    valid: Bool[Tensor, "*shape"],
    masked_weight: float = 1.0,
    unmasked_weight: float = 0.0,
) -> Float[Tensor, "*shape"]:
    """The weight of each frame in the loss: α where hidden, 1 − α elsewhere (section II-B), 0 where there is no target."""
    weights = torch.where(mask, masked_weight, unmasked_weight)
    return torch.where(valid, weights, 0.0)


def unit_loss(
    logits: Float[Tensor, "target code"], units: Int[Tensor, " target"], weights: Float[Tensor, " target"] | None = None
) -> Loss:
    """Cross-entropy of the units, weighted and summed, over the number of targets.

    Args:
        logits: of the targets, any float.
        units: what they are.
        weights: of the targets; 1 where None.

    Returns:
        a loss whose parts are "units" and "correct", the number of targets whose unit is the likeliest.

    >>> loss = unit_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
    >>> round(float(loss.mean.exp()), 4)
    4.0
    """
    losses = cross_entropy(logits.float(), units, reduction="none")
    total = losses.sum() if weights is None else (losses * weights).sum()
    correct = (logits.argmax(dim=-1) == units).sum().to(total.dtype)
    count = torch.tensor(float(len(units)), device=total.device)
    return Loss(total, count, {"units": total.detach(), "correct": correct})
