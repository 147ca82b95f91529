"""Masked prediction of units: HuBERT and what came of it.

Frames are hidden from the blocks, and heads on one or several layers say which unit stands behind each. One objective with
other heads and another front end is HuBERT (arXiv:2106.07447), WavLM (with mixed audio, arXiv:2110.13900), Fast-HuBERT
(linear heads on two layers, arXiv:2309.13860), MS-HuBERT (finer and coarser units on several layers, two views that
swap, arXiv:2406.05661) and MR-HuBERT (two frame rates, arXiv:2310.02720). Units come with the batch, as
`labels["units"]` with `units_lengths`. Read `UnitHead`, then `MaskedPrediction.losses`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Features, Loss
from sonorant.losses.masked_units import cosine_logits, unit_loss, unit_weights
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.collapse import answer_statistics, frame_statistics
from sonorant.objectives.views import Hiding, heard, local_features, penalised, seeds_of, takes_waveform

__all__ = [
    "MaskedPrediction", "MaskedPredictionConfig", "UnitHead", "UnitPredictor", "fast_hubert_objective", "hubert_objective",
    "mr_hubert_objective", "ms_hubert_objective", "resampled_mask", "resampled_units", "units_of", "wavlm_objective",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UnitHead:
    """One stream of units, asked for at one layer."""

    stream: str = "units"
    """Label that holds the units."""
    num_units: int = 100
    """Of the stream (HuBERT's first round: 100 clusters of MFCC, then 500)."""
    layer: int = -1
    """What is asked: -1 the last, otherwise 1 is what comes out of the first block."""
    kind: str = "cosine"
    """cosine: with codewords, over the temperature (HuBERT, equation 3); linear (Fast-HuBERT, BEST-RQ)."""
    dim: int = 256
    """Width of codewords."""
    temperature: float = 0.1
    """Divides cosines, and linear logits too where it is not 1."""
    weight: float = 1.0
    """Of this head's loss."""
    label_rate: float = 0.0
    """Units a second; 0: as many as the layer has frames. A frame takes the unit at its own time."""

    def __post_init__(self) -> None:
        at_least("num_units", self.num_units, 2)
        at_least("dim", self.dim, 1)
        one_of("kind", self.kind, ("cosine", "linear"))
        at_least("weight", self.weight, 0)
        at_least("label_rate", self.label_rate, 0)
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}")
        if self.layer < -1:
            raise ConfigError(f"layer counts from 0, or is -1 for the last; got {self.layer}")


@dataclass(frozen=True, kw_only=True)
class MaskedPredictionConfig:
    """Masked prediction; the defaults are HuBERT base's."""

    mask: MaskConfig = field(default_factory=lambda: MaskConfig(prob=0.8, span=10))
    """Hidden frames (section III-B: 8 % of frames start a span of 10)."""
    heads: tuple[UnitHead, ...] = (UnitHead(),)
    """What is asked for."""
    masked_weight: float = 1.0
    """α of equation 2…"""
    unmasked_weight: float = 0.0
    """…and 1 − α, for frames that were seen."""
    feature_weight: float = 10.0
    """Of the mean square of the front end's output."""
    local_gradient: float = 0.1
    """Scale of the gradient that reaches the front end."""
    swap: tuple[int, ...] = ()
    """Blocks after which the hidden frames of a masked and of a clean view change places (MS-HuBERT)."""

    def __post_init__(self) -> None:
        if not self.heads:
            raise ConfigError("heads must hold at least one UnitHead")
        for name in ("masked_weight", "unmasked_weight", "feature_weight"):
            at_least(name, getattr(self, name), 0)
        within("local_gradient", self.local_gradient, 0, 1)


class UnitPredictor(nn.Module):
    """Frames → logits of units."""

    def __init__(self, dim: int, head: UnitHead) -> None:
        super().__init__()
        self.head = head
        self.project: nn.Module
        if head.kind == "cosine":
            self.project = nn.Linear(dim, head.dim)
            self.codewords: nn.Parameter | None = nn.Parameter(torch.rand(head.num_units, head.dim) - 0.5)
        else:
            self.project = nn.Linear(dim, head.num_units)
            self.codewords = None

    def forward(self, frames: Float[Tensor, "*frames dim"]) -> Float[Tensor, "*frames code"]:
        projected = self.project(frames)
        if self.codewords is not None:
            return cosine_logits(projected, self.codewords, self.head.temperature)
        return projected.float() / self.head.temperature


def resampled_units(
    units: Int[Tensor, "batch label"],
    units_lengths: Int[Tensor, " batch"],
    lengths: Int[Tensor, " batch"],
    num_frames: int,
    ratio: float,
) -> tuple[Int[Tensor, "batch frame"], Bool[Tensor, "batch frame"]]:
    """The unit at the time of each frame, and where there is one.

    Args:
        units: at the rate of the labels; negative ones ask for nothing.
        units_lengths: of each item.
        lengths: frames of each item.
        num_frames: of the padded tensor.
        ratio: units a frame (2 where labels come at 100 a second and frames at 50).

    >>> resampled_units(torch.tensor([[4, 5, 6, 7]]), torch.tensor([4]), torch.tensor([3]), 3, 2.0)[0].tolist()
    [[4, 6, 7]]
    """
    # A tiny surplus, so that a ratio which is a whole number but for rounding does not fall short of it.
    where = (torch.arange(num_frames, device=units.device, dtype=torch.float64) * ratio + 1e-6).floor().long()
    inside = (where < units_lengths[:, None]) & valid_mask(lengths, num_frames)
    if units.shape[1] == 0:
        return units.new_zeros(len(units), num_frames), inside
    taken = units[:, where.clamp(max=units.shape[1] - 1)]
    return taken, inside & (taken >= 0)


def resampled_mask(mask: Bool[Tensor, "batch frame"], num_frames: int, ratio: float) -> Bool[Tensor, "batch other"]:
    """Which frames of a layer are hidden whose frames are `ratio` frames of the mask apart."""
    where = (torch.arange(num_frames, device=mask.device, dtype=torch.float64) * ratio + 1e-6).floor().long()
    return mask[:, where.clamp(max=mask.shape[1] - 1)]


class _Asked(NamedTuple):
    """The targets of one head."""

    frames: Float[Tensor, "target dim"]
    units: Int[Tensor, " target"]
    weights: Float[Tensor, " target"]
    per_item: Int[Tensor, " batch"]


class MaskedPrediction(nn.Module):
    """See the module's docstring.

    Args:
        encoder: of waveforms.
        config: heads and masks.
        mix: changes the audio that the encoder hears, from the batch's seeds, while the labels stay those of the clean
            audio: WavLM's utterance mixing is `audio.augment.mix.Mix(share=(0, 0.5), prob=0.2)`.
    """

    def __init__(
        self, encoder: nn.Module, config: MaskedPredictionConfig, mix: Callable[[Batch], Batch] | None = None
    ) -> None:
        super().__init__()
        self.config, self.mix = config, mix
        self.encoder: Any = takes_waveform(encoder, "MaskedPrediction")
        for head in config.heads:
            if head.layer > self.encoder.num_layers:
                raise ConfigError(f"a head asks for layer {head.layer}, and the encoder has {self.encoder.num_layers}")
        if any(not 0 <= block < self.encoder.num_layers for block in config.swap):
            raise ConfigError(
                f"swap names blocks that another follows, 0 to {self.encoder.num_layers - 1}: {config.swap}"
            )
        self.hiding = Hiding(config.mask, encoder)
        self.heads = nn.ModuleList(UnitPredictor(self.encoder.dim, head) for head in config.heads)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """{"model": the heads' weighted cross-entropies over the targets of the first head}."""
        local, layers, mask = self._layers(batch)
        asked = [self._asked(batch, head, layers, mask) for head in self.config.heads]
        results = [unit_loss(head(a.frames), a.units, a.weights) for head, a in zip(self.heads, asked, strict=True)]
        loss = self._joined(results, [layers[head.layer].frame_rate for head in self.config.heads])
        return {"model": penalised(loss, local, asked[0].per_item, self.config.feature_weight)}

    def _layers(self, batch: Batch) -> tuple[Features, list[Features], Tensor]:
        """The front end's frames, all layers, and which of the embedded frames are hidden."""
        seeds = seeds_of(batch, "MaskedPrediction")
        mixed = heard(batch, self.mix, "MaskedPrediction")
        local = local_features(self.encoder, mixed, self.config.local_gradient)
        embedded = self.encoder.embed(local)
        hidden, mask = self.hiding(embedded, seeds)
        if not self.config.swap:
            return local, self.encoder.context(hidden, layers=True), mask
        return local, *self._two_views(embedded, hidden, mask)

    def _two_views(self, embedded: Features, hidden: Features, mask: Tensor) -> tuple[list[Features], Tensor]:
        """A masked and a clean view as one batch; after some blocks their hidden frames change places.

        Heads are asked at the hidden frames of both views, since each has been through both contexts.
        """
        views = Features(
            torch.cat([hidden.values, embedded.values]),
            torch.cat([hidden.lengths, embedded.lengths]),
            embedded.frame_rate,
        )
        both = torch.cat([mask, mask])

        def swap(block: int, features: Features) -> Features:
            if block not in self.config.swap:
                return features
            ratio = views.frame_rate / features.frame_rate
            where = resampled_mask(both, features.values.shape[1], ratio)[..., None]
            other = features.values.roll(len(mask), dims=0)
            return replace(features, values=torch.where(where, other, features.values))

        return self.encoder.context(views, layers=True, between=swap), both

    def _asked(self, batch: Batch, head: UnitHead, layers: list[Features], mask: Tensor) -> _Asked:
        """Frames of the head's layer that are asked for, and what is to be answered."""
        features = layers[head.layer]
        num_frames, rate = features.values.shape[1], features.frame_rate
        units, units_lengths = units_of(batch, head)
        copies = 2 if self.config.swap else 1
        units, units_lengths = units.repeat(copies, 1), units_lengths.repeat(copies)
        ratio = head.label_rate / rate if head.label_rate else 1.0
        taken, valid = resampled_units(units, units_lengths, features.lengths, num_frames, ratio)
        hidden = resampled_mask(mask, num_frames, layers[0].frame_rate / rate)
        weights = unit_weights(hidden, valid, self.config.masked_weight, self.config.unmasked_weight)
        chosen = weights > 0
        per_item = chosen.sum(dim=1).view(copies, -1).sum(dim=0)
        return _Asked(features.values[chosen], taken[chosen], weights[chosen], per_item)

    def _joined(self, results: Sequence[Loss], rates: Sequence[float]) -> Loss:
        """The heads' sums over the count of the first.

        A slower layer has fewer targets: its sum is multiplied by the ratio of the rates, a constant, so that heads weigh
        their `weight` and a batch stays the sum of its items.
        """
        total = torch.zeros_like(results[0].total)
        parts: dict[str, Tensor] = {}
        for index, (result, head) in enumerate(zip(results, self.config.heads, strict=True)):
            share = rates[0] / rates[index]
            total = total + head.weight * share * result.total
            end = "" if index == 0 else str(index)
            parts |= {f"{name}{end}": part * share for name, part in result.parts.items()}
        return Loss(total, results[0].count, parts)

    def diagnose(self, batch: Batch) -> dict[str, float]:
        """Spread of frames and of units, predicted and asked for, for the doctor."""
        _, layers, mask = self._layers(batch)
        asked = self._asked(batch, self.config.heads[0], layers, mask)
        predicted = self.heads[0](asked.frames).argmax(dim=-1)
        num_units = self.config.heads[0].num_units
        return {**frame_statistics(layers[-1]), **answer_statistics(predicted, asked.units, num_units)}


def units_of(batch: Batch, head: UnitHead) -> tuple[Tensor, Tensor]:
    """A stream of labels on the batch's device.

    Raises:
        DataError: the batch lacks the stream, or an item holds a unit that the head does not know.
    """
    names = (head.stream, f"{head.stream}_lengths")
    missing = [name for name in names if name not in batch.labels]
    if missing:
        known = ", ".join(sorted(batch.labels)) or "none"
        raise DataError(
            f"a head asks for labels '{head.stream}', and the batch lacks {' and '.join(missing)}; it has {known}"
        )
    units, lengths = (batch.labels[name].to(batch.waveform.device) for name in names)
    beyond = (units >= head.num_units) & valid_mask(lengths, units.shape[1])
    if bool(beyond.any()):
        item = int(beyond.any(dim=1).nonzero()[0])
        name = batch.ids[item] if batch.ids else f"#{item}"
        worst = int(units[item][beyond[item]].max())
        raise DataError(
            f"item '{name}' holds unit {worst} in '{head.stream}', and its head knows units 0 to "
            f"{head.num_units - 1}: set num_units to the size of the clustering that made the labels"
        )
    return units, lengths


# --- published ------------------------------------------------------------------------------------------------------


def hubert_objective(num_units: int = 100, label_rate: float = 0.0, **changes: object) -> MaskedPredictionConfig:
    """HuBERT base; rounds differ in their units: 100 clusters of MFCC at 100 a second, then 500 of a middle layer."""
    heads = (UnitHead(num_units=num_units, label_rate=label_rate),)
    return replace(MaskedPredictionConfig(heads=heads), **changes)  # type: ignore[arg-type]


def wavlm_objective(num_units: int = 500, **changes: object) -> MaskedPredictionConfig:
    """WavLM base: HuBERT's on mixed audio (give `MaskedPrediction` a `mix`)."""
    return hubert_objective(num_units, **changes)  # type: ignore[arg-type]


def fast_hubert_objective(
    num_units: int = 500, layers: Sequence[int] = (4, -1), label_rate: float = 50.0, **changes: object
) -> MaskedPredictionConfig:
    """Fast-HuBERT: linear heads on a middle and on the last layer, labels thinned out to the encoder's 25 frames a second.

    Spans of 5 frames of 40 ms are the 200 ms of HuBERT's.
    """
    heads = tuple(
        UnitHead(num_units=num_units, layer=layer, kind="linear", temperature=1.0, label_rate=label_rate)
        for layer in layers
    )
    made = MaskedPredictionConfig(
        mask=MaskConfig(prob=0.8, span=5), heads=heads, feature_weight=0.0, local_gradient=1.0
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ms_hubert_objective(
    num_units: Sequence[int] = (1000, 500, 250, 125, 50, 25),
    layers: Sequence[int] = (12, 11, 10, 9, 8, 7),
    swap: Sequence[int] = tuple(range(1, 12)),
    **changes: object,
) -> MaskedPredictionConfig:
    """MS-HuBERT: streams `units`, `units1`, … of ever fewer units on ever lower layers, and views that swap."""
    heads = tuple(
        UnitHead(stream=f"units{index or ''}", num_units=count, layer=layer)
        for index, (count, layer) in enumerate(zip(num_units, layers, strict=True))
    )
    return replace(MaskedPredictionConfig(heads=heads, swap=tuple(swap)), **changes)  # type: ignore[arg-type]


def mr_hubert_objective(
    num_units: int = 500, low_layer: int = 8, label_rate: float = 50.0, **changes: object
) -> MaskedPredictionConfig:
    """MR-HuBERT: the last layer at 50 and the last of the slow blocks at 25 frames a second, with one stream of labels."""
    heads = tuple(UnitHead(num_units=num_units, layer=layer, label_rate=label_rate) for layer in (-1, low_layer))
    return replace(MaskedPredictionConfig(heads=heads), **changes)  # type: ignore[arg-type]


def build(
    encoder: nn.Module, config: MaskedPredictionConfig, mix: Callable[[Batch], Batch] | None = None
) -> MaskedPrediction:
    """The objective of a configuration."""
    return MaskedPrediction(encoder, config, mix)
