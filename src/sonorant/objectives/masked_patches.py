"""Masked autoencoders over patches: MAE (arXiv:2111.06377) for sound, as in Audio-MAE (arXiv:2207.06405), MSM-MAE
(arXiv:2204.12260) and Dasheng (arXiv:2406.06992).

Most patches of a spectrogram are hidden. The encoder goes through the visible ones alone, which makes it cheap; a small
decoder gets what came out, a learnt vector in the place of each hidden patch, and positions, and must say what the hidden
patches hold. The loss counts hidden patches only. Which are hidden is a function of each item's seed.

Where we differ: decoders look at the whole item; Audio-MAE's look at windows that move from layer to layer, for a gain of
0.2 to 0.6 points of its classification scores (table 1).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.seed import uniform
from sonorant.core.types import Batch, Features, Loss
from sonorant.encoders.patch import PatchEncoder
from sonorant.nn.masking import frames_at, hidden_first
from sonorant.nn.patches import patch_sinusoids
from sonorant.nn.transformer import TransformerLayer, TransformerStack
from sonorant.objectives.collapse import frame_statistics
from sonorant.objectives.views import seeds_of, takes_spectrum

__all__ = [
    "MaskedPatches", "MaskedPatchesConfig", "PatchDecoder", "audio_mae_objective", "build", "dasheng_objective",
    "msm_mae_objective", "patch_mask",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskedPatchesConfig:
    """How much is hidden, and the decoder; the defaults are MAE's."""

    share: float = 0.75
    """Of the patches, columns or rows that is hidden; one at least, and one at least is left."""
    style: Literal["patches", "columns", "rows"] = "patches"
    """What is hidden together: single patches, all of a stretch of time, or all of a band of frequencies."""
    decoder_dim: int = 512
    """Width of the decoder."""
    decoder_layers: int = 8
    """Its layers."""
    decoder_heads: int = 16
    """Heads of its attention; must divide `decoder_dim`."""
    normalise_targets: bool = True
    """Each patch that is asked for to mean 0 and variance 1."""

    def __post_init__(self) -> None:
        within("share", self.share, 0.01, 0.99)
        one_of("style", self.style, ("patches", "columns", "rows"))
        for name in ("decoder_dim", "decoder_layers", "decoder_heads"):
            at_least(name, getattr(self, name), 1)
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ConfigError(
                f"decoder_heads and 4 must divide decoder_dim, got {self.decoder_heads} and {self.decoder_dim}"
            )


def patch_mask(
    seeds: Int[Tensor, " batch"],
    lengths: Int[Tensor, " batch"],
    num_columns: int,
    num_rows: int,
    share: float,
    style: str = "patches",
) -> Bool[Tensor, "batch column row"]:
    """True where a patch is hidden; never in the padding.

    Args:
        seeds: of the items.
        lengths: columns of the items.
        num_columns: of the padded tensor.
        num_rows: of the grid.
        share: of what is hidden.
        style: "patches", "columns" or "rows".

    >>> mask = patch_mask(torch.tensor([1, 2]), torch.tensor([4, 2]), 4, 5, 0.75)
    >>> mask.flatten(1).sum(1).tolist(), bool(mask[1, 2:].any())
    ([15, 8], False)
    """
    valid = valid_mask(lengths, num_columns)[:, :, None]
    if style == "patches":
        return _hidden(seeds, lengths * num_rows, num_columns * num_rows, share).unflatten(1, (num_columns, num_rows))
    if style == "columns":
        return _hidden(seeds, lengths, num_columns, share)[:, :, None].expand(-1, -1, num_rows)
    return _hidden(seeds, torch.full_like(lengths, num_rows), num_rows, share)[:, None] & valid


def _hidden(seeds: Tensor, counts: Tensor, size: int, share: float) -> Bool[Tensor, "batch place"]:
    """Of `counts` places of each item a share; none where there is but one."""
    beyond = ~valid_mask(counts, size)
    # An item's draws are the first so many of its seed, however long the padded tensor is.
    rank = uniform(seeds, "patches", size).masked_fill(beyond, 2).argsort(dim=1, stable=True).argsort(dim=1)
    hidden = (share * counts).round().long().clamp(min=1)
    return (rank < torch.minimum(hidden, counts - 1)[:, None]) & ~beyond


class PatchDecoder(nn.Module):
    """Visible tokens → what all patches hold.

    Args:
        dim: width of the tokens that come in.
        num_rows: of the grid.
        patch_dim: values of a patch.
        config: width, layers and heads.
    """

    def __init__(self, dim: int, num_rows: int, patch_dim: int, config: MaskedPatchesConfig) -> None:
        super().__init__()
        width = config.decoder_dim
        self.num_rows = num_rows
        self.enter = nn.Linear(dim, width)
        self.mask = nn.Parameter(0.02 * torch.randn(width))
        layers = [TransformerLayer(width, config.decoder_heads, 4 * width, 0.0) for _ in range(config.decoder_layers)]
        self.stack = TransformerStack(layers, width, norm_first=True)
        self.say = nn.Linear(width, patch_dim)

    def forward(
        self, encoded: Features, visible: Bool[Tensor, "batch token"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch token dim"]:
        """The decoder's frames at all places; `say` turns those that are asked for into patches.

        Args:
            encoded: the visible tokens of each item, in order.
            visible: where they stood.
            lengths: tokens of each item, visible or not.
        """
        entered = nn.functional.pad(self.enter(encoded.values), (0, 0, 0, 1))  # so that there is one to look up
        own = frames_at(entered, (visible.cumsum(dim=1) - 1).clamp(min=0))
        values = torch.where(visible[..., None], own, self.mask.to(own.dtype))
        columns = visible.shape[1] // self.num_rows
        places = patch_sinusoids(columns, self.num_rows, values.shape[2], values.device).flatten(0, 1)
        return self.stack(Features(values + places.to(values.dtype), lengths, encoded.frame_rate)).values


class _Answer(NamedTuple):
    """At the hidden patches of a batch, one after another."""

    said: Float[Tensor, "target value"]
    target: Float[Tensor, "target value"]


class MaskedPatches(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms: a spectral front and a `PatchEncoder` whose patches do not overlap
            (`encoders.spectral.OnSpectrum`).
        config: how much is hidden, and the decoder.
    """

    def __init__(self, encoder: nn.Module, config: MaskedPatchesConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = takes_spectrum(encoder, "MaskedPatches")
        inner = self.encoder.encoder
        if not isinstance(inner, PatchEncoder):
            raise ConfigError(f"MaskedPatches trains encoders of patches (encoders.patch), got {type(inner).__name__}")
        if inner.grid.patch != inner.grid.stride:
            raise ConfigError(
                f"patches of {inner.grid.patch} every {inner.grid.stride} overlap, and visible ones would give hidden ones "
                "away: take an encoder with stride=patch"
            )
        if config.style == "rows" and inner.grid.num_rows < 2:
            raise ConfigError("style='rows' hides rows of patches, and the encoder has one; take 'patches'")
        self.decoder = PatchDecoder(inner.config.dim, inner.grid.num_rows, inner.grid.patch_dim, config)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": mean square of a hidden patch's error, summed over the hidden patches}."""
        answer = self._answer(batch)
        total = (answer.said - answer.target).square().mean(dim=1).sum()
        count = torch.tensor(float(len(answer.target)), device=total.device)
        return {"model": Loss(total, count, {"l2": total.detach()})}

    def _answer(self, batch: Batch) -> _Answer:
        inner: PatchEncoder = self.encoder.encoder
        local: Features = self.encoder.local(batch.waveform, batch.lengths)
        num_columns, rows = local.values.shape[1], inner.grid.num_rows
        seeds = seeds_of(batch, "MaskedPatches")
        hidden = patch_mask(seeds, local.lengths, num_columns, rows, self.config.share, self.config.style).flatten(1)
        tokens = inner.tokens(inner.embed(local))
        visible = valid_mask(tokens.lengths, hidden.shape[1]) & ~hidden
        places, counts = hidden_first(visible)
        shown = Features(zero_padding(frames_at(tokens.values, places), counts), counts, tokens.frame_rate)
        decoded = self.decoder(inner.encode_tokens(shown), visible, tokens.lengths)
        target = local.values.detach().unflatten(-1, (rows, -1)).flatten(1, 2)[hidden].float()
        if self.config.normalise_targets:
            target = nn.functional.layer_norm(target, target.shape[-1:])
        return _Answer(self.decoder.say(decoded[hidden]).float(), target)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the encoder's frames; the error, and that of saying the same for every patch."""
        answer = self._answer(batch)
        statistics = frame_statistics(self.encoder(batch.waveform, batch.lengths))
        if len(answer.target) == 0:
            return statistics
        naive = answer.target - answer.target.mean(dim=0)
        return {
            **statistics,
            "l2": float((answer.said - answer.target).square().mean()),
            "l2_naive": float(naive.square().mean()),
        }


def build(encoder: nn.Module, config: MaskedPatchesConfig) -> MaskedPatches:
    """The objective of a configuration, around an encoder."""
    return MaskedPatches(encoder, config)


# --- published ------------------------------------------------------------------------------------------------------


def audio_mae_objective(**changes: Any) -> MaskedPatchesConfig:
    """Audio-MAE: 80 % of the patches, sixteen layers in the decoder (section 4.2)."""
    return replace(MaskedPatchesConfig(share=0.8, decoder_layers=16), **changes)


def msm_mae_objective(**changes: Any) -> MaskedPatchesConfig:
    """MSM-MAE: 75 %, a decoder of four layers of 384 (section 3.1)."""
    return replace(MaskedPatchesConfig(decoder_dim=384, decoder_layers=4, decoder_heads=6), **changes)


def dasheng_objective(**changes: Any) -> MaskedPatchesConfig:
    """Dasheng: 75 % of the patches, each of them 40 ms, a decoder of eight layers of 512 (section 3.2)."""
    return replace(MaskedPatchesConfig(), **changes)
