"""Volume: a gain in dB drawn for each item."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sonorant.audio.augment.draws import check_range, per_item
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.core.config import within
from sonorant.core.types import Batch

__all__ = ["Volume", "change_volume"]


def change_volume(
    waveform: Float[Tensor, "batch *channel time"], gain_db: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *channel time"]:
    """The waveform times 10 ** (gain_db / 20).

    >>> import torch
    >>> change_volume(torch.ones(1, 2), torch.tensor([-20.0]))
    tensor([[0.1000, 0.1000]])
    """
    return waveform * per_item(10 ** (gain_db / 20), waveform)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Makes each item louder or softer. Nothing is limited to [-1, 1]: follow it with `Clip` where a recorder would clip."""

    gain_db: tuple[float, float] = (-12.0, 6.0)
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Volume.prob", self.prob, 0, 1)
        check_range("Volume.gain_db", self.gain_db)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/volume", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        return Change(change_volume(items.waveform, items.draws.uniform("gain_db", *self.gain_db)))
