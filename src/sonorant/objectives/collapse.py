"""Signs that a representation has collapsed: what objectives' `diagnose` measures and `train.doctor` judges.

Self-supervised losses can be made small by saying nothing: all frames alike, one code for everything, a code that knows
the item but not the time. Every figure here is free of scale, so that one threshold serves all models.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.lengths import valid_mask
from sonorant.core.types import Features, Loss
from sonorant.nn.quantize.quantizer import code_counts, perplexity

__all__ = ["answer_statistics", "choice_statistics", "contrast_statistics", "effective_rank", "frame_statistics"]

_MOST_FRAMES = 2048


def effective_rank(frames: Float[Tensor, "row dim"]) -> float:
    """exp of the entropy of the shares of the singular values of the centred frames: how many directions are in use.

    Roy and Vetterli, EUSIPCO 2007. Between 1 and the smaller of rows and dim; 0 where all frames are equal, nan where one
    is not finite.

    >>> round(effective_rank(torch.eye(3).repeat(2, 1)), 3)
    2.0
    """
    centred = (frames - frames.mean(dim=0)).double()
    if len(frames) < 2:
        return 0.0
    if not bool(frames.isfinite().all()):
        return float("nan")
    # The smaller of the two Gram matrices has the same values other than 0.
    gram = centred @ centred.t() if len(centred) < centred.shape[1] else centred.t() @ centred
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    # Rounding leaves a little in directions that hold nothing.
    values = torch.where(values > 1e-6 * values.max(), values, 0)
    if not float(values.sum()) > 1e-9 * float(frames.double().norm()):
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def frame_statistics(features: Features) -> dict[str, float]:
    """How much frames differ.

    Returns:
        "frame_variation": variance of frames about their item's mean over their mean square, in [0, 1];
        "item_variation": the same of the items' means about the mean of all;
        "effective_rank" of the valid frames. All are nan where a valid frame is not finite.
    """
    values = features.values.detach().float()
    valid = valid_mask(features.lengths, values.shape[1])
    if not bool(valid.any()):
        return {}
    kept = torch.where(valid[..., None], values, 0)
    counts = features.lengths.clamp(min=1)[:, None]
    means = kept.sum(dim=1) / counts
    total = kept.square().sum()
    centred = torch.where(valid[..., None], values - means[:, None], 0)
    whole = kept.sum(dim=(0, 1)) / valid.sum()
    between = ((means - whole).square() * features.lengths[:, None]).sum()
    frames = values[valid]
    return {
        "frame_variation": _share(centred.square().sum(), total),
        "item_variation": _share(between, total),
        "effective_rank": effective_rank(frames[:: max(1, len(frames) // _MOST_FRAMES)]),
    }


def _share(part: Tensor, whole: Tensor) -> float:
    return 0.0 if float(whole) == 0 else float(part) / float(whole)


def choice_statistics(name: str, ids: Int[Tensor, "*shape"], num_codes: int) -> dict[str, float]:
    """The number of codes in equal use, as `<name>_perplexity`; nothing where nothing was chosen."""
    return {f"{name}_perplexity": float(perplexity(code_counts(ids.flatten(), num_codes)))} if ids.numel() else {}


def answer_statistics(
    predicted: Int[Tensor, " target"], targets: Int[Tensor, " target"], num_codes: int
) -> dict[str, float]:
    """Codes in equal use among the answers and among what was asked for, and the share of right answers, as `accuracy`."""
    return {
        **choice_statistics("predicted", predicted, num_codes),
        **choice_statistics("target", targets, num_codes),
        "accuracy": float((predicted == targets).float().mean()) if len(targets) else 0.0,
    }


def contrast_statistics(loss: Loss, num_choices: int) -> dict[str, float]:
    """Share of right choices among `num_choices` in a contrastive loss, and what guessing would give."""
    accuracy = float(loss.parts["correct"]) / max(float(loss.count), 1.0)
    return {"contrastive_accuracy": accuracy, "contrastive_chance": 1 / num_choices}
