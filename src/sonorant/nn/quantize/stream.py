"""Frames as a stream: cut anew into even blocks, checked, and a uniform sample of bounded size."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.seed import derive

__all__ = ["Reservoir", "even_blocks"]


def even_blocks(stream: Iterable[Float[Tensor, "_ dim"]], size: int) -> Iterator[Float[Tensor, "_ dim"]]:
    """The frames of `stream` in float32 blocks of exactly `size` (the last may be shorter).

    What is computed from them does not depend on how the stream was cut.

    Raises:
        DataError: a block is not (n, dim), differs in dim, or holds a value that is not finite; it is named by its place.
    """
    held: list[Tensor] = []
    count, dim = 0, None
    for number, block in enumerate(stream):
        dim = _checked(block, number, dim)
        rest = block.float()
        while len(rest):
            taken, rest = rest[: size - count], rest[size - count :]
            held.append(taken)
            count += len(taken)
            if count == size:
                yield held[0] if len(held) == 1 else torch.cat(held)
                held, count = [], 0
    if held:
        yield torch.cat(held)


def _checked(block: Tensor, number: int, dim: int | None) -> int:
    if block.dim() != 2:
        raise DataError(f"frames must come as blocks of (n, dim), got {tuple(block.shape)} for block {number}")
    if dim is not None and block.shape[1] != dim:
        raise DataError(f"block {number} of the frames is {block.shape[1]} wide, those before it {dim}")
    # A sum is not finite when any value is not; it reads the block once and writes nothing.
    if not bool(block.float().sum().isfinite()) and not bool(block.isfinite().all()):
        bad = (~block.isfinite()).any(dim=1).nonzero()[:, 0]
        raise DataError(
            f"block {number} of the frames holds values that are not finite, in {len(bad)} of its {len(block)} frames "
            f"(the first is frame {int(bad[0])}); find out which recording made it, or drop those frames"
        )
    return block.shape[1]


class Reservoir:
    """A uniform sample of a stream, without knowing how long that is.

    Each frame draws a key; those with the least keys stay (Efraimidis and Spirakis, 2006, with equal weights). The sample
    comes out in order of its keys, so each beginning of it is a uniform sample too.

    Args:
        size: frames that are held.
        seed: of the keys.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seen = size, 0
        self._generator = torch.Generator().manual_seed(derive(seed, "reservoir"))
        self._bound = float("inf")
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._held = 0

    def add(self, values: Float[Tensor, "n dim"]) -> None:
        """Offers frames; those that may stay are copied."""
        keys = torch.rand(len(values), dtype=torch.float64, generator=self._generator)
        self.seen += len(values)
        chosen = (keys < self._bound).nonzero()[:, 0]
        if len(chosen):
            self._parts.append((keys[chosen], values[chosen.to(values.device)]))
            self._held += len(chosen)
        # Thinned out only now and then: each time moves the whole sample.
        if self._held > self.size + self.size // 4 + 1:
            self._thin()

    def _thin(self) -> None:
        keys, rows = (torch.cat(parts) for parts in zip(*self._parts))
        keys, order = keys.sort()
        if len(keys) > self.size:
            self._bound = float(keys[self.size - 1])
        order = order[: self.size].to(rows.device)
        self._parts = [(keys[: self.size], rows[order])]
        self._held = len(order)

    @property
    def whole(self) -> bool:
        """Whether the sample holds all that was seen."""
        return self.seen <= self.size

    def sample(self) -> Float[Tensor, "kept dim"]:
        """What was kept, in random order.

        Raises:
            DataError: nothing was offered.
        """
        if not self._parts:
            raise DataError("the stream of frames is empty")
        self._thin()
        return self._parts[0][1]
