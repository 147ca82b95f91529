"""What an objective shows its encoder: the front end once, then frames of which some are hidden.

Shared by every objective over a waveform encoder; read `Hiding` first.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.feature_penalty import feature_penalty
from sonorant.nn.masking import MaskConfig, MaskEmbedding, channel_mask

__all__ = [
    "Hiding", "add_penalty", "heard", "input_frames", "local_features", "mean_loss", "penalised", "seeds_of",
    "takes_spectrum", "takes_waveform", "valid_frames",
]  # fmt: skip


def takes_waveform(encoder: Any, owner: str) -> Any:
    """`encoder`, if it takes audio as it is in a batch.

    Raises:
        ConfigError: it takes features; the message says how to give it some.
    """
    if encoder.input != "waveform":
        raise ConfigError(
            f"{owner} takes an encoder of waveforms, and {type(encoder).__name__} takes {encoder.input}; wrap it with its "
            "features: sonorant.encoders.spectral.OnSpectrum"
        )
    return encoder


def takes_spectrum(encoder: Any, owner: str) -> Any:
    """`encoder`, if it is an encoder of features (`encoder.encoder`) behind a spectral front (`encoder.front`).

    Raises:
        ConfigError: it lacks one of the parts, or takes no waveforms.
    """
    takes_waveform(encoder, owner)
    missing = [part for part in ("front", "encoder") if not isinstance(getattr(encoder, part, None), nn.Module)]
    if missing:
        raise ConfigError(
            f"{owner} asks for the frames of a spectral front, and {type(encoder).__name__} has no `{missing[0]}`; take "
            "sonorant.encoders.spectral.OnSpectrum over an encoder of features"
        )
    return encoder


def seeds_of(batch: Batch, owner: str) -> Int[Tensor, " batch"]:
    """The seeds of the items, which everything that is drawn comes from.

    Raises:
        ConfigError: the batch has none.
    """
    if batch.seeds is None:
        raise ConfigError(
            f"{owner} draws from batch.seeds, and this batch has none; make them with "
            "sonorant.core.seed.item_seeds(seed, epoch, ids) and pass Batch(..., seeds=...)"
        )
    return batch.seeds.to(batch.waveform.device)


def input_frames(encoder: Any) -> int:
    """How many frames of its spectral front an encoder makes one of.

    Raises:
        ConfigError: no whole number.
    """
    ratio = encoder.front.frame_rate / encoder.frame_rate
    factor = round(ratio)
    if factor < 1 or abs(ratio - factor) > 1e-6:
        raise ConfigError(
            f"the encoder's frames ({encoder.frame_rate:g} a second) must be whole stacks of the front's "
            f"({encoder.front.frame_rate:g} a second)"
        )
    return factor


def heard(batch: Batch, change: Callable[[Batch], Batch] | None, owner: str) -> Batch:
    """What the encoder hears where audio is changed for it: an augmentation, a mix, a distortion; the batch where None.

    Raises:
        ConfigError: the change alters lengths, so that frames and targets part.
    """
    changed = batch if change is None else change(batch)
    if changed is not batch and not torch.equal(changed.lengths, batch.lengths):
        raise ConfigError(
            f"{owner} compares frame with frame, and what changes its audio changes the lengths of items: take out speed, "
            "tempo and tails"
        )
    return changed


def local_features(encoder: Any, batch: Batch, gradient: float = 1.0) -> Features:
    """The front end's frames, with the gradient that flows back into it scaled (wav2vec 2.0: 0.1)."""
    local: Features = encoder.local(batch.waveform, batch.lengths)
    if gradient == 1.0:
        return local
    scaled = local.values * gradient + (local.values * (1 - gradient)).detach()
    return replace(local, values=scaled)


class Hiding(nn.Module):
    """Draws which frames are hidden and puts something else in their place.

    Args:
        config: how much is hidden.
        encoder: whose blocks see the frames. They are as wide as those that come out, unless an encoder whose blocks differ
            in width says by its `embed_dim` how wide the first is.
    """

    def __init__(self, config: MaskConfig, encoder: Any) -> None:
        super().__init__()
        self.config, self.dim = config, int(getattr(encoder, "embed_dim", encoder.dim))
        self.embedding = MaskEmbedding(self.dim)

    def forward(self, embedded: Features, seeds: Int[Tensor, " batch"]) -> tuple[Features, Bool[Tensor, "batch frame"]]:
        """The frames as the blocks see them, and which of them are hidden."""
        mask = self.config.draw(seeds, embedded.lengths, embedded.values.shape[1])
        values = self.embedding(embedded.values, mask, seeds)
        if self.config.channel_prob:
            channels = channel_mask(seeds, self.dim, prob=self.config.channel_prob, span=self.config.channel_span)
            values = values.masked_fill(channels[:, None], 0)
        return replace(embedded, values=values), mask


def add_penalty(loss: Loss, name: str, total: Float[Tensor, ""]) -> Loss:
    """A loss with something added to its sum, noted in its parts."""
    return Loss(loss.total + total, loss.count, {**loss.parts, name: total.detach()})


def mean_loss(losses: Sequence[Loss]) -> Loss:
    """The mean of several losses over the same targets, and of their parts."""
    summed, share = sum(losses[1:], losses[0]), 1 / len(losses)
    return Loss(summed.total * share, losses[0].count, {name: part * share for name, part in summed.parts.items()})


def penalised(
    loss: Loss, local: Features, counts: Float[Tensor, " batch"] | Int[Tensor, " batch"], weight: float
) -> Loss:
    """Adds the mean square of each item's features, times its number of targets, so that a batch is the sum of its items."""
    if weight == 0:
        return loss
    squares = feature_penalty(local.values, local.lengths)
    return add_penalty(loss, "features", weight * (squares * counts).sum())


def valid_frames(features: Features) -> Bool[Tensor, "batch frame"]:
    """True where there is signal."""
    return valid_mask(features.lengths, features.values.shape[1])
