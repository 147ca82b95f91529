"""Labels of frames looked at before they are trained on: rate, length, coverage, entropy.

A clustering at another frame rate, of another corpus, or with one cluster for nearly everything trains without complaint and
teaches nothing. `check_labels` goes over some batches as training would see them and raises with the item or the figure.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.config import at_least, within
from sonorant.core.errors import DataError
from sonorant.core.types import Batch
from sonorant.losses.information import entropy
from sonorant.objectives.masked_prediction import UnitHead, units_of

__all__ = ["LabelLimits", "StreamReport", "check_labels"]

log = logging.getLogger("sonorant")


@dataclass(frozen=True, kw_only=True)
class LabelLimits:
    """What labels must keep."""

    max_mismatch: float = 2.0
    """Frames of the labels by which an item's labels may be longer or shorter than its audio."""
    min_usage: float = 0.3
    """Share of a stream's units that must occur, once `frames_per_unit` frames a unit were seen."""
    min_perplexity_share: float = 0.02
    """Units in equal use, as a share of the stream's units."""
    max_share: float = 0.9
    """Share of frames that one unit may take."""
    frames_per_unit: int = 20
    """Frames a unit that are enough to judge by."""

    def __post_init__(self) -> None:
        at_least("max_mismatch", self.max_mismatch, 0)
        for name in ("min_usage", "min_perplexity_share", "max_share"):
            within(name, getattr(self, name), 0, 1)
        at_least("frames_per_unit", self.frames_per_unit, 0)


@dataclass(frozen=True)
class StreamReport:
    """What one stream of labels holds."""

    stream: str
    num_items: int
    num_frames: int
    counts: Int[Tensor, " unit"]
    """How often each unit occurs."""

    @property
    def usage(self) -> float:
        """Share of the units that occur."""
        return float((self.counts > 0).float().mean())

    @property
    def bits(self) -> float:
        """Entropy of a label, in bits."""
        return float(entropy(self._shares)) / float(torch.log(torch.tensor(2.0)))

    @property
    def perplexity(self) -> float:
        """Units in equal use."""
        return float(2.0**self.bits)

    @property
    def largest(self) -> float:
        """Share of the commonest unit."""
        return float(self._shares.max())

    @property
    def _shares(self) -> Float[Tensor, " unit"]:
        return self.counts.double() / self.counts.sum().clamp(min=1)


def check_labels(
    encoder: Any, heads: Sequence[UnitHead], batches: Iterable[Batch], limits: LabelLimits | None = None
) -> dict[str, StreamReport]:
    """Goes over batches and refuses labels that training could not learn from.

    Args:
        encoder: whose frames the labels are for.
        heads: the streams and their sizes; see `MaskedPredictionConfig.heads`.
        batches: some of the training's; a hundred items say enough.
        limits: what labels must keep.

    Returns:
        stream → what it holds.

    Raises:
        DataError: no labels, labels of another length or rate than their audio (with the item), an unknown unit (with the
            item), or a stream that says next to nothing.
    """
    limits = limits or LabelLimits()
    streams = {head.stream: head for head in heads}
    reports = {
        name: StreamReport(name, 0, 0, torch.zeros(head.num_units, dtype=torch.long)) for name, head in streams.items()
    }
    for batch in batches:
        for name, head in streams.items():
            units, lengths = units_of(batch, head)
            _check_lengths(encoder, head, batch, lengths, limits)
            reports[name] = _counted(reports[name], units, lengths)
    for name, report in reports.items():
        _judge(report, len(report.counts), limits)
        log.info(
            "labels '%s': %d items, %.2f bits a label, perplexity %.1f, %.0f %% of %d units in use",
            name, report.num_items, report.bits, report.perplexity, 100 * report.usage, len(report.counts),
        )  # fmt: skip
    return reports


def _check_lengths(encoder: Any, head: UnitHead, batch: Batch, lengths: Tensor, limits: LabelLimits) -> None:
    frames = encoder.output_lengths(batch.lengths).to(lengths.device)
    rate = head.label_rate or encoder.frame_rate
    expected = frames * (rate / encoder.frame_rate)
    wrong = ((lengths - expected).abs() > limits.max_mismatch * max(1.0, rate / encoder.frame_rate)).nonzero().flatten()
    if not len(wrong):
        return
    item = int(wrong[0])
    name = batch.ids[item] if batch.ids else f"#{item}"
    seconds = float(batch.lengths[item]) / batch.sample_rate
    found = float(lengths[item]) / seconds if seconds else float("inf")
    raise DataError(
        f"{len(wrong)} of {len(lengths)} items have labels '{head.stream}' of another length than their audio: '{name}' "
        f"lasts {seconds:.2f} s and has {int(lengths[item])} labels, {found:.1f} a second, where "
        f"{float(expected[item]):.0f} at {rate:g} a second are expected ({int(frames[item])} frames of the encoder at "
        f"{encoder.frame_rate:g}). If the labels have another rate, say so with label_rate; if only some items are wrong, "
        "their audio was cut or resampled since"
    )


def _counted(report: StreamReport, units: Tensor, lengths: Tensor) -> StreamReport:
    valid = torch.arange(units.shape[1], device=units.device) < lengths[:, None]
    known = units[valid & (units >= 0)].cpu()
    counts = report.counts + torch.bincount(known, minlength=len(report.counts))
    return replace(
        report,
        num_items=report.num_items + len(units),
        num_frames=report.num_frames + int(lengths.sum()),
        counts=counts,
    )


def _judge(report: StreamReport, num_units: int, limits: LabelLimits) -> None:
    """Refuses a stream by its figures."""
    name, known = report.stream, int(report.counts.sum())
    if not known:
        raise DataError(f"labels '{name}': not one in {report.num_items} items; were they made for this corpus?")
    if report.largest > limits.max_share:
        unit = int(report.counts.argmax())
        raise DataError(
            f"labels '{name}': unit {unit} stands for {report.largest:.1%} of {known} frames, so there is nearly nothing to "
            "predict. Are the features that were clustered normalised, and is the audio more than silence?"
        )
    if known < limits.frames_per_unit * num_units:
        log.warning("labels '%s': %d frames are too few to judge %d units by", name, known, num_units)
        return
    if report.usage < limits.min_usage:
        raise DataError(
            f"labels '{name}': {report.usage:.0%} of {num_units} units occur in {known} frames; num_units is that of another "
            "clustering, or its centres died: fit it on more frames, with k-means++"
        )
    if report.perplexity < limits.min_perplexity_share * num_units:
        raise DataError(
            f"labels '{name}': {report.bits:.2f} bits a label, as if {report.perplexity:.1f} of {num_units} units were in "
            "use. Fit the clustering on normalised features of many speakers"
        )
