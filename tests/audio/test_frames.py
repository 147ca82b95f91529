"""Framing: where windows stand, and what stands beyond the ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.frames import WINDOWS, Framing, map_frames, window
from sonorant.core.errors import ConfigError

EDGES = st.sampled_from(["snip", "mirror", "zero", "reflect"])


def plain(signal: np.ndarray, framing: Framing) -> np.ndarray:
    """The windows of one item by a loop over samples."""
    geometry, count = framing.geometry, len(signal)

    def at(step: int) -> float:
        if 0 <= step < count:
            return float(signal[step])
        if framing.edges == "zero" or count == 0:
            return 0.0
        while not 0 <= step < count:
            if framing.edges == "mirror":
                step = -1 - step if step < 0 else 2 * count - 1 - step
            elif count == 1:
                step = 0
            else:
                step = -step if step < 0 else 2 * (count - 1) - step
        return float(signal[step])

    starts = [frame * framing.hop - geometry.left for frame in range(geometry.output_lengths(count))]
    return np.array([[at(start + i) for i in range(framing.size)] for start in starts]).reshape(-1, framing.size)


@given(
    size=st.integers(1, 12), hop=st.integers(1, 14), edges=EDGES,
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), extra=st.integers(0, 9), ragged=st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_windows_are_the_loops(size: int, hop: int, edges: str, counts: list[int], extra: int, ragged: bool) -> None:
    framing = Framing(size, hop, edges)
    if not ragged:
        counts, extra = counts[:1] * len(counts), 0
    waveform = torch.full((len(counts), max(counts) + extra), float("nan"))
    for item, count in enumerate(counts):
        waveform[item, :count] = torch.arange(1.0, count + 1) + 100 * item
    lengths = torch.tensor(counts) if ragged else None
    frames = map_frames(waveform, lengths, framing, lambda rows: rows * 1, size)
    for item, count in enumerate(counts):
        reference = plain(waveform[item, :count].numpy(), framing)
        assert np.array_equal(frames[item, : len(reference)].numpy(), reference)
        assert not frames[item, len(reference) :].any()


def test_many_rows_are_worked_in_blocks_and_none_is_lost() -> None:
    waveform = torch.arange(3 * 5000.0).reshape(3, 5000)
    frames = map_frames(waveform, None, Framing(4, 2), lambda rows: rows * 1, 4)
    assert torch.equal(frames, waveform.unfold(1, 4, 2))
    sizes: list[int] = []

    def work(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows * 1

    map_frames(waveform, None, Framing(4, 2), work, 4)
    assert len(sizes) > 1
    assert min(sizes) >= 16


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_symmetric_and_peak_at_one(name: str) -> None:
    taps = window(name, 401, dtype=torch.float64)
    assert torch.allclose(taps, taps.flip(0), atol=1e-12)
    assert abs(float(taps.max()) - 1) < 1e-12
    assert float(taps.argmax()) in (0.0, 200.0)


def test_periodic_hann_is_torchs() -> None:
    assert torch.allclose(window("hann", 400, periodic=True), torch.hann_window(400), atol=1e-6)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="hop=0"):
        Framing(400, 0)
    with pytest.raises(ConfigError, match="did you mean 'hamming'"):
        window("haming", 400)
