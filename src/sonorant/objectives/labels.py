"""Labels of frames looked at before they are trained on: rate, length, coverage, entropy.

A clustering at another frame rate, of another corpus, or with one cluster for nearly everything trains without complaint and
teaches nothing. `check_labels` goes over some batches as training would see them and raises with the item or the figure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sonorant.core.config import at_least
from sonorant.core.errors import DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch
from sonorant.metrics.units import CodeCounts
from sonorant.objectives.masked_prediction import UnitHead, units_of
from sonorant.units.checks import VarietyLimits, check_variety

__all__ = ["StreamReport", "check_labels"]


@dataclass
class StreamReport:
    """What one stream of labels holds."""

    counts: CodeCounts
    """How often each unit occurs; their entropy, perplexity and use."""
    num_items: int = 0
    num_frames: int = 0
    """Labels of all items, those that ask for nothing (below 0) among them."""

    def add(self, units: Tensor, lengths: Tensor) -> None:
        """Counts the labels of a batch."""
        valid = valid_mask(lengths, units.shape[1])
        self.counts.update(units[valid & (units >= 0)].cpu().numpy())
        self.num_items += len(units)
        self.num_frames += int(lengths.sum())


def check_labels(
    encoder: Any,
    heads: Sequence[UnitHead],
    batches: Iterable[Batch],
    limits: VarietyLimits | None = None,
    max_mismatch: float = 2.0,
) -> dict[str, StreamReport]:
    """Goes over batches and refuses labels that training could not learn from.

    Args:
        encoder: whose frames the labels are for.
        heads: the streams and their sizes; see `MaskedPredictionConfig.heads`.
        batches: some of the training's; a hundred items say enough.
        limits: how varied labels must be.
        max_mismatch: frames of the labels by which an item's labels may be longer or shorter than its audio.

    Returns:
        stream → what it holds.

    Raises:
        DataError: no labels, labels of another length or rate than their audio (with the item), an unknown unit (with the
            item), or a stream that says next to nothing.
    """
    at_least("max_mismatch", max_mismatch, 0)
    streams = {head.stream: head for head in heads}
    reports = {name: StreamReport(CodeCounts(head.num_units)) for name, head in streams.items()}
    for batch in batches:
        for name, head in streams.items():
            units, lengths = units_of(batch, head)
            _check_lengths(encoder, head, batch, lengths, max_mismatch)
            reports[name].add(units, lengths)
    for name, report in reports.items():
        check_variety(f"labels '{name}' of {report.num_items} items", report.counts, limits or VarietyLimits())
    return reports


def _check_lengths(encoder: Any, head: UnitHead, batch: Batch, lengths: Tensor, max_mismatch: float) -> None:
    frames = encoder.output_lengths(batch.lengths).to(lengths.device)
    rate = head.label_rate or encoder.frame_rate
    expected = frames * (rate / encoder.frame_rate)
    wrong = ((lengths - expected).abs() > max_mismatch * max(1.0, rate / encoder.frame_rate)).nonzero().flatten()
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
