"""Clipping: what a recorder does to a level that was set too high."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.augment.draws import check_range, per_item
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.core.config import within
from sonorant.core.types import Batch

__all__ = ["Clip", "clip"]


def clip(
    waveform: Float[Tensor, "batch *channel time"], share: Float[Tensor, " batch"], *, soft: bool = False
) -> Float[Tensor, "batch *channel time"]:
    """Limits each item to `share` of its own peak; `soft` bends into the limit with tanh instead of cutting at it.

    >>> clip(torch.tensor([[0.2, -1.0, 0.6]]), torch.tensor([0.5]))
    tensor([[ 0.2000, -0.5000,  0.5000]])
    """
    peak = waveform.detach().flatten(1).abs().amax(dim=1)
    limit = per_item(peak.clamp(min=1e-20) * share.to(peak), waveform)
    return limit * torch.tanh(waveform / limit) if soft else waveform.clamp(-limit, limit)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Cuts each item off at a drawn share of its peak."""

    share: tuple[float, float] = (0.1, 0.7)
    """Range of the limit as a share of the item's peak."""
    soft: bool = False
    """Bend into the limit, as analogue gear does."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Clip.prob", self.prob, 0, 1)
        check_range("Clip.share", self.share, 1e-3, 1)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/clip", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        return Change(clip(items.waveform, items.draws.uniform("share", *self.share), soft=self.soft))
