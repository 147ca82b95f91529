"""Cutting waveforms into frames so that an item's frames never depend on its neighbours in the batch.

`Framing` says where windows stand; `map_frames` runs a function over the rows of windows; `FramedFeatures` is a module of
it. On the way items are laid end to end in one signal, each on a multiple of the hop, so that all windows of a batch are
one strided view without a copy, and the padding of a ragged batch is not computed at all. Accelerators and traced graphs
take the padded batch as it is.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.core.types import Features

__all__ = ["WINDOWS", "Edges", "FramedFeatures", "Framing", "map_frames", "window"]

Count = TypeVar("Count", int, Tensor)

Edges = Literal["snip", "mirror", "zero", "reflect"]

WINDOWS = ("povey", "hann", "hamming", "blackman", "sine", "rectangular")

# A block of rows whose temporaries stay in a core's L2 cache.
_BLOCK_ROWS = 256
# Below this BLAS takes other kernels, which round differently; a short item would then differ from itself in a batch.
_LEAST_ROWS = 16


def window(name: str, size: int, periodic: bool = False, dtype: torch.dtype = torch.float32) -> Float[Tensor, " time"]:
    """A window function of `size` samples, computed in double precision.

    Args:
        name: one of `WINDOWS`. `"povey"` is Kaldi's, a Hann window to the power 0.85.
        size: samples.
        periodic: one period of `size` samples, as spectrograms of the STFT world want it; else symmetric, as Kaldi's.
        dtype: of what comes back.

    >>> window("hann", 4, periodic=True).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    last = max(1, size if periodic else size - 1)
    turn = torch.arange(size, dtype=torch.float64) * (2 * math.pi / last)
    if name == "hann":
        values = 0.5 - 0.5 * torch.cos(turn)
    elif name == "povey":
        values = (0.5 - 0.5 * torch.cos(turn)).pow(0.85)
    elif name == "hamming":
        values = 0.54 - 0.46 * torch.cos(turn)
    elif name == "blackman":
        values = 0.42 - 0.5 * torch.cos(turn) + 0.08 * torch.cos(2 * turn)
    elif name == "sine":
        values = torch.sin(turn / 2)
    elif name == "rectangular":
        values = torch.ones_like(turn)
    else:
        raise ConfigError(unknown_name("window", name, WINDOWS))
    return values.to(dtype)


@dataclass(frozen=True)
class Framing:
    """Windows of `size` samples every `hop` samples.

    `edges` says what stands beyond an item's ends:
    - `"snip"`: nothing; only windows that fit (Kaldi's `snip_edges=true`).
    - `"mirror"`: the signal mirrored between samples, windows centred on each hop (Kaldi's `snip_edges=false`).
    - `"zero"`, `"reflect"`: windows centred on multiples of the hop, zeros or the signal mirrored on its end sample
      (librosa's `center=True` with `pad_mode="constant"` or `"reflect"`).

    >>> Framing(400, 160).geometry.output_lengths(16000), Framing(400, 160, "mirror").geometry.output_lengths(16000)
    (98, 100)
    """

    size: int
    hop: int
    edges: Edges = "snip"

    def __post_init__(self) -> None:
        if self.size < 1 or self.hop < 1:
            raise ConfigError(f"frames need size ≥ 1 and hop ≥ 1 sample, got size={self.size} and hop={self.hop}")
        if self.edges not in get_args(Edges):
            raise ConfigError(unknown_name("edges", self.edges, get_args(Edges)))

    @property
    def geometry(self) -> Geometry:
        """Frames for samples."""
        if self.edges == "snip":
            return Geometry(self.hop, self.size)
        if self.edges == "mirror":
            left = self.size // 2 - self.hop // 2
            return Geometry(self.hop, self.size, left, self.size - self.hop + self.hop // 2 - left)
        return Geometry(self.hop, self.size, self.size // 2, self.size // 2)

    def extend(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None) -> Tensor:
        """The signal with its edges: `(batch, left + time + right)`; each item's right edge stands at its own end.

        What lies beyond an item's right edge is not defined.
        """
        left, right = self.geometry.left, self.geometry.right
        if self.edges == "snip":
            return waveform
        if self.edges == "zero":
            return F.pad(waveform if lengths is None else zero_padding(waveform, lengths), (left, right))
        time = waveform.shape[1]
        if time == 0:
            return F.pad(waveform, (0, max(0, left + right)))
        if lengths is None or min(left, right) < 0:
            # One length, or hops wider than windows: every position is looked up.
            steps = torch.arange(-left, max(-left, time + right), device=waveform.device)
            if lengths is None:
                return waveform[:, self._folded(steps, time)]
            return self._gathered(waveform, steps.expand(lengths.shape[0], -1), lengths)
        # Only the edges are gathered: the left one is shared, the right one moves with the length.
        head = torch.arange(-left, 0, device=waveform.device)[None, :].expand(lengths.shape[0], -1)
        first = self._gathered(waveform, head, lengths)
        tail = lengths[:, None] + torch.arange(right, device=waveform.device)
        last = self._gathered(waveform, tail, lengths)
        body = torch.cat([first, F.pad(waveform, (0, right))], dim=1)
        return body.scatter(1, tail + left, last)

    def _gathered(self, waveform: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
        values = waveform.gather(1, self._folded(steps, lengths[:, None]))
        # An item without samples has nothing to mirror: what stands there is padding.
        return torch.where(lengths[:, None] > 0, values, 0.0)

    def _folded(self, steps: Tensor, length: int | Tensor) -> Tensor:
        """Positions beyond the ends folded back into the signal, as often as it takes."""
        if isinstance(length, Tensor):
            length = length.clamp(min=1)
        if self.edges == "mirror":
            steps = steps % (2 * length)
            mirrored = 2 * length - 1 - steps
        else:
            period = (2 * (length - 1)).clamp(min=1) if isinstance(length, Tensor) else max(1, 2 * (length - 1))
            steps = steps % period
            mirrored = period - steps
        return torch.where(steps < length, steps, mirrored)


class FramedFeatures(nn.Module):
    """Features that are a function of one window each: what is left to a kind is `_rows`.

    Args:
        framing: where the windows stand.
        dim: columns.
        sample_rate: Hz.
    """

    def __init__(self, framing: Framing, dim: int, sample_rate: int) -> None:
        super().__init__()
        self.framing, self.dim, self.sample_rate = framing, dim, sample_rate

    @property
    def geometry(self) -> Geometry:
        """Where the frames stand."""
        return self.framing.geometry

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.geometry.frame_rate(self.sample_rate)

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    @abstractmethod
    def _rows(self, rows: Tensor) -> Tensor:
        """As `work` of `map_frames`."""

    def forward(self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None) -> Features:
        """Features of each item; zeros beyond an item's own frames."""
        values = map_frames(waveform, lengths, self.framing, self._rows, self.dim)
        if lengths is None:
            lengths = torch.full((waveform.shape[0],), waveform.shape[1], device=waveform.device)
        return Features(values, self.output_lengths(lengths), self.frame_rate)


def map_frames(
    waveform: Float[Tensor, "batch time"],
    lengths: Int[Tensor, " batch"] | None,
    framing: Framing,
    work: Callable[[Tensor], Tensor],
    dim: int,
) -> Float[Tensor, "batch frame dim"]:
    """`work` on the windows of each item.

    Args:
        waveform: samples.
        lengths: samples of each item; all of them where None.
        framing: where the windows stand.
        work: from windows `(row, size)`, a view that must not be written to, to `(row, dim)`; row by row, and from
            zeros to something finite.
        dim: columns that `work` gives.

    Returns:
        `(batch, frame, dim)`, as many frames as the longest item has, zeros beyond an item's own.
    """
    if torch.compiler.is_compiling() or waveform.device.type != "cpu":
        return _map_dense(waveform, lengths, framing, work, dim)
    ragged = lengths is not None and bool((lengths != waveform.shape[1]).any())
    if not ragged:
        return _map_even(framing.extend(waveform, None), waveform.shape[1], framing, work, dim)
    assert lengths is not None
    extended = framing.extend(waveform, lengths)
    counts = framing.geometry.output_lengths(lengths).tolist()
    # Each item's windows, and zeros up to a multiple of the hop, so that the next item's windows fall in step.
    needs = [(count - 1) * framing.hop + framing.size if count else 0 for count in counts]
    hops = [math.ceil(need / framing.hop) for need in needs]
    extended = F.pad(extended, (0, max(0, max(needs, default=0) - extended.shape[1])))
    slots = zip(extended, needs, hops, strict=True)
    flat = torch.cat([F.pad(item[:need], (0, hop * framing.hop - need)) for item, need, hop in slots])
    if max(counts, default=0) == 0:
        return waveform.new_zeros(len(counts), 0, dim)
    rows = _map_rows(flat.unfold(0, framing.size, framing.hop), work)
    items, start = [], 0
    for count, hop in zip(counts, hops, strict=True):
        items.append(rows[start : start + count])
        start += hop
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True)


def _map_dense(
    waveform: Tensor, lengths: Tensor | None, framing: Framing, work: Callable[[Tensor], Tensor], dim: int
) -> Tensor:
    """Padding and all, in few large steps: for accelerators, and for graphs, which must not look at lengths."""
    count = framing.geometry.output_lengths(waveform.shape[1])
    if lengths is not None:
        waveform = zero_padding(waveform, lengths)
    rows = framing.extend(waveform, lengths).unfold(1, framing.size, framing.hop)[:, :count]
    values = work(rows.reshape(-1, framing.size)).view(waveform.shape[0], count, dim)
    if lengths is None:
        return values
    counts = framing.geometry.output_lengths(lengths)
    values = zero_padding(values, counts)
    return values if torch.compiler.is_compiling() else values[:, : int(counts.max()) if len(counts) else 0]


def _map_even(extended: Tensor, time: int, framing: Framing, work: Callable[[Tensor], Tensor], dim: int) -> Tensor:
    """Items of one length."""
    batch, count = extended.shape[0], framing.geometry.output_lengths(time)
    if count == 0 or batch == 0:
        return extended.new_zeros(batch, count, dim)
    if batch == 1:
        return _map_rows(extended[0].unfold(0, framing.size, framing.hop)[:count], work)[None]
    hops = math.ceil(((count - 1) * framing.hop + framing.size) / framing.hop)
    flat = F.pad(extended, (0, hops * framing.hop - extended.shape[1])).reshape(-1)
    rows = flat.unfold(0, framing.size, framing.hop)
    return _map_rows(rows, work, batch * hops).view(batch, hops, dim)[:, :count].contiguous()


def _map_rows(rows: Tensor, work: Callable[[Tensor], Tensor], total: int = 0) -> Tensor:
    """`work` on blocks of rows, with rows of zeros behind up to `total`."""
    count = rows.shape[0]
    if count < _LEAST_ROWS:
        blocks = [work(F.pad(rows, (0, 0, 0, _LEAST_ROWS - count)))[:count]]
    else:
        # Threads share a block, so that they meet as seldom as one thread would.
        parts = -(-count // (_BLOCK_ROWS * torch.get_num_threads()))
        edges = [count * part // parts for part in range(parts + 1)]
        blocks = [work(rows[start:end]) for start, end in itertools.pairwise(edges)]
    if total > count:
        blocks.append(blocks[0].new_zeros(total - count, blocks[0].shape[1]))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
