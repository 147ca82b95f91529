"""wav2vec 2.0 (arXiv:2006.11477): for each hidden frame the blocks must tell its quantised content from that of others.

With no codebooks the content itself is what is told apart: the continuous BERT of arXiv:1911.03912. Negatives come from the
hidden frames of the same item, of others, or both. Steps into the future instead of hidden frames: `future.py`.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.contrastive import contrastive_logits, info_nce, negatives_across, negatives_within
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import MaskConfig, frames_at, hidden_first
from sonorant.nn.quantize.gumbel import GumbelCodebook, gumbel_temperature
from sonorant.nn.quantize.quantizer import Quantizer, joint_codes
from sonorant.objectives.collapse import contrast_statistics, frame_statistics
from sonorant.objectives.steps import StepCounter
from sonorant.objectives.views import Hiding, add_penalty, local_features, penalised, seeds_of, takes_waveform

__all__ = [
    "QuantizedTargets", "Targets", "Wav2Vec2Config", "Wav2Vec2Objective", "continuous_bert_objective",
    "wav2vec2_objective",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config:
    """wav2vec 2.0; the defaults are the base model's (section 4.2)."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    """Hidden frames (p = 0.065, M = 10)."""
    num_codebooks: int = 2
    """G, groups of the quantiser; 0 tells frames apart as they are."""
    codebook_size: int = 320
    """V, entries a group."""
    code_dim: int = 256
    """Width of the quantised frames before their projection (d/G = 128 a group)."""
    dim: int = 256
    """Width in which frames are compared."""
    num_negatives: int = 100
    """K, from the same item."""
    cross_negatives: int = 0
    """More, from all items of the batch."""
    temperature: float = 0.1
    """κ of equation 3."""
    diversity_weight: float = 0.1
    """α of equation 2."""
    feature_weight: float = 10.0
    """Of the mean square of the front end's output."""
    local_gradient: float = 0.1
    """Scale of the gradient that reaches the front end."""
    target_dropout: float = 0.1
    """On what is quantised."""
    gumbel_start: float = 2.0
    """Temperature of the quantiser's softmax at first…"""
    gumbel_end: float = 0.5
    """…and at last (large: 0.1)…"""
    gumbel_decay: float = 0.999995
    """…multiplied by this at each step."""

    def __post_init__(self) -> None:
        for name in ("num_codebooks", "num_negatives", "cross_negatives", "diversity_weight", "feature_weight"):
            at_least(name, getattr(self, name), 0)
        for name in ("codebook_size", "code_dim", "dim"):
            at_least(name, getattr(self, name), 1)
        if self.num_negatives + self.cross_negatives < 1:
            raise ConfigError("num_negatives and cross_negatives are both 0: there is nothing to tell a frame from")
        within("local_gradient", self.local_gradient, 0, 1)
        within("target_dropout", self.target_dropout, 0, 0.99)
        if self.temperature <= 0 or self.gumbel_end <= 0:
            raise ConfigError(f"temperatures must be above 0, got {self.temperature} and {self.gumbel_end}")


class Targets(NamedTuple):
    """What is asked for at some positions."""

    values: Float[Tensor, "batch position dim"]
    codes: Int[Tensor, "batch position"] | None
    """Tell targets apart; None where they are not quantised."""
    penalty: Float[Tensor, ""]
    """A mean over positions, weighted."""
    perplexity: Float[Tensor, " codebook"] | None
    """Of the codes of each codebook."""


class QuantizedTargets(nn.Module):
    """The front end's frames normed, quantised and projected, with a temperature that falls from step to step.

    Args:
        local_dim: width of the front end's frames.
        config: sizes, weights, temperatures.
        counter: counts the steps of training.
    """

    def __init__(self, local_dim: int, config: Wav2Vec2Config, counter: StepCounter) -> None:
        super().__init__()
        self.config, self._counter = config, (counter,)
        self.norm, self.dropout = nn.LayerNorm(local_dim), Dropout(config.target_dropout)
        self.quantizer: Quantizer | None = None
        if config.num_codebooks:
            sizes = {"code_dim": config.code_dim, "diversity": config.diversity_weight}
            self.quantizer = Quantizer(
                GumbelCodebook(local_dim, config.codebook_size, config.num_codebooks, **sizes)  # type: ignore[arg-type]
            )
        self.project = nn.Linear(config.code_dim if config.num_codebooks else local_dim, config.dim)

    def forward(
        self,
        frames: Float[Tensor, "batch position dim"],
        counts: Int[Tensor, " batch"],
        seeds: Int[Tensor, " batch"],
    ) -> Targets:
        """Targets from frames that are not hidden, gathered to the front."""
        values = self.dropout(self.norm(frames))
        if self.quantizer is None:
            return Targets(self.project(values), None, frames.new_zeros(()), None)
        config = self.config
        self.quantizer.codebook.temperature = gumbel_temperature(  # type: ignore[assignment]
            int(self._counter[0].count), config.gumbel_start, config.gumbel_end, config.gumbel_decay
        )
        found = self.quantizer(zero_padding(values, counts), counts, seeds)
        codes = joint_codes(found.ids, self.quantizer.codebook_sizes)
        return Targets(self.project(found.values), codes, found.penalty, found.usage)


class _Compared(NamedTuple):
    local: Features
    context: Features
    mask: Bool[Tensor, "batch frame"]
    targets: Targets
    logits: Float[Tensor, "batch position logit"]
    counts: Int[Tensor, " batch"]
    """Hidden frames of each item."""


class Wav2Vec2Objective(nn.Module):
    """See the module's docstring.

    Where we differ: the norm before the quantiser is the objective's own (fairseq shares that of `embed`), and each item's
    mask has its own number of spans (fairseq cuts all items of a batch to the least).

    Args:
        encoder: of waveforms.
        config: masks, quantiser, loss.
    """

    def __init__(self, encoder: nn.Module, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = takes_waveform(encoder, "Wav2Vec2Objective")
        self.steps = StepCounter(encoder)
        self.hiding = Hiding(config.mask, encoder)
        self.targets = QuantizedTargets(self.encoder.local_dim, config, self.steps)
        self.project = nn.Linear(self.encoder.dim, config.dim)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": contrastive, diversity and feature losses over hidden frames}."""
        if self.training:
            self.steps.tick()
        found = self._compared(batch)
        loss = info_nce(found.logits, found.counts)
        if found.targets.codes is not None:
            loss = add_penalty(loss, "diversity", found.targets.penalty * loss.count)
        chosen = torch.where(found.counts >= 2, found.counts, 0)
        return {"model": penalised(loss, found.local, chosen, self.config.feature_weight)}

    def _compared(self, batch: Batch) -> _Compared:
        seeds = seeds_of(batch, "Wav2Vec2Objective")
        local = local_features(self.encoder, batch, self.config.local_gradient)
        hidden, mask = self.hiding(self.encoder.embed(local), seeds)
        context = self.encoder.context(hidden)
        places, counts = hidden_first(mask)
        targets = self.targets(frames_at(local.values, places), counts, seeds)
        predictions = self.project(frames_at(context.values, places))
        logits = self._logits(predictions, targets, seeds, counts)
        return _Compared(local, context, mask, targets, logits, counts)

    def _logits(self, predictions: Tensor, targets: Targets, seeds: Tensor, counts: Tensor) -> Tensor:
        config, (size, positions, _) = self.config, predictions.shape
        parts = []
        if config.num_negatives:
            negatives = negatives_within(seeds, counts, positions, config.num_negatives)
            parts.append(
                contrastive_logits(
                    predictions, targets.values, negatives, temperature=config.temperature, codes=targets.codes
                )
            )
        if config.cross_negatives:
            # The whole batch as one item.
            negatives = negatives_across(seeds, counts, positions, config.cross_negatives).flatten(0, 1)[None]
            values, flat = targets.values.flatten(0, 1)[None], predictions.flatten(0, 1)[None]
            codes = None if targets.codes is None else targets.codes.flatten()[None]
            across = contrastive_logits(flat, values, negatives, temperature=config.temperature, codes=codes)
            across = across.view(size, positions, -1)
            parts.append(across[..., 1:] if parts else across)
        return torch.cat(parts, dim=-1)

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames, use of codes, and how often the right frame is chosen."""
        found = self._compared(batch)
        statistics = contrast_statistics(info_nce(found.logits, found.counts), found.logits.shape[-1])
        if found.targets.perplexity is not None:
            statistics["target_perplexity"] = float(found.targets.perplexity.min())
        return {**frame_statistics(found.context), **statistics}


# --- published ------------------------------------------------------------------------------------------------------


def wav2vec2_objective(**changes: Any) -> Wav2Vec2Config:
    """wav2vec 2.0 base. Large: code_dim=768, dim=768, gumbel_end=0.1, local_gradient=1."""
    return replace(Wav2Vec2Config(), **changes)


def continuous_bert_objective(**changes: Any) -> Wav2Vec2Config:
    """Frames told apart as they are, without a quantiser (arXiv:1911.03912, section 3.2: ten negatives of the item)."""
    return wav2vec2_objective(**{"num_codebooks": 0, "num_negatives": 10, "feature_weight": 0.0, **changes})


def build(encoder: nn.Module, config: Wav2Vec2Config) -> Wav2Vec2Objective:
    """The objective of a configuration."""
    return Wav2Vec2Objective(encoder, config)
