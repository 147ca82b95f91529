"""Streaming: what a frame may see when audio comes in chunks, and the caches that make a chunked run equal the whole one.

A chunk of `chunk_size` frames sees itself, all of it, and `left_chunks` chunks before. Trained with `chunk_mask` over whole
utterances, a network gives the same frames when it is fed chunk by chunk: keys and values of the past are cached, causal
convolutions keep their last frames, and the front end keeps the input frames that the next window still needs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError

__all__ = ["FrameBuffer", "LayerCache", "check_chunks", "chunk_mask", "trim"]


def check_chunks(chunk_size: int | None, left_chunks: int | None, causal: bool) -> None:
    """Refuses a configuration that cannot stream though it speaks of chunks.

    Raises:
        ConfigError: chunks of no frames, convolutions that look ahead, or a past that is counted in chunks there are none of.
    """
    if chunk_size is not None:
        at_least("chunk_size", chunk_size, 1)
        if not causal:
            raise ConfigError("chunk_size needs causal=True: a centred convolution would look beyond the chunk")
    elif left_chunks is not None:
        raise ConfigError("left_chunks is counted in chunks; give chunk_size too")


def chunk_mask(
    num_frames: int, chunk_size: int, left_chunks: int | None = None, device: torch.device | str = "cpu"
) -> Bool[Tensor, "query key"]:
    """True where `query` may look at `key`.

    Args:
        num_frames: frames of the sequence.
        chunk_size: frames of a chunk.
        left_chunks: how many chunks back can be seen; all of them where None.

    >>> chunk_mask(4, 2, left_chunks=0).int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    if chunk_size < 1 or (left_chunks is not None and left_chunks < 0):
        raise ConfigError(f"chunk_size must be ≥ 1 and left_chunks ≥ 0, got {chunk_size} and {left_chunks}")
    chunk = torch.arange(num_frames, device=device) // chunk_size
    behind = chunk[:, None] - chunk[None, :]
    return behind >= 0 if left_chunks is None else (behind >= 0) & (behind <= left_chunks)


class LayerCache(NamedTuple):
    """What one layer remembers between chunks."""

    key: Float[Tensor, "batch head past headdim"]
    value: Float[Tensor, "batch head past headdim"]
    conv: Float[Tensor, "batch before dim"]
    """The last frames that went into the causal convolution; of no frames where the layer has none."""


def trim(past: Tensor, num_frames: int | None, axis: int) -> Tensor:
    """The last `num_frames` steps of an axis; all of them where None."""
    size = past.shape[axis]
    return past if num_frames is None or size <= num_frames else past.narrow(axis, size - num_frames, num_frames)


class FrameBuffer:
    """Input frames waiting until a strided window can make a whole chunk of output frames from them.

    Args:
        stride: input frames from one output frame to the next.
        receptive_field: input frames that one output frame sees.
        chunk_size: output frames of a chunk.
    """

    def __init__(self, stride: int, receptive_field: int, chunk_size: int) -> None:
        self.stride = stride * chunk_size
        self.window = self.stride - stride + receptive_field
        self.receptive_field = receptive_field
        self.waiting: Tensor | None = None

    def push(self, values: Float[Tensor, "batch frame dim"]) -> list[Tensor]:
        """Takes any number of frames; returns the windows that became complete, one a chunk."""
        waiting = values if self.waiting is None else torch.cat([self.waiting, values], dim=1)
        windows = []
        while waiting.shape[1] >= self.window:
            windows.append(waiting[:, : self.window])
            waiting = waiting[:, self.stride :]
        self.waiting = waiting
        return windows

    def finish(self) -> Tensor | None:
        """What is left, if it suffices for one output frame at least; the buffer is empty afterwards."""
        left, self.waiting = self.waiting, None
        return left if left is not None and left.shape[1] >= self.receptive_field else None
