"""Search for the nearest centre, block by block: one matrix product and one maximum for each block.

The nearest centre maximises x·c - |c|²/2, so |x|² is never needed. Centres are shifted by their mean first, which changes
no order and keeps the numbers small: with features far from the origin the difference of two large numbers is avoided.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Nearest", "Precision", "search_dtype"]

Precision = Literal["auto", "float32", "bfloat16"]


def search_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which products are taken: for `"auto"` bfloat16 where the chip multiplies it faster, else float32.

    Products are accumulated in float32 either way; bfloat16 can mistake centres whose distances differ by less than about
    a hundredth of |x|², which moves the inertia of a fit by less than a thousandth.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu":
        return torch.float32
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, so their absence must not matter
    native = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


class Nearest:
    """Centres made ready for the search.

    Args:
        centers: any number of them.
        dtype: in which products are taken.
        centered: the frames' mean is about zero already, so that nothing need be shifted.

    >>> search = Nearest(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    >>> search(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))[0].tolist()
    [0, 1]
    """

    def __init__(
        self, centers: Float[Tensor, "cluster dim"], dtype: torch.dtype = torch.float32, centered: bool = False
    ) -> None:
        centers = centers.float()
        self.centered = centered
        self.shift = torch.zeros_like(centers[0]) if centered else centers.mean(dim=0)
        moved = centers - self.shift
        self.half_squares = moved.square().sum(dim=1) / 2
        self.matrix, self.dtype = moved.T, dtype
        if dtype != torch.float32:
            # |c|²/2 goes into the product as further columns, three parts of eight bits each: to subtract it from scores
            # of another type afterwards costs half as much as the product.
            rest, parts = self.half_squares, []
            for _ in range(3):
                parts.append(rest.to(dtype))
                rest = rest - parts[-1].float()
            self.matrix = torch.cat([moved.to(dtype), -torch.stack(parts, dim=1)], dim=1).T
        self._widened = moved.new_empty(0, 0, dtype=dtype)

    @property
    def block_size(self) -> int:
        """Frames of a block whose scores stay in the cache (CPU) or fit beside the rest (GPU)."""
        values = 1 << (21 if self.matrix.device.type == "cpu" else 27)
        return min(max(values // self.matrix.shape[1], 256), 65536)

    def block(self, values: Float[Tensor, "n dim"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """For one block: the nearest centre, and |x - shift|² minus the squared distance to it, halved."""
        if self.dtype == torch.float32:
            # Only the product with the shift is missing, and that is the same for each frame: one number a centre.
            offset = self.half_squares + self.shift @ self.matrix
            scores = torch.addmm(-offset, values.float(), self.matrix)
        else:
            # The shift goes first here: rounding a large mean to eight bits would drown what differs.
            scores = self._widen(values if self.centered else values.float() - self.shift) @ self.matrix
        best, ids = scores.max(dim=1)
        return ids, best.float()

    def _widen(self, values: Tensor) -> Tensor:
        """The frames in the type of the product, with ones beside them; the room for them is kept for the next block."""
        if len(self._widened) != len(values):
            self._widened = values.new_ones(len(values), len(self.matrix), dtype=self.dtype)
        self._widened[:, : values.shape[1]] = values
        return self._widened

    def blocks(self, values: Float[Tensor, "n dim"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Cuts the frames into blocks: (frames, ids, score) of each."""
        for part in values.split(self.block_size):
            yield (part, *self.block(part))

    def __call__(self, values: Float[Tensor, "n dim"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """For any number of frames: the nearest centre, and its squared distance (at least 0)."""
        if len(values) == 0:
            return values.new_zeros(0, dtype=torch.long), values.new_zeros(0, dtype=torch.float32)
        found = [(ids, self._distances(part, score)) for part, ids, score in self.blocks(values)]
        return torch.cat([ids for ids, _ in found]), torch.cat([distances for _, distances in found])

    def _distances(self, values: Tensor, score: Tensor) -> Tensor:
        return ((values.float() - self.shift).square().sum(dim=1) - 2 * score).clamp(min=0)
