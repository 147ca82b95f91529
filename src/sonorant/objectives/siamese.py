"""Two views of one item must say the same at each frame: BYOL and DINO, frame by frame.

The student hears a changed copy (another pitch, noise, hidden frames), the teacher, a moving average of the student, the item
itself; whatever was changed is thereby left out of the representation. BYOL (arXiv:2006.07733) as in speaker-disentangled
HuBERT (arXiv:2409.10103), DINO (arXiv:2104.14294).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.distill import byol_loss, dino_loss
from sonorant.nn.masking import MaskConfig
from sonorant.nn.norm import NORMS, build_norm
from sonorant.nn.quantize.lloyd import sum_over_processes
from sonorant.objectives.collapse import choice_statistics, frame_statistics
from sonorant.objectives.teacher import Teacher, decay_fields, ramp
from sonorant.objectives.views import Hiding, heard, seeds_of, takes_waveform, valid_frames

__all__ = ["Byol", "ByolConfig", "Dino", "DinoConfig", "byol_objective", "dino_objective"]

Augment = Callable[[Batch], Batch]
"""Changes audio by the batch's seeds and keeps lengths: an augmentation, or a chain of them."""


class _Mlp(nn.Module):
    """Linear, norm, ReLU, linear."""

    def __init__(self, input_dim: int, hidden_dim: int, dim: int, norm: str) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(input_dim, hidden_dim), build_norm(norm, hidden_dim)
        self.last = nn.Linear(hidden_dim, dim)

    def forward(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Tensor:
        return self.last(self.norm(self.first(values), lengths).relu())


class _Branch(nn.Module):
    """An encoder, one of its layers, and a head: what the teacher is a moving average of."""

    def __init__(self, encoder: Any, layer: int, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        if not -1 <= layer <= self.encoder.num_layers:
            raise ConfigError(
                f"layer must be 0 to the encoder's {self.encoder.num_layers}, or -1 for the last, got {layer}"
            )
        self.layer, self.head = layer, head

    def frames(self, batch: Batch, hide: Callable[[Features], Features] | None = None) -> Features:
        embedded = self.encoder.embed(self.encoder.local(batch.waveform, batch.lengths))
        frames: Features = self.encoder.context(embedded if hide is None else hide(embedded), layers=True)[self.layer]
        return frames


# --- BYOL -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ByolConfig:
    """Frame-level BYOL; the defaults are those of speaker-disentangled HuBERT."""

    hidden_dim: int = 2048
    """Inner width of projector and predictor."""
    dim: int = 256
    """Width in which frames are compared."""
    norm: str = "batch"
    """Inside both: batch (the paper's, over valid frames), layer (an item does not depend on its batch), …"""
    layer: int = -1
    """Compared layer; -1 the last."""
    decay_start: float = 0.999
    """Share of itself that the teacher keeps at first…"""
    decay_end: float = 0.999
    """…and at last…"""
    decay_steps: int = 0
    """…after so many steps."""

    def __post_init__(self) -> None:
        at_least("hidden_dim", self.hidden_dim, 1)
        at_least("dim", self.dim, 1)
        one_of("norm", self.norm, list(NORMS))
        decay_fields(self.decay_start, self.decay_end, self.decay_steps)


class Byol(nn.Module):
    """The student's predictor must point where the teacher's projector does.

    Args:
        encoder: of waveforms.
        config: heads and teacher.
        augment: what is changed for the student, and so is to be forgotten.
    """

    def __init__(self, encoder: nn.Module, config: ByolConfig, augment: Augment | None = None) -> None:
        super().__init__()
        self.config, self.augment = config, augment
        self.encoder: Any = takes_waveform(encoder, "Byol")
        projector = _Mlp(self.encoder.dim, config.hidden_dim, config.dim, config.norm)
        branch = _Branch(encoder, config.layer, projector)
        self.projector = projector
        self.predictor = _Mlp(config.dim, config.hidden_dim, config.dim, config.norm)
        self.teacher = Teacher(branch)
        self._branch = (branch,)  # its parts are registered above
        self._decay = ramp(config.decay_start, config.decay_end, config.decay_steps)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": 2 − 2 cos, summed over valid frames}."""
        if self.training:
            self.teacher.follow(self._decay)
        frames = self._branch[0].frames(heard(batch, self.augment, "Byol"))
        predictions = self.predictor(self.projector(frames.values, frames.lengths), frames.lengths)
        with torch.no_grad():
            seen = self.teacher.module.frames(batch)
            targets = self.teacher.module.head(seen.values, seen.lengths)
        return {"model": byol_loss(predictions, targets, valid_frames(frames))}

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames."""
        return frame_statistics(self._branch[0].frames(batch))


# --- DINO -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DinoConfig:
    """Frame-level DINO; the defaults are those of arXiv:2104.14294, appendix C, with fewer codes."""

    num_codes: int = 4096
    """Width of the distributions (65 536 for images)."""
    hidden_dim: int = 2048
    """Inner width of the head."""
    dim: int = 256
    """Width in front of the codes."""
    layer: int = -1
    """Compared layer; -1 the last."""
    mask: MaskConfig | None = field(default_factory=MaskConfig)
    """Frames that are hidden from the student; None for none."""
    student_temperature: float = 0.1
    """τ_s of equation 1."""
    teacher_temperature_start: float = 0.04
    """τ_t at first…"""
    teacher_temperature_end: float = 0.07
    """…and at last…"""
    teacher_temperature_steps: int = 10_000
    """…after so many steps."""
    center_decay: float = 0.9
    """Share of itself that the centre keeps at each batch (equation 4)."""
    decay_start: float = 0.996
    """Share of itself that the teacher keeps at first…"""
    decay_end: float = 1.0
    """…and at last…"""
    decay_steps: int = 100_000
    """…after so many steps."""

    def __post_init__(self) -> None:
        for name in ("num_codes", "hidden_dim", "dim"):
            at_least(name, getattr(self, name), 1)
        within("center_decay", self.center_decay, 0, 1)
        decay_fields(self.decay_start, self.decay_end, self.decay_steps)
        for name in ("student_temperature", "teacher_temperature_start", "teacher_temperature_end"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


class _DinoHead(nn.Module):
    """MLP, unit length, and codes of unit length."""

    def __init__(self, input_dim: int, config: DinoConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(input_dim, config.hidden_dim), nn.GELU(), nn.Linear(config.hidden_dim, config.dim)
        )
        self.codes = nn.Parameter(torch.randn(config.num_codes, config.dim))

    def forward(self, values: Float[Tensor, "batch frame dim"]) -> Float[Tensor, "batch frame code"]:
        with torch.autocast(values.device.type, enabled=False):
            return normalize(self.mlp(values.float()), dim=-1) @ normalize(self.codes.float(), dim=-1).t()


class Dino(nn.Module):
    """The student must give each frame the teacher's centred and sharpened distribution over codes.

    Args:
        encoder: of waveforms.
        config: head, teacher, centre.
        augment: what is changed for the student.
    """

    center: Tensor

    def __init__(self, encoder: nn.Module, config: DinoConfig, augment: Augment | None = None) -> None:
        super().__init__()
        self.config, self.augment = config, augment
        self.encoder: Any = takes_waveform(encoder, "Dino")
        self.head = _DinoHead(self.encoder.dim, config)
        branch = _Branch(encoder, config.layer, self.head)
        self.hiding = None if config.mask is None else Hiding(config.mask, encoder)
        self.teacher = Teacher(branch)
        self._branch = (branch,)  # its parts are registered above
        self.register_buffer("center", torch.zeros(config.num_codes))
        self._decay = ramp(config.decay_start, config.decay_end, config.decay_steps)
        start, end = config.teacher_temperature_start, config.teacher_temperature_end
        self._temperature = ramp(start, end, config.teacher_temperature_steps)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": cross-entropy summed over valid frames}."""
        if self.training:
            self.teacher.follow(self._decay)
        frames = self._student(batch)
        valid = valid_frames(frames)
        with torch.no_grad():
            targets = self.teacher.module.head(self.teacher.module.frames(batch).values)
        temperature = self._temperature(self.teacher.updates)
        logits = self.head(frames.values)
        loss = dino_loss(logits, targets, self.center, valid, self.config.student_temperature, temperature)
        if self.training:
            self._move_center(targets[valid])
        return {"model": loss}

    def _student(self, batch: Batch) -> Features:
        changed = heard(batch, self.augment, "Dino")
        hiding = self.hiding
        if hiding is None:
            return self._branch[0].frames(changed)
        seeds = seeds_of(batch, "Dino")
        return self._branch[0].frames(changed, lambda embedded: hiding(embedded, seeds)[0])

    @torch.no_grad()
    def _move_center(self, targets: Float[Tensor, "target code"]) -> None:
        # What is not finite would stay in the average for good, though the step itself is left out.
        targets = targets[targets.isfinite().all(dim=1)]
        total = torch.cat([targets.sum(dim=0), targets.new_tensor([float(len(targets))])])
        sum_over_processes(total)
        self.center.lerp_(total[:-1] / total[-1].clamp(min=1), 1 - self.config.center_decay)

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of the student's frames, and of the codes that it and the teacher choose."""
        frames = self._branch[0].frames(batch)
        valid = valid_frames(frames)
        targets = self.teacher.module.head(self.teacher.module.frames(batch).values) - self.center
        predicted = self.head(frames.values)[valid].argmax(dim=-1)
        return {
            **frame_statistics(frames),
            **choice_statistics("predicted", predicted, self.config.num_codes),
            **choice_statistics("target", targets[valid].argmax(dim=-1), self.config.num_codes),
        }


# --- published ------------------------------------------------------------------------------------------------------


def byol_objective(**changes: Any) -> ByolConfig:
    """BYOL as in speaker-disentangled HuBERT; give `Byol` what disguises the speaker."""
    return replace(ByolConfig(), **changes)


def dino_objective(**changes: Any) -> DinoConfig:
    """DINO frame by frame."""
    return replace(DinoConfig(), **changes)


def build(encoder: nn.Module, config: ByolConfig | DinoConfig, augment: Augment | None = None) -> Byol | Dino:
    """The objective of a configuration."""
    return Dino(encoder, config, augment) if isinstance(config, DinoConfig) else Byol(encoder, config, augment)
