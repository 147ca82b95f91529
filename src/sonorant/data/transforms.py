"""Corpora made from corpora: cuts in, cuts out, before any audio is read.

Durations change here, where batches are still to be planned; what changes from epoch to epoch is `audio.augment`'s. All of
lhotse's cuts go through; results keep the order of what went in.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError

__all__ = ["Kept", "concatenated", "speed_perturbed", "trimmed", "windowed", "within_durations"]


@dataclass(frozen=True)
class Kept:
    """What a filter left, and what it did not."""

    cuts: list[Any]
    skipped: dict[str, str] = field(default_factory=dict)
    """Id → reason."""


def within_durations(cuts: Iterable[Any], low: float = 0.0, high: float | None = None) -> Kept:
    """Cuts that last from `low` to `high` seconds, both included."""
    kept, skipped = [], {}
    for cut in cuts:
        if cut.duration < low:
            skipped[cut.id] = f"too short: {cut.duration:.3f} s < {low} s"
        elif high is not None and cut.duration > high:
            skipped[cut.id] = f"too long: {cut.duration:.3f} s > {high} s"
        else:
            kept.append(cut)
    return Kept(kept, skipped)


def speed_perturbed(cuts: Iterable[Any], factors: Sequence[float] = (0.9, 1.1), *, keep: bool = True) -> list[Any]:
    """The cuts and their copies at other speeds (pitch moves with tempo; Ko et al., Interspeech 2015).

    Args:
        cuts: lhotse cuts.
        factors: one copy each; its duration is the cut's divided by the factor, its id ends in `_sp<factor>`.
        keep: the originals come first.
    """
    if any(not factor > 0 for factor in factors):
        raise ConfigError(f"factors must be above 0, got {tuple(factors)}")
    cuts = list(cuts)
    copies = [cut.perturb_speed(factor) for factor in factors if factor != 1 for cut in cuts]
    return [*cuts, *copies] if keep else copies


def trimmed(cuts: Iterable[Any], margin: float = 0.1) -> list[Any]:
    """Cuts without the audio before their first and behind their last supervision, but for `margin` seconds.

    A cut without supervisions stays as it is.
    """
    at_least("margin", margin, 0)
    return [_trimmed(cut, margin) for cut in cuts]


def _trimmed(cut: Any, margin: float) -> Any:
    if not cut.supervisions:
        return cut
    start = max(0.0, min(said.start for said in cut.supervisions) - margin)
    end = min(cut.duration, max(said.end for said in cut.supervisions) + margin)
    if start <= 0 and end >= cut.duration:
        return cut
    return cut.truncate(offset=start, duration=end - start, preserve_id=True)


def concatenated(
    cuts: Iterable[Any], max_seconds: float, *, gap: float = 0.0, group: Callable[[Any], Hashable] | None = None
) -> list[Any]:
    """Neighbouring cuts joined while the whole lasts at most `max_seconds`; supervisions keep their times in it.

    Args:
        cuts: lhotse cuts; one that is longer than `max_seconds` stays alone.
        max_seconds: of a joined cut.
        gap: seconds of silence between two.
        group: only cuts for which it gives the same value are joined, such as the speaker.
    """
    at_least("gap", gap, 0)
    joined: list[Any] = []
    last: Hashable = None
    for cut in cuts:
        this = group(cut) if group is not None else None
        if joined and this == last and joined[-1].duration + gap + cut.duration <= max_seconds:
            before = joined[-1].pad(duration=joined[-1].duration + gap) if gap else joined[-1]
            joined[-1] = before.append(cut, preserve_id="left")
        else:
            joined.append(cut)
        last = this
    return joined


def windowed(cuts: Iterable[Any], seconds: float, hop: float | None = None) -> list[Any]:
    """Cuts into pieces of `seconds` each `hop` seconds (without overlap unless given); the last piece may be shorter.

    Each piece's id is the cut's and its number, and it holds the supervisions that overlap it.
    """
    at_least("seconds", seconds, 1e-3)
    from lhotse import CutSet

    pieces = []
    for cut in cuts:
        found = CutSet.from_cuts([cut]).cut_into_windows(duration=seconds, hop=hop)
        pieces += [piece.with_id(f"{cut.id}-{number}") for number, piece in enumerate(found)]
    return pieces
