import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonorant.core.alignment import (
    first_centre,
    frame_centres,
    frame_labels,
    frames_within,
    nearest_frames,
    segments_of,
)
from sonorant.core.errors import DataError
from sonorant.core.lengths import Geometry
from sonorant.core.types import Segment

IDS = {"a": 0, "b": 1, "c": 2}


@given(
    borders=st.lists(st.integers(1, 400), min_size=1, max_size=8, unique=True),
    rate=st.sampled_from([25.0, 50.0, 100.0, 86.1328125]),
    offset=st.integers(0, 30),
)
def test_each_frame_bears_the_label_of_the_segment_it_lies_in(borders: list[int], rate: float, offset: int) -> None:
    edges = [0, *sorted(borders)]
    said = [Segment(a / 200, (b - a) / 200, "abc"[i % 3]) for i, (a, b) in enumerate(zip(edges, edges[1:]))]
    start = offset / 997
    found = frame_labels(said, 60, rate, ids=IDS, offset=start)
    for centre, label in zip(frame_centres(60, rate, start), found, strict=True):
        inside = [s.label for s in said if s.start <= centre < s.end]
        near = any(abs(centre - time) < 2e-6 for s in said for time in (s.start, s.end))
        assert near or label == (IDS[inside[0]] if inside else -1)


def test_a_middle_on_a_border_lies_behind_it_however_the_border_was_rounded() -> None:
    for border in (0.03, 0.0300004, 0.0299996):
        said = [Segment(0.0, border, "a"), Segment(border, 0.07, "b")]
        assert frame_labels(said, 5, 100.0, ids=IDS).tolist() == [0, 0, 0, 1, 1]
    assert frame_labels([Segment(0.0, 0.02, "a")], 4, 100.0, ids=IDS).tolist() == [0, 0, -1, -1]


def test_labels_that_are_not_wanted_and_segments_that_overlap() -> None:
    said = [Segment(0.0, 0.1, "sil"), Segment(0.1, 0.1, "a")]
    assert frame_labels(said, 4, 20.0, ids=IDS, offset=0.025, outside=-9).tolist() == [-9, -9, 0, 0]
    assert frame_labels([], 2, 20.0, ids=IDS).tolist() == [-1, -1]
    with pytest.raises(DataError, match="'sil' ends after 'a' begins"):
        frame_labels([Segment(0.0, 0.2, "sil"), Segment(0.1, 0.2, "a")], 4, 20.0, ids=IDS)


@pytest.mark.parametrize("geometry", [
    Geometry.conv(400, 160), Geometry.conv(3, 2, 1).then(Geometry.conv(5, 4)), Geometry.conv(401, 100, 200),
    Geometry.chain([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]),
])  # fmt: skip
def test_the_first_middle_follows_from_the_number_of_frames_alone(geometry: Geometry) -> None:
    assert first_centre(geometry.output_lengths, 16000) == pytest.approx(geometry.center(0, 16000))
    with pytest.raises(DataError, match="no frame"):
        first_centre(lambda n: 0, 16000)


@given(start=st.floats(0, 1), length=st.floats(0, 1), offset=st.sampled_from([0.0, 0.0125, 0.03]))
def test_frames_within_a_stretch_are_those_whose_middle_lies_in_it(start: float, length: float, offset: float) -> None:
    first, end = frames_within(start, start + length, 40, 25.0, offset)
    centres = frame_centres(40, 25.0, offset)
    sure = np.flatnonzero((centres > start + 2e-6) & (centres < start + length - 2e-6))
    possible = np.flatnonzero((centres > start - 2e-6) & (centres < start + length + 2e-6))
    assert set(sure) <= set(range(first, end)) <= set(possible)


@given(
    count=st.integers(1, 50), rates=st.tuples(*[st.sampled_from([25.0, 50.0, 100.0])] * 2), shift=st.floats(-0.02, 0.02)
)
def test_the_nearest_frame_is_nearest(count: int, rates: tuple[float, float], shift: float) -> None:
    found = nearest_frames(count, rates[0], 0.02, of=(40, rates[1], 0.02 + shift))
    wanted, given_ = frame_centres(count, rates[0], 0.02), frame_centres(40, rates[1], 0.02 + shift)
    best = np.abs(wanted[:, None] - given_).min(1)
    assert np.allclose(np.abs(wanted - given_[found]), best, atol=4e-6)
    assert nearest_frames(20, 50.0, 0.02, of=(20, 50.0, 0.02)).tolist() == list(range(20))
    with pytest.raises(DataError, match="no frame"):
        nearest_frames(2, 50.0, 0.0, of=(0, 50.0, 0.0))


@given(st.lists(st.integers(-1, 2), max_size=30), st.sampled_from([0.01, 0.0125, 0.03]))
def test_segments_of_labels_give_the_labels_back(labels: list[int], offset: float) -> None:
    row = np.array(labels, dtype=np.int64)
    said = segments_of(row, 50.0, names=["a", "b", "c"], offset=offset)
    assert frame_labels(said, len(row), 50.0, ids=IDS, offset=offset).tolist() == labels
