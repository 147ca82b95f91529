"""Labels of frames, looked at before they are trained on: those of a store at once, and the judgement of any counts.

As training sees them, batch by batch and against the frames of its encoder: `objectives.labels`.
"""

import logging
from dataclasses import dataclass
from typing import Any

from sonorant.core.config import at_least, within
from sonorant.core.errors import DataError
from sonorant.metrics.units import CodeCounts
from sonorant.units.store import UnitStore

__all__ = ["VarietyLimits", "check_units", "check_variety"]

log = logging.getLogger("sonorant")


@dataclass(frozen=True, kw_only=True)
class VarietyLimits:
    """How varied labels must be."""

    max_share: float = 0.9
    """Share of frames that one unit may take."""
    frames_per_unit: int = 20
    """Frames a unit that are enough to judge use and perplexity by."""
    min_usage: float = 0.3
    """Share of the units that must occur."""
    min_perplexity: float = 1.5
    """Units in equal use…"""
    min_perplexity_share: float = 0.02
    """…and as a share of all units."""

    def __post_init__(self) -> None:
        for name in ("max_share", "min_usage", "min_perplexity_share"):
            within(name, getattr(self, name), 0, 1)
        for name in ("frames_per_unit", "min_perplexity"):
            at_least(name, getattr(self, name), 0)


def check_variety(what: str, counts: CodeCounts, limits: VarietyLimits) -> None:
    """Refuses labels that say next to nothing.

    Args:
        what: the labels are called in messages.
        counts: how often each unit occurs.
        limits: what they must keep.

    Raises:
        DataError: with the figure that is wrong.
    """
    known, num_units = int(counts.counts.sum()), counts.num_codes
    log.info("%s: %d frames, %.2f bits each, perplexity %.1f, %.0f %% of %d units in use",
             what, known, counts.entropy, counts.perplexity, 100 * counts.usage, num_units)  # fmt: skip
    if not known:
        raise DataError(f"{what}: not one label; were they made for this corpus?")
    largest = counts.counts.max() / known
    if largest > limits.max_share:
        raise DataError(
            f"{what}: unit {counts.counts.argmax()} stands for {largest:.1%} of {known} frames, so there is nearly nothing "
            "to predict. Are the features that were clustered normalised, and is the audio more than silence?"
        )
    if known < limits.frames_per_unit * num_units:
        log.warning("%s: %d frames are too few to judge %d units by", what, known, num_units)
        return
    if counts.usage < limits.min_usage:
        raise DataError(
            f"{what}: {counts.usage:.0%} of {num_units} units occur in {known} frames; num_units is that of another "
            "clustering, or its centres died: fit it on more frames, with k-means++"
        )
    if counts.perplexity < max(limits.min_perplexity, limits.min_perplexity_share * num_units):
        raise DataError(
            f"{what}: a perplexity of {counts.perplexity:.1f} with {num_units} units, {counts.entropy:.2f} bits a frame: "
            "nearly all frames bear the same ones. Fit the clustering on normalised features of many speakers, and see that "
            "the audio is more than silence"
        )


def check_units(store: UnitStore, cuts: Any, min_perplexity_share: float = 0.02) -> None:
    """Refuses labels that training would not survive: cuts without any, of another length, or next to no variety.

    Args:
        store: the labels.
        cuts: that are to be trained on.
        min_perplexity_share: of the inventory; units that are less evenly used are a clustering that failed.

    Raises:
        DataError: with the cut or the figure that is wrong.
    """
    for cut in cuts:
        frames = len(store.of(cut))
        if abs(frames - cut.duration * store.frame_rate) > 3 + 0.1 * store.frame_rate:
            raise DataError(
                f"'{cut.id}' lasts {cut.duration:.2f} s and has {frames} units at {store.frame_rate:g} a second: is the "
                "frame rate right?"
            )
    # All of the labels are there: few frames a unit are no reason to wait, and units that never occur no fault by themselves.
    limits = VarietyLimits(max_share=1, frames_per_unit=0, min_usage=0, min_perplexity_share=min_perplexity_share)
    check_variety(f"the units in {store.folder}", store.counts(), limits)
