"""Predicting what a slower copy of oneself makes of the whole item: data2vec's regression and DinoSR's codes.

The teacher hears everything, the student a part; the teacher averages the student's blocks and shares its front end.
Read `Data2Vec` first.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.distill import layer_targets, regression_loss
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.collapse import frame_statistics
from sonorant.objectives.teacher import Teacher, decay_fields, ramp
from sonorant.objectives.views import Hiding, local_features, penalised, seeds_of, takes_waveform

__all__ = ["Data2Vec", "Data2VecConfig"]


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
        self.hiding = Hiding(config.mask, self.encoder.dim)
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
        targets = teacher_targets(self.teacher, embedded, self.config.top_layers)
        return local, self.encoder.context(hidden), targets, mask

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames and of the targets."""
        _, context, targets, _ = self._views(batch)
        spread = frame_statistics(targets)
        return {**frame_statistics(context), **{f"target_{name}": value for name, value in spread.items()}}


@torch.no_grad()
def teacher_targets(teacher: Teacher, embedded: Features, top_layers: int) -> Features:
    """The mean of the teacher's last layers, each instance-normalised, for frames that are not hidden."""
    seen = Features(embedded.values.detach(), embedded.lengths, embedded.frame_rate)
    layers = teacher.module.context(seen, layers=True)[1:]
    values = layer_targets([layer.values for layer in layers], embedded.lengths, top_layers)
    return Features(values, embedded.lengths, embedded.frame_rate)
