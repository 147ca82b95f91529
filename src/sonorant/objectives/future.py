"""Telling what comes next from what does not: CPC (arXiv:1807.03748), wav2vec (arXiv:1904.05862) and vq-wav2vec
(arXiv:1910.05453).

The context network looks back only; from each of its frames linear layers predict the front end's frames of the next steps.
With a quantiser between front end and context network, both the context and the targets are made of codes.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.contrastive import (
    future_bce,
    future_info_nce,
    future_logits,
    future_mask,
    negatives_across,
    negatives_within,
)
from sonorant.nn.dropout import Dropout
from sonorant.nn.quantize.catalogue import build_quantizer
from sonorant.nn.quantize.gumbel import gumbel_temperature
from sonorant.nn.quantize.quantizer import Quantized, Quantizer
from sonorant.objectives.collapse import contrast_statistics, frame_statistics
from sonorant.objectives.steps import StepCounter
from sonorant.objectives.views import add_penalty, local_features, penalised, seeds_of, takes_waveform

__all__ = [
    "FutureConfig", "FuturePrediction", "cpc_objective", "quantizer_of", "vq_wav2vec_objective", "wav2vec_objective",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FutureConfig:
    """Prediction of future frames; the defaults are wav2vec's."""

    num_steps: int = 12
    """K: steps that are predicted."""
    offset: int = 3
    """Frames to the first of them: as many as share samples with the present one (465 samples over a hop of 160, as in the
    authors' code)."""
    num_negatives: int = 10
    """Frames that are not what comes (section 2.2)…"""
    negatives: str = "within"
    """…from the same item (within) or from all items of the batch (across)."""
    loss: str = "bce"
    """bce: each frame is right or wrong (wav2vec, equation 2); nce: one of them is right (CPC, equation 4)."""
    quantizer: str = "none"
    """Between front end and context: none, gumbel or kmeans (vq-wav2vec, sections 3.1 and 3.2)."""
    num_codebooks: int = 2
    """Groups of the quantiser."""
    codebook_size: int = 320
    """Entries a group."""
    share_entries: bool = True
    """All groups choose from one set of entries (vq-wav2vec, section 3.3)."""
    diversity_weight: float = 0.0
    """Of the Gumbel quantiser's penalty on codes that are not used."""
    commitment: float = 0.25
    """γ of the k-means quantiser's equation 4."""
    gumbel_start: float = 2.0
    """Temperature at first…"""
    gumbel_end: float = 0.5
    """…and at last…"""
    gumbel_decay: float = 0.999995
    """…multiplied by this at each step."""
    feature_weight: float = 0.0
    """Of the mean square of the front end's output."""
    dropout: float = 0.0
    """On predictions."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "offset", "num_negatives", "num_codebooks"):
            at_least(name, getattr(self, name), 1)
        at_least("codebook_size", self.codebook_size, 2)
        one_of("negatives", self.negatives, ("within", "across"))
        one_of("loss", self.loss, ("bce", "nce"))
        one_of("quantizer", self.quantizer, ("none", "gumbel", "kmeans"))
        for name in ("diversity_weight", "commitment", "feature_weight"):
            at_least(name, getattr(self, name), 0)
        within("dropout", self.dropout, 0, 0.99)
        if self.gumbel_end <= 0:
            raise ConfigError(f"gumbel_end must be above 0, got {self.gumbel_end}")


def quantizer_of(dim: int, config: FutureConfig) -> tuple[str, dict[str, Any]]:
    """Name and options, as `nn.quantize.catalogue.build_quantizer` takes them, of the quantiser of frames `dim` wide.

    Raises:
        ConfigError: the configuration has none, or the codebooks do not divide the width.
    """
    if config.quantizer == "none":
        raise ConfigError("this configuration has quantizer='none'; take gumbel or kmeans")
    if dim % config.num_codebooks:
        raise ConfigError(f"num_codebooks must divide the front end's width, got {config.num_codebooks} and {dim}")
    options: dict[str, Any] = {"dim": dim, "codebook_size": config.codebook_size, "num_groups": config.num_codebooks}
    if config.quantizer == "gumbel":
        weights = {"share_entries": config.share_entries, "diversity": config.diversity_weight}
        return "gumbel", {**options, **weights, "depth": 2}
    learning = {"commitment": config.commitment, "normed": True}
    return "vq_wav2vec", {**options, "shared": config.share_entries, **learning}


class FuturePrediction(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms, with a context that looks back only.
        config: steps, negatives, quantiser.
    """

    def __init__(self, encoder: nn.Module, config: FutureConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Any = takes_waveform(encoder, "FuturePrediction")
        self.steps = StepCounter(encoder)
        self.quantizer: Quantizer | None = None
        if config.quantizer != "none":
            name, options = quantizer_of(self.encoder.local_dim, config)
            self.quantizer = build_quantizer(name, **options)
        self.predict = nn.Linear(self.encoder.dim, config.num_steps * self.encoder.local_dim)
        self.dropout = Dropout(config.dropout)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": over all steps that lie within their item}."""
        if self.training:
            self.steps.tick()
        local, targets, context, found = self._encoded(batch)
        logits = self._logits(batch, targets, context)
        kind = future_bce if self.config.loss == "bce" else future_info_nce
        loss = kind(logits, targets.lengths, self.config.offset)
        if found is not None:
            loss = add_penalty(loss, "quantiser", found.penalty * loss.count)
        asked = future_mask(local.lengths, logits.shape[2], self.config.num_steps, self.config.offset)
        return {"model": penalised(loss, local, asked.sum(dim=(1, 2)), self.config.feature_weight)}

    def _encoded(self, batch: Batch) -> tuple[Features, Features, Features, Quantized | None]:
        """Front end, targets, context, and what the quantiser says."""
        local = local_features(self.encoder, batch)
        if self.quantizer is None:
            return local, local, self.encoder.context(self.encoder.embed(local)), None
        config, seeds = self.config, seeds_of(batch, "FuturePrediction")
        if config.quantizer == "gumbel":
            self.quantizer.codebook.temperature = gumbel_temperature(  # type: ignore[assignment]
                int(self.steps.count), config.gumbel_start, config.gumbel_end, config.gumbel_decay
            )
        found = self.quantizer(local.values, local.lengths, seeds)
        quantised = replace(local, values=found.values)
        context = self.encoder.context(self.encoder.embed(quantised))
        return local, quantised, context, found

    def _logits(self, batch: Batch, targets: Features, context: Features) -> Float[Tensor, "batch step frame logit"]:
        config, seeds = self.config, seeds_of(batch, "FuturePrediction")
        num_frames = targets.values.shape[1]
        predictions = self.dropout(self.predict(context.values)).unflatten(-1, (config.num_steps, -1)).transpose(1, 2)
        if config.negatives == "across":
            negatives = negatives_across(seeds, targets.lengths, num_frames, config.num_negatives)
        else:
            own = torch.arange(len(seeds), device=seeds.device)[:, None, None] * num_frames
            within_item = negatives_within(seeds, targets.lengths, num_frames, config.num_negatives)
            # An item of one frame has no others, and predicts nothing.
            negatives = own + within_item.clamp(max=num_frames - 1)
        return future_logits(predictions, targets.values, negatives, config.offset)

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames, use of codes, and how often what comes is told from what does not."""
        _, targets, context, quantised = self._encoded(batch)
        logits = self._logits(batch, targets, context)
        loss = future_info_nce(logits, targets.lengths, self.config.offset)
        found = contrast_statistics(loss, logits.shape[-1])
        if quantised is not None:
            found["target_perplexity"] = float(quantised.usage.min())
        return {**frame_statistics(context), **found}


# --- published ------------------------------------------------------------------------------------------------------


def wav2vec_objective(**changes: Any) -> FutureConfig:
    """wav2vec: twelve steps, ten negatives of the item, each right or wrong by itself."""
    return replace(FutureConfig(), **changes)


def cpc_objective(**changes: Any) -> FutureConfig:
    """CPC with linear predictors: twelve steps from the next frame on, 128 negatives of the batch (arXiv:2002.02848)."""
    return wav2vec_objective(**{"offset": 1, "num_negatives": 128, "negatives": "across", "loss": "nce", **changes})


def vq_wav2vec_objective(quantizer: str = "gumbel", **changes: Any) -> FutureConfig:
    """wav2vec over codes: two groups of 320 entries that both choose from one set (section 5.1)."""
    return wav2vec_objective(quantizer=quantizer, **changes)


def build(encoder: nn.Module, config: FutureConfig) -> FuturePrediction:
    """The objective of a configuration."""
    return FuturePrediction(encoder, config)
