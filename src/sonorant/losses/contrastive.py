"""Telling the right frame from others: InfoNCE over hidden frames, and over future ones (CPC, wav2vec).

Positions are whatever is predicted: the hidden frames of an item, gathered to the front, or all of its frames. Others are
drawn from each item's own seed, so an item meets the same ones alone and in any batch; those from other items depend on
who these are, but not on their order. Read `negatives_within`, `contrastive_logits`, `info_nce`; then the steps ahead.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, softplus

from sonorant.core.lengths import valid_mask
from sonorant.core.seed import integers
from sonorant.core.types import Loss

__all__ = [
    "contrastive_logits", "future_bce", "future_info_nce", "future_logits", "future_mask", "info_nce",
    "negatives_across", "negatives_within",
]  # fmt: skip


def negatives_within(
    seeds: Int[Tensor, " batch"],
    counts: Int[Tensor, " batch"],
    num_positions: int,
    num_negatives: int,
    name: str = "negatives",
) -> Int[Tensor, "batch position negative"]:
    """For each position `num_negatives` others of its item, drawn with replacement, never itself.

    Args:
        seeds: of the items.
        counts: positions of each item.
        num_positions: of the padded tensor.
        num_negatives: for each position (K of wav2vec 2.0, arXiv:2006.11477, equation 3).
        name: of the draw.

    Returns:
        indices of positions; an item of one position has no others, and `info_nce` leaves it out.

    >>> negatives_within(torch.tensor([1]), torch.tensor([2]), 2, 3).tolist()
    [[[1, 1, 1], [0, 0, 0]]]
    """
    drawn = integers(seeds, name, num_positions * num_negatives, high=counts - 1).unflatten(
        1, (num_positions, num_negatives)
    )
    return _beside(drawn, torch.arange(num_positions, device=seeds.device)[None, :, None])


def negatives_across(
    seeds: Int[Tensor, " batch"],
    counts: Int[Tensor, " batch"],
    num_positions: int,
    num_negatives: int,
    name: str = "negatives across",
) -> Int[Tensor, "batch position negative"]:
    """For each position `num_negatives` others of the whole batch; indices are `item * num_positions + position`.

    Items are ranked by their seeds, so the order in which they stand in the batch plays no part.
    """
    valid = valid_mask(counts, num_positions)
    order = seeds.argsort(stable=True)
    before = torch.zeros_like(counts)
    before[order] = counts[order].cumsum(0) - counts[order]  # positions of the items that rank earlier
    places = torch.arange(num_positions, device=seeds.device)
    # The flat index of each position, by rank of the item and then by place in it.
    flat = (order[:, None] * num_positions + places)[valid[order]]
    high = (counts.sum() - 1).expand(len(seeds))
    drawn = integers(seeds, name, num_positions * num_negatives, high=high).unflatten(1, (num_positions, num_negatives))
    others = _beside(drawn, (before[:, None] + places)[..., None])
    return flat[others.clamp(max=max(len(flat) - 1, 0))] if len(flat) else torch.zeros_like(others)


def _beside(drawn: Tensor, own: Tensor) -> Tensor:
    """Draws among one fewer than there are, made to leave out one's own place."""
    return drawn + (drawn >= own).to(drawn.dtype)


def contrastive_logits(
    predictions: Float[Tensor, "batch position dim"],
    targets: Float[Tensor, "batch position dim"],
    negatives: Int[Tensor, "batch position negative"],
    *,
    temperature: float = 0.1,
    codes: Int[Tensor, "batch position"] | None = None,
    clusters: Int[Tensor, "batch position"] | None = None,
    cluster_scale: float = 0.3,
) -> Float[Tensor, "batch position logit"]:
    """Cosines of each prediction with its own target (first) and with other targets, over the temperature, float32.

    Negatives across the batch come as one item: flatten batch and positions of all arguments.

    Args:
        predictions: of the positions.
        targets: of the positions.
        negatives: positions whose targets are the wrong answers.
        temperature: divides the cosines (0.1 in wav2vec 2.0).
        codes: what tells targets apart. A negative with the code of the positive is no wrong answer: its logit is −∞.
        clusters: of the targets. Negatives of the positive's cluster are scaled by `cluster_scale` (data2vec-aqc,
            arXiv:2211.01246, section 2.3).
    """
    with torch.autocast(predictions.device.type, enabled=False):
        mine = normalize(predictions.float(), dim=-1, eps=1e-8)
        theirs = normalize(targets.float(), dim=-1, eps=1e-8)
        # All pairs of an item and then a look-up: a third of the memory of gathering hundred vectors a position.
        table = mine @ theirs.transpose(1, 2) / temperature
    positive = table.diagonal(dim1=1, dim2=2)[..., None]
    others = table.gather(2, negatives)
    if clusters is not None:
        others = torch.where(_like_own(clusters, negatives), others * cluster_scale, others)
    if codes is not None:
        others = others.masked_fill(_like_own(codes, negatives), float("-inf"))
    return torch.cat([positive, others], dim=-1)


def _like_own(labels: Tensor, negatives: Tensor) -> Bool[Tensor, "batch position negative"]:
    """Where a negative has the label of the position that it is a negative of."""
    return labels.gather(1, negatives.flatten(1)).view(negatives.shape) == labels[..., None]


def info_nce(logits: Float[Tensor, "batch position logit"], counts: Int[Tensor, " batch"], least: int = 2) -> Loss:
    """Cross-entropy of choosing the first logit (arXiv:1807.03748, equation 4), summed over positions.

    Args:
        logits: the right one first.
        counts: positions of each item; what stands beyond does not matter.
        least: items of fewer positions are left out: there is nothing to choose from.

    Returns:
        a loss over the positions; its parts are "contrastive" and "correct", the number of right choices.
    """
    valid = valid_mask(counts, logits.shape[1]) & (counts >= least)[:, None]
    return _chosen(logits, valid)


def _chosen(logits: Tensor, valid: Tensor) -> Loss:
    # Zeros before the logarithm, not after it: the gradient of what is left out must not be NaN.
    logits = logits.float().masked_fill(~valid[..., None], 0)
    losses = torch.logsumexp(logits, dim=-1) - logits[..., 0]
    total = torch.where(valid, losses, 0).sum()
    correct = (logits[..., 0] > logits[..., 1:].amax(dim=-1)) & valid
    return Loss(total, valid.sum(), {"contrastive": total.detach(), "correct": correct.sum().to(total.dtype)})


# --- steps ahead ----------------------------------------------------------------------------------------------------


def future_mask(lengths: Int[Tensor, " batch"], num_frames: int, num_steps: int, offset: int = 1) -> Tensor:
    """True where frame t of an item has a frame `offset + step` ahead: `Bool (batch, step, frame)`."""
    ahead = torch.arange(offset, offset + num_steps, device=lengths.device)[None, :, None]
    return torch.arange(num_frames, device=lengths.device) + ahead < lengths[:, None, None]


def future_logits(
    predictions: Float[Tensor, "batch step frame dim"],
    targets: Float[Tensor, "batch frame dim"],
    negatives: Int[Tensor, "batch frame negative"],
    offset: int = 1,
) -> Float[Tensor, "batch step frame logit"]:
    """Products of what frame t predicts for `offset + step` frames ahead with the frame there (first) and with others.

    As in wav2vec (arXiv:1904.05862, equation 2) and CPC (arXiv:1807.03748, equation 3), float32.

    Args:
        predictions: of each frame, for each step.
        targets: the frames.
        negatives: for each *target* frame its wrong answers, as `item * num_frames + frame`; the same at every step.
        offset: frames between a prediction and its first target: more than 1 where neighbours share input.
    """
    num_steps, num_frames = predictions.shape[1], targets.shape[1]
    with torch.autocast(targets.device.type, enabled=False):
        targets = targets.float()
        others = targets.flatten(0, 1)[negatives]  # (batch, frame, negative, dim)
        choices = torch.cat([targets[:, :, None], others], dim=2)
        rows = []
        for step in range(num_steps):
            first = min(offset + step, num_frames)
            row = torch.einsum("bfd,bfnd->bfn", predictions[:, step, : num_frames - first].float(), choices[:, first:])
            rows.append(torch.nn.functional.pad(row, (0, 0, 0, first)))
    return torch.stack(rows, dim=1)


def future_info_nce(
    logits: Float[Tensor, "batch step frame logit"], lengths: Int[Tensor, " batch"], offset: int = 1
) -> Loss:
    """InfoNCE over all steps and frames that have a target."""
    return _chosen(logits, future_mask(lengths, logits.shape[2], logits.shape[1], offset))


def future_bce(
    logits: Float[Tensor, "batch step frame logit"], lengths: Int[Tensor, " batch"], offset: int = 1
) -> Loss:
    """wav2vec's loss: each choice by itself is right or wrong (arXiv:1904.05862, equation 2, λ the number of negatives).

    Summed over the choices, and counted by predictions, not by choices: fairseq divides by the number of choices.
    """
    valid = future_mask(lengths, logits.shape[2], logits.shape[1], offset)
    logits = logits.float().masked_fill(~valid[..., None], 0)
    losses = softplus(-logits[..., 0]) + softplus(logits[..., 1:]).sum(dim=-1)
    total = torch.where(valid, losses, 0).sum()
    correct = (logits[..., 0] > logits[..., 1:].amax(dim=-1)) & valid
    return Loss(total, valid.sum(), {"contrastive": total.detach(), "correct": correct.sum().to(total.dtype)})
