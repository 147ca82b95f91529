"""Blocks one after another: what comes out of each on request, a hook between them, and chunk by chunk.

For families whose blocks are called `block(values, lengths) -> values`, and, where they can stream,
`block.step(values, state) -> (values, state)`: `run_blocks` and `BlockStream`, which gives each frame as soon as it can.
Encoders that work in chunks of a fixed size stream by `ChunkStream`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.streaming import FrameBuffer
from sonorant.nn.transformer import Between

__all__ = ["BlockStream", "ChunkStream", "FrontStream", "run_blocks"]


def run_blocks(
    embedded: Features,
    blocks: Iterable[Callable[[Tensor, Tensor], Tensor]],
    layers: bool = False,
    between: Between | None = None,
) -> Features | list[Features]:
    """The frames after all blocks.

    Args:
        embedded: what enters the first block.
        blocks: each `(values, lengths) -> values`.
        layers: give back what enters the first block and what comes out of each instead.
        between: is given what enters each block and how many blocks it has been through; returns what the block gets.
    """
    entering, outputs = embedded, [embedded]
    for index, block in enumerate(blocks, start=1):
        if between is not None:
            entering = between(index - 1, entering)
        values = zero_padding(block(entering.values, entering.lengths), entering.lengths)
        entering = Features(values, entering.lengths, embedded.frame_rate)
        outputs.append(entering)
    return outputs if layers else outputs[-1]


@runtime_checkable
class FrontStream(Protocol):
    """A front end in chunks."""

    def push(self, values: Tensor) -> Tensor:
        """Takes steps of the input; gives the frames `(batch, frame, dim)` that became complete, perhaps none."""
        ...

    def finish(self) -> Tensor:
        """The last frames; ready for another signal afterwards."""
        ...


class _Through:
    """The front end of encoders that take features as they are."""

    def __init__(self, batch: int, dim: int, like: Tensor) -> None:
        self.nothing = like.new_zeros(batch, 0, dim)

    def push(self, values: Tensor) -> Tensor:
        return values

    def finish(self) -> Tensor:
        return self.nothing


class BlockStream:
    """An encoder of blocks that look back only, chunk by chunk (module in `eval()`).

    Args:
        encoder: with `blocks`, `dim`, `local_dim` and `frame_rate`.
        batch: signals that grow together.
        front: its front end in chunks; frames go in as they are where None.
    """

    def __init__(self, encoder: Any, batch: int = 1, front: FrontStream | None = None) -> None:
        self.encoder, self.batch = encoder, batch
        like = next(encoder.parameters())
        self.front = _Through(batch, encoder.local_dim, like) if front is None else front
        self.states: list[Any] = [None] * len(encoder.blocks)

    def push(self, values: Tensor) -> Features:
        """Takes any number of steps; returns the frames that came out (perhaps none)."""
        return self._advance(self.front.push(values))

    def finish(self) -> Features:
        """The last frames; the stream is then ready for another signal."""
        features = self._advance(self.front.finish())
        self.states = [None] * len(self.states)
        return features

    @torch.no_grad()
    def _advance(self, frames: Tensor) -> Features:
        if frames.shape[1] == 0:
            frames = frames.new_zeros(self.batch, 0, self.encoder.dim)
        else:
            for index, block in enumerate(self.encoder.blocks):
                frames, self.states[index] = block.step(frames, self.states[index])
        lengths = torch.full((self.batch,), frames.shape[1], device=frames.device)
        return Features(frames, lengths, self.encoder.frame_rate)


class ChunkStream:
    """An encoder of whole chunks, with the same frames as the whole signal at once gives (module in `eval()`).

    Args:
        encoder: with `dim` and `frame_rate`.
        buffer: makes windows of its input, one a chunk.
        begin: called at the start of each signal; gives what makes frames of one window after another, and remembers.
        batch: signals that grow together.
    """

    def __init__(
        self, encoder: Any, buffer: FrameBuffer, begin: Callable[[], Callable[[Tensor], Tensor]], batch: int = 1
    ) -> None:
        self.encoder, self.buffer, self.begin, self.batch = encoder, buffer, begin, batch
        self.chunk = begin()

    def push(self, values: Tensor) -> Features:
        """Takes any number of frames; returns those that came out, in whole chunks (perhaps none)."""
        return self._features([self.chunk(window) for window in self.buffer.push(values)], values)

    def finish(self) -> Features:
        """The frames of the last, incomplete chunk; the stream is then ready for another signal."""
        rest = self.buffer.finish()
        chunks = [] if rest is None else [self.chunk(rest)]
        self.chunk = self.begin()
        return self._features(chunks, next(self.encoder.parameters()))

    def _features(self, chunks: list[Tensor], like: Tensor) -> Features:
        values = torch.cat(chunks, dim=1) if chunks else like.new_zeros(self.batch, 0, self.encoder.dim)
        lengths = torch.full((values.shape[0],), values.shape[1], device=values.device)
        return Features(values, lengths, self.encoder.frame_rate)
