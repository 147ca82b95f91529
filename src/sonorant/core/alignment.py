"""Frames ↔ times: which labelled stretch the middle of a frame lies in, and which frame of another rate lies nearest.

A row of frames is told by `frame_rate` (frames a second) and `offset` (seconds from the start of the recording to the middle
of the first frame). Arrays and numbers only; no model is needed.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from sonorant.core.errors import DataError
from sonorant.core.types import Segment

__all__ = ["first_centre", "frame_centres", "frame_labels", "frames_within", "nearest_frames", "segments_of"]

# Manifests keep times to a microsecond: a middle that close to a border lies behind it.
_ROUNDING = 1e-6


def first_centre(output_lengths: Callable[[int], Any], sample_rate: float, most: int = 1 << 20) -> float:
    """Seconds to the middle of the first frame of whatever makes frames of samples.

    The fewest samples that give one frame are what that frame sees, less the padding, so that its middle is theirs: for a
    stack of convolutions, padded symmetrically or not at all, this is exact.

    Args:
        output_lengths: frames for so many samples; rising.
        sample_rate: Hz.
        most: samples in which a first frame must have come.

    Raises:
        DataError: none has.

    >>> first_centre(lambda n: max(0, (n - 400) // 160 + 1), 16000)
    0.01246875
    """
    if int(output_lengths(most)) < 1:
        raise DataError(f"no frame comes out of {most} samples; is output_lengths in samples?")
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if int(output_lengths(middle)) >= 1 else (middle, high)
    return (high - 1) / 2 / sample_rate


def frame_centres(num_frames: int, frame_rate: float, offset: float = 0.0) -> Float[np.ndarray, " frame"]:
    """Seconds to the middle of each frame."""
    return offset + np.arange(num_frames) / frame_rate


def frame_labels(
    segments: Iterable[Segment],
    num_frames: int,
    frame_rate: float,
    *,
    ids: Mapping[str, int],
    offset: float = 0.0,
    outside: int = -1,
) -> Int[np.ndarray, " frame"]:
    """The label of the segment in which each frame's middle lies.

    Args:
        segments: ordered by start, not overlapping; each holds its start and not its end.
        num_frames: frames of the recording.
        frame_rate: frames a second.
        ids: label → number; a label that is not there counts as `outside`.
        offset: seconds to the middle of the first frame.
        outside: number of frames between segments.

    Raises:
        DataError: segments overlap or are not in order.

    >>> said = [Segment(0.0, 0.02, "a"), Segment(0.02, 0.03, "b")]
    >>> frame_labels(said, 6, 100.0, ids={"a": 0, "b": 1}).tolist()
    [0, 0, 1, 1, 1, -1]
    """
    rows = list(segments)
    if not rows:
        return np.full(num_frames, outside, dtype=np.int64)
    starts, ends = np.array([s.start for s in rows]), np.array([s.end for s in rows])
    # Two borders that are one may differ by the rounding of each.
    if (starts[1:] < ends[:-1] - 3 * _ROUNDING).any():
        at = int(np.argmax(starts[1:] < ends[:-1] - 3 * _ROUNDING))
        raise DataError(
            f"segments must follow one another: '{rows[at].label}' ends after '{rows[at + 1].label}' begins"
        )
    numbers = np.array([ids.get(s.label, outside) for s in rows], dtype=np.int64)
    centres = frame_centres(num_frames, frame_rate, offset)
    place = np.searchsorted(starts - _ROUNDING, centres, side="right") - 1
    inside = (place >= 0) & (centres < ends[np.maximum(place, 0)] - _ROUNDING)
    return np.where(inside, numbers[np.maximum(place, 0)], outside)


def frames_within(start: float, end: float, num_frames: int, frame_rate: float, offset: float = 0.0) -> tuple[int, int]:
    """First frame whose middle lies in [start, end), and the one after the last; equal where there is none.

    >>> frames_within(0.02, 0.05, 100, 100.0)
    (2, 5)
    """
    low, high = (int(np.ceil((time - offset - _ROUNDING) * frame_rate)) for time in (start, end))
    low = min(max(low, 0), num_frames)
    return low, min(max(high, low), num_frames)


def nearest_frames(
    num_frames: int,
    frame_rate: float,
    offset: float,
    *,
    of: tuple[int, float, float],
) -> Int[np.ndarray, " frame"]:
    """For each frame of one row the frame of another whose middle is nearest; of two equally near the earlier.

    Args:
        num_frames, frame_rate, offset: the row that is asked for.
        of: frames, frame rate and offset of the row that is chosen from.

    Raises:
        DataError: the other row is empty.

    >>> nearest_frames(3, 50.0, 0.0, of=(6, 100.0, 0.0)).tolist()
    [0, 2, 4]
    """
    count, rate, start = of
    if count < 1 and num_frames:
        raise DataError(f"there is no frame to choose from for {num_frames} frames")
    places = (frame_centres(num_frames, frame_rate, offset) - start) * rate
    return np.clip(np.ceil(places - 0.5 - _ROUNDING * rate), 0, max(0, count - 1)).astype(np.int64)


def segments_of(
    labels: Shaped[np.ndarray, " frame"],
    frame_rate: float,
    *,
    names: Sequence[Hashable] | None = None,
    offset: float = 0.0,
    outside: int = -1,
) -> tuple[Segment, ...]:
    """Runs of equal labels as segments; a frame stands for half a frame on either side of its middle.

    Args:
        labels: of each frame.
        frame_rate: frames a second.
        names: what each number is called; the number itself where None.
        offset: seconds to the middle of the first frame; what would begin before the recording begins with it.
        outside: number of frames that belong to no segment.

    >>> [(s.start, s.duration, s.label) for s in segments_of(np.array([4, 4, 7]), 50.0, offset=0.01)]
    [(0.0, 0.04, '4'), (0.04, 0.02, '7')]
    """
    if not len(labels):
        return ()
    borders = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    first = np.concatenate([[0], borders])
    last = np.concatenate([borders, [len(labels)]])
    times = np.round(np.maximum(0.0, offset + (np.stack([first, last]) - 0.5) / frame_rate), 9)
    rows = zip(times[0].tolist(), times[1].tolist(), labels[first].tolist())
    named = ((start, end, value) for start, end, value in rows if value != outside)
    return tuple(
        Segment(start, round(end - start, 9), str(value if names is None else names[value]))
        for start, end, value in named
    )
