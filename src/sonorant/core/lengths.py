"""Lengths, masks, and the arithmetic of whatever makes frames from samples.

`Geometry` answers for a stack of strided windows: how many frames come out, at what rate, how far each one sees.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

__all__ = ["Geometry", "lengths_of", "pad", "padding_mask", "valid_mask", "zero_padding"]

Count = TypeVar("Count", int, Tensor)


def valid_mask(lengths: Int[Tensor, " batch"], max_length: int | None = None) -> Bool[Tensor, "batch time"]:
    """True where there is signal.

    >>> valid_mask(torch.tensor([1, 3])).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    if max_length is None:
        max_length = int(lengths.max()) if lengths.numel() else 0
    return torch.arange(max_length, device=lengths.device)[None, :] < lengths[:, None]


def padding_mask(lengths: Int[Tensor, " batch"], max_length: int | None = None) -> Bool[Tensor, "batch time"]:
    """True where padded (torch's sense of `key_padding_mask`)."""
    return ~valid_mask(lengths, max_length)


def lengths_of(padding_mask: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Lengths behind a padding mask whose padding stands at the end."""
    return (~padding_mask).sum(dim=1)


def zero_padding(values: Shaped[Tensor, "batch time *rest"], lengths: Int[Tensor, " batch"]) -> Tensor:
    """`values (batch, time, …)` with zeros from each item's length on."""
    beyond = padding_mask(lengths, values.shape[1])
    # Filled, not multiplied: what stands in the padding may not be a number.
    return values.masked_fill(beyond.view(*beyond.shape, *[1] * (values.dim() - 2)), 0)


def pad(items: Sequence[Shaped[Tensor, "_ *rest"]], value: float = 0) -> tuple[Tensor, Tensor]:  # noqa: F821
    """Items of unequal length as one tensor `(batch, time, …)`, and their lengths.

    >>> padded, lengths = pad([torch.ones(1), torch.ones(2)])
    >>> padded.tolist(), lengths.tolist()
    ([[1.0, 0.0], [1.0, 1.0]], [1, 2])
    """
    lengths = torch.tensor([len(item) for item in items], dtype=torch.long)
    return torch.nn.utils.rnn.pad_sequence(list(items), batch_first=True, padding_value=value), lengths


@dataclass(frozen=True)
class Geometry:
    """A window of `receptive_field` steps that moves by `stride`, over a signal with `left + right` steps of padding.

    Geometries compose like the layers they describe; `Geometry()` is the identity.

    >>> wav2vec = Geometry.chain([(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)])
    >>> wav2vec.stride, wav2vec.receptive_field, wav2vec.output_lengths(16000)
    (320, 400, 49)
    """

    stride: int = 1
    receptive_field: int = 1
    left: int = 0
    """Steps of padding before the signal, in steps of the input."""
    right: int = 0

    @classmethod
    def conv(cls, kernel: int, stride: int = 1, padding: int | tuple[int, int] = 0, dilation: int = 1) -> "Geometry":
        """Of one convolution or pooling."""
        left, right = (padding, padding) if isinstance(padding, int) else padding
        return cls(stride, dilation * (kernel - 1) + 1, left, right)

    @classmethod
    def chain(cls, layers: Iterable[tuple[int, int] | tuple[int, int, int]]) -> "Geometry":
        """Of convolutions given as (kernel, stride) or (kernel, stride, padding).

        Exact only where no layer but the first pads; use `output_lengths` layer by layer otherwise (a padded inner layer
        pads its own, shorter input, and floors twice).
        """
        result = cls()
        for layer in layers:
            result = result.then(cls.conv(*layer))
        return result

    def then(self, other: "Geometry") -> "Geometry":
        """This one followed by `other`."""
        return Geometry(
            stride=self.stride * other.stride,
            receptive_field=self.receptive_field + (other.receptive_field - 1) * self.stride,
            left=self.left + other.left * self.stride,
            right=self.right + other.right * self.stride,
        )

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for `lengths` steps; 0 where the signal is shorter than the window."""
        frames = (lengths + (self.left + self.right - self.receptive_field)) // self.stride + 1
        return frames.clamp(min=0) if isinstance(frames, Tensor) else max(0, frames)

    def input_length(self, frames: int) -> int:
        """The fewest steps that give `frames` frames."""
        if frames <= 0:
            return 0
        return max(0, (frames - 1) * self.stride + self.receptive_field - self.left - self.right)

    def frame_rate(self, sample_rate: float) -> float:
        """Frames a second when the input has `sample_rate` steps a second."""
        return sample_rate / self.stride

    def center(self, frame: float, sample_rate: float) -> float:
        """Time in seconds of the middle of a frame's window."""
        return (frame * self.stride - self.left + (self.receptive_field - 1) / 2) / sample_rate

    def frame_at(self, second: float, sample_rate: float) -> int:
        """The frame whose window's middle is nearest to a time (never below 0)."""
        steps = second * sample_rate + self.left - (self.receptive_field - 1) / 2
        return max(0, math.floor(steps / self.stride + 0.5))
