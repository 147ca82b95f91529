"""Saying what the frames of log-mel were: those to come, those hidden from view, those that were altered.

One objective with other settings is APC (arXiv:1904.03240: the frame some steps ahead), VQ-APC (arXiv:2005.08392: through
a quantiser after one layer), NPC (arXiv:2011.00406: each frame, by an encoder that does not see it), Mockingjay
(arXiv:1910.12638) and TERA (arXiv:2007.06028: altered frames and bands), and masked reconstruction in the manner of
arXiv:2203.16691. It takes an encoder of waveforms that is an encoder of features behind a spectral front, such as
`encoders.spectral.OnSpectrum`: what the front makes is both what the encoder sees and what it must say.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.types import Batch, Features, Loss
from sonorant.nn.alteration import Alteration
from sonorant.nn.quantize.gumbel import GumbelCodebook
from sonorant.nn.quantize.product import Product
from sonorant.nn.quantize.quantizer import Quantizer
from sonorant.objectives.collapse import frame_statistics
from sonorant.objectives.views import input_frames, seeds_of, takes_spectrum

__all__ = [
    "Reconstruction", "ReconstructionConfig", "apc_objective", "build", "mae_objective", "mockingjay_objective",
    "npc_objective", "stacked_targets", "tera_objective", "vq_apc_objective",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What is asked for; the defaults ask for each frame as it is (NPC)."""

    shift: int = 0
    """Frames from the last one seen to the first one asked for; 0: the frame itself."""
    alter: Alteration | None = None
    """How what the encoder sees is altered; only what was altered is asked for then."""
    distance: str = "l1"
    """l1: absolute difference; l2: its square."""
    head_layers: int = 1
    """1: a linear layer; 2: one with GELU and norm before it (Mockingjay, TERA)."""
    normalise_targets: bool = False
    """Each frame that is asked for to mean 0 and variance 1 over its bands (MAE)."""
    quantize_after: int = -1
    """Where a quantiser stands, if there is one: after this block, from 1; -1: after the last."""
    num_codes: int = 0
    """Codes of each group of a Gumbel quantiser; 0: there is none."""
    num_groups: int = 1
    """Equal parts that the frames are cut into, each with its codes."""
    temperature: float = 1.0
    """Of the quantiser's softmax."""
    diversity: float = 0.0
    """Weight of the penalty for codes that are not used (not in the papers)."""

    def __post_init__(self) -> None:
        at_least("shift", self.shift, 0)
        one_of("distance", self.distance, ("l1", "l2"))
        for name, low in (("num_codes", 0), ("num_groups", 1), ("temperature", 1e-6), ("diversity", 0)):
            at_least(name, getattr(self, name), low)
        if self.head_layers not in (1, 2):
            raise ConfigError(f"head_layers must be 1 or 2, got {self.head_layers}")
        if self.quantize_after == 0 or self.quantize_after < -1:
            raise ConfigError(f"quantize_after counts blocks from 1, or is -1 for the last, got {self.quantize_after}")
        if self.alter is not None and self.shift:
            raise ConfigError(f"alter restores frames in their place and shift must be 0 then, got shift={self.shift}")


def stacked_targets(
    values: Float[Tensor, "batch frame dim"] | Bool[Tensor, "batch frame dim"], num_frames: int, factor: int, shift: int
) -> Tensor:
    """For each of `num_frames` frames that span `factor` input frames the input frames `shift` later, side by side.

    With `shift` n > 0 the first is n frames after the last of the span; with 0 it is the span itself. Beyond the end stand
    zeros.

    >>> values = torch.arange(1.0, 8)[None, :, None]
    >>> stacked_targets(values, 3, 2, 1)[0].tolist()
    [[3.0, 4.0], [5.0, 6.0], [7.0, 0.0]]
    """
    first = shift + factor - 1 if shift else 0
    moved = values[:, first:]
    missing = num_frames * factor - moved.shape[1]
    if missing > 0:
        moved = nn.functional.pad(moved, (0, 0, 0, missing))
    return moved[:, : num_frames * factor].unflatten(1, (num_frames, factor)).flatten(2)


class _Heard(NamedTuple):
    """What the encoder sees, what it must say, and which values of that count."""

    seen: Features
    target: Features
    asked: Bool[Tensor, "batch frame dim"]
    seeds: Int[Tensor, " batch"] | None


class _Answer(NamedTuple):
    """What came out of the encoder, through the quantiser if there is one, and what that makes of it."""

    frames: Features
    penalty: Tensor | float
    usage: dict[str, float]


class Reconstruction(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms, with its parts `front (waveform, lengths) -> Features` and `encoder`. For a shift it must look
            back only, for frames in their place unaltered it must not see them.
        config: what is asked for.
        quantizer: in place of the one that the configuration asks for; takes and gives frames as wide as the encoder's. Its
            draws come from the batch's seeds, where it has some.
    """

    def __init__(self, encoder: nn.Module, config: ReconstructionConfig, quantizer: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder: Any = takes_spectrum(encoder, "Reconstruction")
        self.config = config
        inner, dim = self.encoder.encoder, self.encoder.dim
        through: Any = _gumbel(dim, config) if quantizer is None and config.num_codes else quantizer
        self.quantizer = through
        if config.quantize_after > inner.num_layers:
            raise ConfigError(
                f"quantize_after={config.quantize_after} names a block that the encoder of {inner.num_layers} lacks"
            )
        widths = (dim, dim) if through is None else (through.dim, through.output_dim)
        if widths != (dim, dim):
            raise ConfigError(f"the quantiser must take and give frames {dim} wide, as the encoder's, got {widths}")
        self.factor = input_frames(self.encoder)
        before = [] if config.head_layers == 1 else [nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim)]
        self.head = nn.Sequential(*before, nn.Linear(dim, self.factor * self.encoder.front.dim))

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": distance of what was said from what was, mean over the bands, summed over the frames asked for}."""
        heard = self._heard(batch)
        loss, _ = self._loss(heard)
        return {"model": loss}

    def _heard(self, batch: Batch) -> _Heard:
        with torch.no_grad():
            target: Features = self.encoder.front(batch.waveform, batch.lengths)
            valid = valid_mask(target.lengths, target.values.shape[1])[..., None].expand_as(target.values)
            if self.config.alter is None:
                seeds = None if batch.seeds is None else batch.seeds.to(target.values.device)
                return _Heard(target, self._normalised(target), valid, seeds)
            seeds = seeds_of(batch, "Reconstruction")
            values, asked = self.config.alter(target.values, target.lengths, seeds)
            return _Heard(replace(target, values=values), self._normalised(target), asked, seeds)

    def _normalised(self, target: Features) -> Features:
        if not self.config.normalise_targets:
            return target
        values = nn.functional.layer_norm(target.values, target.values.shape[-1:])
        return replace(target, values=zero_padding(values, target.lengths))

    def _loss(self, heard: _Heard) -> tuple[Loss, _Answer]:
        answer = self._answer(heard.seen, heard.seeds)
        said = self.head(answer.frames.values)
        target, asked = self._asked(heard, answer.frames)
        total, cells = self._distance(said, target, asked)
        count = cells / heard.target.values.shape[-1]
        parts = {self.config.distance: total.detach()}
        if self.quantizer is not None:
            penalty = answer.penalty * count
            total, parts["penalty"] = total + penalty, torch.as_tensor(penalty).detach()
        return Loss(total, count, parts), answer

    def _asked(self, heard: _Heard, frames: Features) -> tuple[Tensor, Tensor]:
        """Targets, and which of their values count, for each frame that came out."""
        sizes = (frames.values.shape[1], self.factor, self.config.shift)
        inside = valid_mask(frames.lengths, frames.values.shape[1])[..., None]
        return stacked_targets(heard.target.values, *sizes), stacked_targets(heard.asked, *sizes) & inside

    def _distance(self, said: Tensor, target: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the values asked for, over the number of bands; and how many values there are."""
        difference = torch.where(asked, said.float() - target, 0)
        distances = difference.abs() if self.config.distance == "l1" else difference.square()
        return distances.sum() / self.encoder.front.dim, asked.sum().to(distances.dtype)

    def _answer(self, seen: Features, seeds: Tensor | None = None) -> _Answer:
        inner, after, made = self.encoder.encoder, self.config.quantize_after, []

        def quantised(features: Features) -> Features:
            result = self.quantizer(features.values, features.lengths, seeds)
            made.append(result)
            return replace(features, values=zero_padding(result.values, features.lengths))

        def between(block: int, features: Features) -> Features:
            return quantised(features) if block == after else features

        embedded = inner.embed(inner.local(seen.values, seen.lengths))
        if self.quantizer is None:
            return _Answer(inner.context(embedded), 0.0, {})
        if after in (-1, inner.num_layers):
            frames = quantised(inner.context(embedded))
        else:
            frames = inner.context(embedded, between=between)
        return _Answer(frames, made[0].penalty, _usage(made[0].usage))

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the encoder's frames; the distance, and that of having said what one would without learning: the frame
        seen last, the altered frame as it is, or, where nothing is seen of it, the mean (0)."""
        heard = self._heard(batch)
        loss, answer = self._loss(heard)
        target, asked = self._asked(heard, answer.frames)
        if self.config.alter is not None:
            naive = stacked_targets(heard.seen.values, answer.frames.values.shape[1], self.factor, 0)
        elif self.config.shift:
            last = heard.seen.values[:, self.factor - 1 :: self.factor]
            naive = last[:, : target.shape[1]].repeat(1, 1, self.factor)
            naive = nn.functional.pad(naive, (0, 0, 0, target.shape[1] - naive.shape[1]))
        else:
            naive = torch.zeros_like(target)
        copied, cells = self._distance(naive, target, asked)
        count = (cells / self.encoder.front.dim).clamp(min=1)
        encoded = self.encoder(batch.waveform, batch.lengths)
        distance = float(loss.parts[self.config.distance] / count)
        return {
            **frame_statistics(encoded),
            **answer.usage,
            self.config.distance: distance,
            f"{self.config.distance}_naive": float(copied / count),
        }


def _gumbel(dim: int, config: ReconstructionConfig) -> Quantizer:
    """Groups of codes over equal parts of a frame, as in VQ-APC and NPC."""
    if dim % config.num_groups:
        raise ConfigError(f"num_groups must divide the encoder's width, got {config.num_groups} and {dim}")
    width = dim // config.num_groups
    groups = [GumbelCodebook(width, config.num_codes, 1, diversity=config.diversity) for _ in range(config.num_groups)]
    bound = config.num_codes**-0.5
    for group in groups:
        group.temperature = config.temperature
        # As the authors begin: logits near 0, so that all codes are drawn at first, and entries around 0.
        group.logits[-1].reset_parameters()  # type: ignore[operator]
        nn.init.uniform_(group.entries, -bound, bound)
    return Quantizer(Product(groups))


def _usage(perplexities: Float[Tensor, " codebook"] | tuple[float, ...]) -> dict[str, float]:
    """As `train.doctor` knows them."""
    return {f"code{index or ''}_perplexity": float(value) for index, value in enumerate(perplexities)}


# --- published ------------------------------------------------------------------------------------------------------


def apc_objective(shift: int = 3, **changes: Any) -> ReconstructionConfig:
    """APC: the frame `shift` steps ahead of a network that looks back only (3 for phones, more for speakers)."""
    return ReconstructionConfig(**{"shift": shift, **changes})


def vq_apc_objective(shift: int = 5, quantize_after: int = -1, **changes: Any) -> ReconstructionConfig:
    """VQ-APC: through 512 codes after the last layer."""
    codes: dict[str, Any] = {"quantize_after": quantize_after, "num_codes": 512, "temperature": 0.5}
    return apc_objective(shift, **{**codes, **changes})


def npc_objective(**changes: Any) -> ReconstructionConfig:
    """NPC: each frame, by an encoder that is blind to it, through 4 groups of 64 codes (section 3.1)."""
    return ReconstructionConfig(**{"num_codes": 64, "num_groups": 4, **changes})


def mockingjay_objective(span: int = 7, **changes: Any) -> ReconstructionConfig:
    """Mockingjay: 15 % of the frames in spans, zeroed, replaced or kept (section 2.2)."""
    alter = Alteration(span=span, band_share=0.0, noise_prob=0.0)
    return ReconstructionConfig(**{"alter": alter, "head_layers": 2, **changes})


def tera_objective(**changes: Any) -> ReconstructionConfig:
    """TERA: time, frequency and magnitude (section II)."""
    return ReconstructionConfig(**{"alter": Alteration(), "head_layers": 2, **changes})


def mae_objective(share: float = 0.75, span: int = 8, **changes: Any) -> ReconstructionConfig:
    """Masked reconstruction: most of the frames hidden, their normalised bands asked for, squared differences."""
    alter = Alteration(time_share=share, span=span, zero_prob=1.0, swap_prob=0.0, band_share=0.0, noise_prob=0.0)
    fields = {"alter": alter, "distance": "l2", "normalise_targets": True, "head_layers": 2}
    return ReconstructionConfig(**{**fields, **changes})


def build(encoder: nn.Module, config: ReconstructionConfig, quantizer: nn.Module | None = None) -> Reconstruction:
    """The objective of a configuration."""
    return Reconstruction(encoder, config, quantizer)
