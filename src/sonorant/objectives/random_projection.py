"""BEST-RQ (arXiv:2202.01855) and NEST (arXiv:2408.13106): hidden input frames are to be named by a random projection's codes.

Here the input features are hidden, before the encoder thins them out. Codes are made on the fly from the clean features,
as many side by side as the encoder makes one frame of; an encoder frame is asked for where most of its input was hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Codes, Features, Loss
from sonorant.losses.distill import instance_normalised
from sonorant.losses.masked_units import unit_loss
from sonorant.nn.masking import MaskConfig, MaskEmbedding
from sonorant.nn.quantize.random_projection import RandomProjection
from sonorant.objectives.collapse import answer_statistics, frame_statistics
from sonorant.objectives.masked_prediction import UnitHead, UnitPredictor
from sonorant.objectives.views import heard, input_frames, mean_loss, seeds_of, takes_spectrum

__all__ = ["BestRq", "BestRqConfig", "best_rq_objective", "nest_objective"]


@dataclass(frozen=True, kw_only=True)
class BestRqConfig:
    """BEST-RQ; the defaults are those of arXiv:2202.01855, section 4.1."""

    mask: MaskConfig = field(default_factory=lambda: MaskConfig(prob=0.01, span=40, style="bernoulli", min_masks=1))
    """Hidden input frames (1 % start a span of 400 ms)."""
    noise: float = 0.1
    """Standard deviation of what stands in for hidden frames; 0 learns a vector."""
    codebook_size: int = 8192
    """Codes of each codebook."""
    code_dim: int = 16
    """Width of the projection."""
    num_codebooks: int = 1
    """Codebooks, each with a projection and a head of its own."""
    hidden_share: float = 0.8
    """Share of its input that must be hidden where a frame is asked for (NEST, section 3.2)."""
    item_norm: bool = True
    """Targets are normalised by each item's own mean and variance, on top of the front's statistics: without any
    normalisation few codes are used (section 3.1)."""
    seed: int = 0
    """Of projections and codebooks."""

    def __post_init__(self) -> None:
        at_least("noise", self.noise, 0)
        for name in ("codebook_size", "code_dim", "num_codebooks"):
            at_least(name, getattr(self, name), 1)
        within("hidden_share", self.hidden_share, 0, 1)


class BestRq(nn.Module):
    """See the module's docstring.

    Args:
        encoder: `encoders.spectral.OnSpectrum`: `encoder.front(waveform, lengths)` are the features that are hidden, and
            `encoder.encoder` takes them.
        config: masks and codes.
        mix: changes the audio that the encoder hears; codes are those of the clean audio (NEST: another talker or noise
            over half of the item).
    """

    def __init__(self, encoder: nn.Module, config: BestRqConfig, mix: Callable[[Batch], Batch] | None = None) -> None:
        super().__init__()
        self.config, self.mix = config, mix
        self.encoder: Any = takes_spectrum(encoder, "BestRq")
        width = int(self.encoder.front.dim)
        self.factor = input_frames(self.encoder)
        self.hide = MaskEmbedding(width, config.noise)
        self.quantizer = RandomProjection(
            width * self.factor, config.codebook_size, config.code_dim, config.num_codebooks, config.seed
        )
        head = UnitHead(num_units=config.codebook_size, kind="linear", temperature=1.0)
        self.heads = nn.ModuleList(UnitPredictor(self.encoder.dim, head) for _ in range(config.num_codebooks))

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": cross-entropy of the codes, a mean over codebooks, summed over hidden frames}."""
        context, codes, asked = self._asked(batch)
        frames, targets = context.values[asked], codes[asked]
        results = [unit_loss(head(frames), targets[:, index]) for index, head in enumerate(self.heads)]
        return {"model": mean_loss(results)}

    def _asked(self, batch: Batch) -> tuple[Features, Int[Tensor, "batch frame codebook"], Bool[Tensor, "batch frame"]]:
        """The encoder's frames, the code of each, and which are asked for."""
        seeds = seeds_of(batch, "BestRq")
        clean = self._features(batch)
        mixed = clean if self.mix is None else self._features(heard(batch, self.mix, "BestRq"))
        mask = self.config.mask.draw(seeds, mixed.lengths, mixed.values.shape[1])
        hidden = self.hide(mixed.values, mask, seeds)
        context: Features = self.encoder.encoder(
            hidden.to(next(self.encoder.encoder.parameters()).dtype), mixed.lengths
        )
        codes, lengths = self._codes(clean)
        num_frames = min(context.values.shape[1], codes.shape[1])
        share = _stacked(mask.float(), self.factor).mean(dim=2)[:, :num_frames]
        inside = valid_mask(torch.minimum(lengths, context.lengths), num_frames)
        asked = inside & (share >= self.config.hidden_share - 1e-6)
        return replace(context, values=context.values[:, :num_frames]), codes[:, :num_frames], asked

    def codes(self, batch: Batch) -> Codes:
        """What would be asked for at each frame, whether or not it is hidden; a frame is what the encoder makes one of."""
        ids, lengths = self._codes(self._features(batch))
        return Codes(ids.mT, lengths, float(self.encoder.frame_rate), self.quantizer.codebook_sizes)

    def _features(self, batch: Batch) -> Features:
        features: Features = self.encoder.front(batch.waveform, batch.lengths)
        return features

    @torch.no_grad()
    def _codes(self, clean: Features) -> tuple[Int[Tensor, "batch frame codebook"], Int[Tensor, " batch"]]:
        """The codes of neighbouring clean frames side by side, and how many each item has."""
        values = instance_normalised(clean.values, clean.lengths) if self.config.item_norm else clean.values.float()
        with torch.autocast(values.device.type, enabled=False):
            stacked = _stacked(values, self.factor).flatten(2)
            codes = self.quantizer.ids(stacked.flatten(0, 1))
        return codes.unflatten(0, stacked.shape[:2]), clean.lengths // self.factor

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames, and of codes predicted and asked for."""
        context, codes, asked = self._asked(batch)
        predicted, targets = self.heads[0](context.values[asked]).argmax(dim=-1), codes[asked][:, 0]
        return {
            **frame_statistics(replace(context, lengths=context.lengths.clamp(max=context.values.shape[1]))),
            **answer_statistics(predicted, targets, self.config.codebook_size),
        }


def _stacked(values: Float[Tensor, "batch frame *dim"], factor: int) -> Float[Tensor, "batch stack factor *dim"]:
    """Each `factor` neighbouring frames on an axis of their own; what is left at the end is dropped."""
    whole = values.shape[1] // factor
    return values[:, : whole * factor].unflatten(1, (whole, factor))


# --- published ------------------------------------------------------------------------------------------------------


def best_rq_objective(**changes: Any) -> BestRqConfig:
    """BEST-RQ on a Conformer that thins out by four."""
    return replace(BestRqConfig(), **changes)


def nest_objective(**changes: Any) -> BestRqConfig:
    """NEST on a Fast Conformer that thins out by eight; give `BestRq` a `mix`."""
    return best_rq_objective(**changes)


def build(encoder: nn.Module, config: BestRqConfig, mix: Callable[[Batch], Batch] | None = None) -> BestRq:
    """The objective of a configuration."""
    return BestRq(encoder, config, mix)
