"""Being like a teacher: regression to its layers (data2vec), its codes (DINO), its direction (BYOL)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Loss

__all__ = ["byol_loss", "dino_loss", "instance_normalised", "layer_targets", "regression_loss"]


def instance_normalised(
    values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], eps: float = 1e-5
) -> Float[Tensor, "batch frame dim"]:
    """Each channel of each item with mean 0 and variance 1 over its valid frames, float32; zeros in the padding."""
    valid = valid_mask(lengths, values.shape[1])[..., None]
    count = lengths.clamp(min=1)[:, None, None]
    kept = torch.where(valid, values, 0).float()
    centred = torch.where(valid, kept - kept.sum(dim=1, keepdim=True) / count, 0)
    return centred * torch.rsqrt(centred.square().sum(dim=1, keepdim=True) / count + eps)


def layer_targets(
    layers: Sequence[Float[Tensor, "batch frame dim"]], lengths: Int[Tensor, " batch"], top: int
) -> Float[Tensor, "batch frame dim"]:
    """The mean of the last `top` layers, each instance-normalised (data2vec, arXiv:2202.03555, section 3.3).

    Raises:
        ConfigError: there are fewer layers, or they differ in width or frame rate.
    """
    if not 1 <= top <= len(layers):
        raise ConfigError(f"the targets are the mean of {top} layers, and there are {len(layers)}: lower top_layers")
    shapes = sorted({tuple(layer.shape[1:]) for layer in layers[-top:]})
    if len(shapes) > 1:
        some = " and ".join(f"{frames} × {dim}" for frames, dim in shapes)
        raise ConfigError(
            f"the targets are a mean of layers, and the last {top} differ in shape, {some}: lower top_layers"
        )
    normed = [instance_normalised(layer, lengths) for layer in layers[-top:]]
    return torch.stack(normed).mean(dim=0)


def regression_loss(
    predictions: Float[Tensor, "target dim"],
    targets: Float[Tensor, "target dim"],
    kind: str = "mse",
    beta: float = 1.0,
    scale: float | None = None,
) -> Loss:
    """Distance to the teacher's frames, summed over `dim` and targets.

    Args:
        predictions: of the hidden frames.
        targets: the teacher's.
        kind: squared error, or Huber's smooth L1 with its corner at `beta` (data2vec, equation 2).
        beta: see `kind`.
        scale: of the sum over `dim`; 1/√dim where None, as data2vec has it.
    """
    predictions, targets = predictions.float(), targets.detach().float()
    if kind == "mse":
        losses = (predictions - targets).square()
    elif kind == "smooth_l1":
        losses = smooth_l1_loss(predictions, targets, beta=beta, reduction="none")
    else:
        raise ConfigError(f"kind of regression must be mse or smooth_l1, got '{kind}'")
    total = losses.sum() * (predictions.shape[-1] ** -0.5 if scale is None else scale)
    return Loss(total, torch.tensor(float(len(predictions)), device=total.device), {"regression": total.detach()})


def dino_loss(
    student: Float[Tensor, "batch frame code"],
    teacher: Float[Tensor, "batch frame code"],
    center: Float[Tensor, " code"],
    valid: Bool[Tensor, "batch frame"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Loss:
    """Cross-entropy of the student with the teacher's centred and sharpened distribution (DINO, arXiv:2104.14294).

    Args:
        student: its logits.
        teacher: its logits; no gradient goes there.
        center: running mean of the teacher's logits, taken off so that no code wins everywhere.
        valid: frames that count.
        student_temperature: τ_s of equation 1.
        teacher_temperature: τ_t: smaller, so that the teacher is sharper.
    """
    expected = ((teacher.detach().float() - center) / teacher_temperature).softmax(dim=-1)
    log_probs = (student.float() / student_temperature).log_softmax(dim=-1)
    losses = -(expected * log_probs).sum(dim=-1)
    total = torch.where(valid, losses, 0).sum()
    return Loss(total, valid.sum(), {"dino": total.detach()})


def byol_loss(
    predictions: Float[Tensor, "batch frame dim"],
    targets: Float[Tensor, "batch frame dim"],
    valid: Bool[Tensor, "batch frame"],
) -> Loss:
    """2 − 2 cos: the squared distance of unit vectors (BYOL, arXiv:2006.07733, equation 2), summed over valid frames."""
    mine = normalize(predictions.float(), dim=-1, eps=1e-8)
    theirs = normalize(targets.detach().float(), dim=-1, eps=1e-8)
    losses = 2 - 2 * (mine * theirs).sum(dim=-1)
    total = torch.where(valid, losses, 0).sum()
    return Loss(total, valid.sum(), {"byol": total.detach()})
