"""Items of unequal length one after another, so that padding is never computed.

A padded batch of speech is often half padding. What works frame by frame (norms, projections, feed-forwards: nearly all of
a Transformer) runs on `(frame, dim)` with the frames of all items in a row; what looks along time (attention,
convolution) is handed the items, those of equal length together, by `Layout.over_items`. The same layers also run on the
padded batch, masked: while a graph is exported or compiled, whose sizes may not depend on values, and on accelerators,
where many small kernels cost more than padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features

__all__ = ["Layout", "Run", "pack"]

Whole = Callable[[Tensor, Tensor | None], Tensor]
"""(items of one length (item, frame, …), lengths where some are padded else None) → (item, frame, …)."""


@dataclass(frozen=True)
class Run:
    """Neighbouring items with the same number of frames."""

    start: int
    """Row of the first frame."""
    count: int
    """Items."""
    num_frames: int
    """Of each."""


@dataclass(frozen=True)
class Layout:
    """Where each item's frames lie, in `(frame, …)` if `runs` are given, else in `(batch, frame, …)`."""

    lengths: Int[Tensor, " batch"]
    num_frames: int
    """Size of the padded frame axis."""
    runs: tuple[Run, ...] | None = None

    @property
    def longest(self) -> int:
        """Frames of the longest item, at least 1."""
        return self.num_frames if self.runs is None else max((run.num_frames for run in self.runs), default=1) or 1

    def over_items(self, function: Whole, values: Shaped[Tensor, "..."]) -> Tensor:
        """Applies what looks along time to items of equal length at once; keeps the layout."""
        if self.runs is None:
            return function(values, self.lengths)
        parts = []
        for run in self.runs:
            if run.num_frames == 0:
                continue
            rows = values[run.start : run.start + run.count * run.num_frames]
            parts.append(function(rows.unflatten(0, (run.count, run.num_frames)), None).flatten(0, 1))
        if not parts:  # no frame at all: one of zeros tells the width
            return function(values.new_zeros(1, 1, *values.shape[1:]), None)[0, :0]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def pack(self, values: Float[Tensor, "batch frame dim"]) -> Tensor:
        """From the padded batch into this layout; what stands in the padding does not matter."""
        if self.runs is None:  # zeroed at once: a NaN in the padding would live through products with masks
            return zero_padding(values, self.lengths)
        sizes = [run.num_frames for run in self.runs for _ in range(run.count)]
        if len(self.runs) == 1 and self.runs[0].num_frames == values.shape[1]:
            return values.flatten(0, 1)
        return torch.cat([values[item, :size] for item, size in enumerate(sizes)])

    def padded(self, values: Float[Tensor, "..."]) -> Float[Tensor, "batch frame dim"]:
        """Back to `(batch, frame, dim)` with zeros in the padding."""
        if self.runs is None:
            return zero_padding(values, self.lengths)
        if len(self.runs) == 1 and self.runs[0].num_frames == self.num_frames:
            return values.unflatten(0, (self.runs[0].count, self.num_frames))
        sizes = [run.num_frames for run in self.runs for _ in range(run.count)]
        items = torch.nn.utils.rnn.pad_sequence(values.split(sizes), batch_first=True)
        return torch.nn.functional.pad(items, (0, 0, 0, self.num_frames - items.shape[1]))

    def features(self, values: Float[Tensor, "..."], frame_rate: float) -> Features:
        """As `Features`, padded."""
        return Features(self.padded(values), self.lengths, frame_rate)


def pack(features: Features, packed: bool | None = None) -> tuple[Tensor, Layout]:
    """The frames of a padded batch, one after another where that saves work.

    Args:
        features: padded; what stands in the padding does not matter.
        packed: force one layout or the other; None packs what items there are on a CPU, outside of export and compilation.

    >>> values, layout = pack(Features(torch.ones(2, 3, 4), torch.tensor([3, 1]), 50.0), packed=True)
    >>> values.shape, layout.padded(values)[:, :, 0].tolist()
    (torch.Size([4, 4]), [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    """
    values, lengths = features.values, features.lengths
    if packed is None:
        packed = values.device.type == "cpu" and not torch.compiler.is_compiling() and len(lengths) > 0
    if not packed:
        layout = Layout(lengths, values.shape[1])
        return layout.pack(values), layout
    sizes = lengths.tolist()
    runs, start = [], 0
    for size, same in groupby(sizes):
        count = len(list(same))
        runs.append(Run(start, count, size))
        start += count * size
    layout = Layout(lengths, values.shape[1], tuple(runs))
    return layout.pack(values), layout
