"""Predicting what a slower copy of oneself makes of the whole item: data2vec's regression and DinoSR's codes.

The teacher hears everything, the student a part; the teacher averages the student's blocks and shares its front end.
Read `Data2Vec` first.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.distill import instance_normalised, layer_targets, regression_loss
from sonorant.losses.masked_units import unit_loss
from sonorant.nn.masking import MaskConfig
from sonorant.nn.quantize.online import OnlineCodebook
from sonorant.nn.quantize.quantizer import FrameSeeds
from sonorant.objectives.collapse import answer_statistics, frame_statistics
from sonorant.objectives.teacher import Teacher, decay_fields, ramp
from sonorant.objectives.views import Hiding, local_features, mean_loss, penalised, seeds_of, takes_waveform

__all__ = [
    "Data2Vec", "Data2VecConfig", "DinoSr", "DinoSrConfig", "check_top_layers", "data2vec_objective", "dinosr_objective",
    "teacher_layers",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Data2VecConfig:
    """data2vec for speech; the defaults are those of arXiv:2202.03555, section 4.2."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Hidden frames (p = 0.065, M = 10: 49 % of frames)."""
    top_layers: int = 8
    """Layers whose mean is the target."""
    decay_start: float = 0.999
    """Share of itself that the teacher keeps at first…"""
    decay_end: float = 0.9999
    """…and at last…"""
    decay_steps: int = 30_000
    """…after so many steps."""
    kind: str = "mse"
    """Of regression: mse, or smooth_l1 with its corner at `beta`."""
    beta: float = 1.0
    """See `kind`."""
    feature_weight: float = 0.0
    """Of the mean square of the front end's output."""
    local_gradient: float = 1.0
    """Scale of the gradient that reaches the front end."""

    def __post_init__(self) -> None:
        at_least("top_layers", self.top_layers, 1)
        decay_fields(self.decay_start, self.decay_end, self.decay_steps)
        one_of("kind", self.kind, ("mse", "smooth_l1"))
        at_least("feature_weight", self.feature_weight, 0)
        within("local_gradient", self.local_gradient, 0, 1)


def check_top_layers(encoder: Any, top_layers: int) -> None:
    """Refuses more target layers than there are."""
    if top_layers > encoder.num_layers:
        raise ConfigError(f"top_layers must be at most the encoder's {encoder.num_layers} layers, got {top_layers}")


class Data2Vec(nn.Module):
    """Regression of the hidden frames to the mean of the teacher's top layers.

    Where we differ: a layer is what comes out of a block; the paper takes its feed-forward before the last residual.

    Args:
        encoder: of waveforms.
        config: masks, teacher, loss.
    """

    def __init__(self, encoder: nn.Module, config: Data2VecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = takes_waveform(encoder, "Data2Vec")
        check_top_layers(encoder, config.top_layers)
        self.hiding = Hiding(config.mask, encoder)
        self.head = nn.Linear(self.encoder.dim, self.encoder.dim)
        self.teacher = Teacher(encoder, averaged=self.encoder.blocks)
        self._decay = ramp(config.decay_start, config.decay_end, config.decay_steps)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": squared distance over √dim, summed over hidden frames}."""
        if self.training:
            self.teacher.follow(self._decay)
        local, context, targets, mask = self._views(batch)
        predictions = self.head(context.values[mask])
        loss = regression_loss(predictions, targets.values[mask], self.config.kind, self.config.beta)
        return {"model": penalised(loss, local, mask.sum(dim=1), self.config.feature_weight)}

    def _views(self, batch: Batch) -> tuple[Features, Features, Features, Tensor]:
        """The front end's frames, the student's, the teacher's targets, and which frames are hidden."""
        seeds = seeds_of(batch, "Data2Vec")
        local = local_features(self.encoder, batch, self.config.local_gradient)
        embedded = self.encoder.embed(local)
        hidden, mask = self.hiding(embedded, seeds)
        with torch.no_grad():
            layers = [layer.values for layer in teacher_layers(self.teacher, embedded)]
            targets = layer_targets(layers, embedded.lengths, self.config.top_layers)
        return local, self.encoder.context(hidden), replace(embedded, values=targets), mask

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames and of the targets."""
        _, context, targets, _ = self._views(batch)
        spread = frame_statistics(targets)
        return {**frame_statistics(context), **{f"target_{name}": value for name, value in spread.items()}}


@torch.no_grad()
def teacher_layers(teacher: Teacher, embedded: Features) -> list[Features]:
    """What comes out of each of the teacher's blocks for frames that are not hidden."""
    seen = replace(embedded, values=embedded.values.detach())
    layers: list[Features] = teacher.module.context(seen, layers=True)[1:]
    return layers


# --- DinoSR ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DinoSrConfig:
    """DinoSR; the defaults are those of arXiv:2305.10005, section 3.1 and the authors' code."""

    mask: MaskConfig = field(default_factory=lambda: MaskConfig(prob=0.8, span=10))
    """Hidden frames (8 % of frames start a span of 10)."""
    top_layers: int = 8
    """Layers of the teacher that are clustered, each by itself."""
    codebook_size: int = 256
    """Codes of each layer."""
    codebook_decay: float = 0.9
    """Share of itself that a code keeps at each batch that it is chosen in."""
    decay_start: float = 0.999
    """Share of itself that the teacher keeps at first…"""
    decay_end: float = 0.9999
    """…and at last…"""
    decay_steps: int = 30_000
    """…after so many steps."""
    freeze_steps: int = 200_000
    """Steps after which the teacher stays as it is; 0 never."""
    feature_weight: float = 0.0
    """Of the mean square of the front end's output."""
    local_gradient: float = 0.1
    """Scale of the gradient that reaches the front end."""

    def __post_init__(self) -> None:
        for name in ("top_layers", "codebook_size"):
            at_least(name, getattr(self, name), 1)
        decay_fields(self.decay_start, self.decay_end, self.decay_steps)
        within("codebook_decay", self.codebook_decay, 0, 1)
        at_least("freeze_steps", self.freeze_steps, 0)
        at_least("feature_weight", self.feature_weight, 0)
        within("local_gradient", self.local_gradient, 0, 1)


class DinoSr(nn.Module):
    """The student's last layer names the codes of the teacher's top layers; codes are clusters that move with the teacher.

    Args:
        encoder: of waveforms.
        config: masks, teacher, codebooks.
    """

    def __init__(self, encoder: nn.Module, config: DinoSrConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = takes_waveform(encoder, "DinoSr")
        check_top_layers(encoder, config.top_layers)
        dim, size = self.encoder.dim, config.codebook_size
        self.hiding = Hiding(config.mask, encoder)
        self.heads = nn.ModuleList(nn.Linear(dim, size) for _ in range(config.top_layers))
        self.codebooks = nn.ModuleList(
            OnlineCodebook(dim, size, config.codebook_decay) for _ in range(config.top_layers)
        )
        self.teacher = Teacher(encoder, averaged=self.encoder.blocks)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": cross-entropy of the codes, a mean over layers, summed over hidden frames}."""
        if self.training:
            self.teacher.follow(self._decay)
        local, context, codes, mask = self._views(batch)
        frames = context.values[mask]
        loss = mean_loss([unit_loss(head(frames), codes[:, i]) for i, head in enumerate(self.heads)])
        return {"model": penalised(loss, local, mask.sum(dim=1), self.config.feature_weight)}

    def _decay(self, step: int) -> float:
        config = self.config
        if config.freeze_steps and step >= config.freeze_steps:
            return 1.0
        return ramp(config.decay_start, config.decay_end, config.decay_steps)(step)

    def _views(self, batch: Batch) -> tuple[Features, Features, Tensor, Tensor]:
        """The front end's frames, the student's, the codes `(target, layer)` of hidden frames, and which are hidden."""
        seeds = seeds_of(batch, "DinoSr")
        local = local_features(self.encoder, batch, self.config.local_gradient)
        embedded = self.encoder.embed(local)
        hidden, mask = self.hiding(embedded, seeds)
        layers = teacher_layers(self.teacher, embedded)[-self.config.top_layers :]
        # Codebooks take frames by themselves and draw nothing; in training they move after they have answered.
        none = FrameSeeds(*[mask.new_zeros(int(mask.sum()), dtype=torch.long)] * 2)
        with torch.no_grad(), torch.autocast(mask.device.type, enabled=False):
            codes = [
                codebook(instance_normalised(layer.values, layer.lengths)[mask], none).ids
                for codebook, layer in zip(self.codebooks, layers, strict=True)
            ]
        return local, self.encoder.context(hidden), torch.cat(codes, dim=1), mask

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames, and of the last layer's codes, predicted and asked for."""
        _, context, codes, mask = self._views(batch)
        predicted, targets = self.heads[-1](context.values[mask]).argmax(dim=-1), codes[:, -1]
        return {**frame_statistics(context), **answer_statistics(predicted, targets, self.config.codebook_size)}


# --- published ------------------------------------------------------------------------------------------------------


def data2vec_objective(**changes: Any) -> Data2VecConfig:
    """data2vec base for speech."""
    return replace(Data2VecConfig(), **changes)


def dinosr_objective(**changes: Any) -> DinoSrConfig:
    """DinoSR base."""
    return replace(DinoSrConfig(), **changes)


def build(encoder: nn.Module, config: Data2VecConfig | DinoSrConfig) -> Data2Vec | DinoSr:
    """The objective of a configuration."""
    return DinoSr(encoder, config) if isinstance(config, DinoSrConfig) else Data2Vec(encoder, config)
