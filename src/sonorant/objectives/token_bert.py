"""BERT over discrete speech: hidden units are to be named from those around them (vq-wav2vec, arXiv:1910.05453, section 4).

Units come with the batch, a stream each codebook; audio plays no part.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from sonorant.core.config import within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Features, Loss
from sonorant.encoders.on_units import OnUnits
from sonorant.encoders.tokenised import Tokenised
from sonorant.losses.masked_units import unit_loss
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.collapse import answer_statistics, frame_statistics
from sonorant.objectives.masked_prediction import UnitHead, UnitPredictor, units_of
from sonorant.objectives.views import Hiding, seeds_of

__all__ = ["TokenBert", "TokenBertConfig", "token_bert_objective"]


@dataclass(frozen=True, kw_only=True)
class TokenBertConfig:
    """BERT over codes; the defaults are those of arXiv:1910.05453, section 5.2."""

    mask: MaskConfig = field(default_factory=lambda: MaskConfig(prob=0.05, span=10, style="bernoulli"))
    """Hidden units (5 % of units start a span of 10)."""
    streams: tuple[str, ...] = ("units",)
    """Labels that hold the units, one a codebook."""
    unmasked_weight: float = 0.0
    """Of units that were seen."""

    def __post_init__(self) -> None:
        if not self.streams:
            raise ConfigError("streams must name at least one label")
        within("unmasked_weight", self.unmasked_weight, 0, 1)


class _Asked(NamedTuple):
    context: Features
    units: Int[Tensor, "batch frame stream"]
    mask: Bool[Tensor, "batch frame"]


class TokenBert(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of units, with as many streams as the configuration; or `Tokenised`, an encoder from waveforms, whose part
            over the codes is trained.
        config: masks and streams.
    """

    def __init__(self, encoder: OnUnits | Tokenised, config: TokenBertConfig) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        over = self._over
        if len(over.num_units) != len(config.streams):
            raise ConfigError(f"the encoder takes {len(over.num_units)} streams, and streams names {config.streams}")
        self.hiding = Hiding(config.mask, over.encoder)
        heads = (
            UnitHead(stream=stream, num_units=count, kind="linear", temperature=1.0)
            for stream, count in zip(config.streams, over.num_units, strict=True)
        )
        self.heads = nn.ModuleList(UnitPredictor(encoder.dim, head) for head in heads)

    @property
    def _over(self) -> OnUnits:
        """What stands over the units."""
        return self.encoder.on_units if isinstance(self.encoder, Tokenised) else self.encoder

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": cross-entropies of all streams, summed over hidden units}."""
        context, units, mask = self._asked(batch)
        weights = torch.where(mask, 1.0, self.config.unmasked_weight)
        weights = torch.where(valid_mask(context.lengths, mask.shape[1]), weights, 0.0)
        chosen = weights > 0
        frames, targets = context.values[chosen], units[chosen]
        results = [unit_loss(head(frames), targets[:, i], weights[chosen]) for i, head in enumerate(self.heads)]
        loss = sum(results[1:], results[0])
        return {"model": Loss(loss.total, results[0].count, loss.parts)}

    def _asked(self, batch: Batch) -> _Asked:
        found = [units_of(batch, head.head) for head in self.heads]  # type: ignore[arg-type]
        lengths = found[0][1]
        if any(not torch.equal(other, lengths) for _, other in found):
            raise DataError(f"the streams {self.config.streams} of an item differ in length: make them from one run")
        units = torch.stack([ids for ids, _ in found], dim=1)
        over = self._over
        embedded = over.embed(over.local(units, lengths))
        hidden, mask = self.hiding(embedded, seeds_of(batch, "TokenBert"))
        return _Asked(over.context(hidden), units.transpose(1, 2), mask)

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames, and of units of the first stream predicted and asked for."""
        context, units, mask = self._asked(batch)
        predicted, targets = self.heads[0](context.values[mask]).argmax(dim=-1), units[mask][:, 0]
        return {**frame_statistics(context), **answer_statistics(predicted, targets, self._over.num_units[0])}


def token_bert_objective(**changes: Any) -> TokenBertConfig:
    """BERT over one stream of units."""
    return replace(TokenBertConfig(), **changes)


def build(encoder: OnUnits | Tokenised, config: TokenBertConfig) -> TokenBert:
    """The objective of a configuration."""
    return TokenBert(encoder, config)
