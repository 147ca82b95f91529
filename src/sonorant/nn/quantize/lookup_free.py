"""Lookup-free quantisation (LFQ, arXiv:2310.05737, section 3.1): the sign of each dimension is one bit of the index."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.nn.quantize.quantizer import FrameCodes, FrameSeeds, mean_square, straight_through

__all__ = ["LookupFree"]


class LookupFree(nn.Module):
    """The corners of a cube, ±1 a dimension.

    Args:
        num_bits: dimensions; the codebook has 2^num_bits codes.
        entropy_weight: of the penalty H(q|z) - `diversity`·H(q), equation 5: sure of each frame, all codes used.
        diversity: see there.
        commitment: weight of |z - sg(q)|².
        inverse_temperature: of the softmax over corners that entropies are taken of.

    The first dimension is the highest bit. For more than 14 bits take a product of several: the entropy looks at all codes.
    """

    _corners: Tensor

    def __init__(
        self,
        num_bits: int = 10,
        *,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        commitment: float = 0.25,
        inverse_temperature: float = 100.0,
    ) -> None:
        super().__init__()
        within("num_bits", num_bits, 1, 14)
        at_least("inverse_temperature", inverse_temperature, 0)
        self.dim = self.output_dim = num_bits
        self.codebook_sizes = (2**num_bits,)
        self.entropy_weight, self.diversity, self.commitment = entropy_weight, diversity, commitment
        self.inverse_temperature = inverse_temperature
        self.register_buffer("_basis", 2 ** torch.arange(num_bits - 1, -1, -1), persistent=False)
        self.register_buffer("_corners", self.vectors(torch.arange(2**num_bits)[:, None]), persistent=False)

    _basis: Tensor

    def forward(self, frames: Float[Tensor, "n dim"], seeds: FrameSeeds) -> FrameCodes:
        corners = torch.where(frames > 0, 1.0, -1.0)
        penalty = self.entropy_weight * self._entropies(frames) + self.commitment * mean_square(frames, corners)
        return FrameCodes(straight_through(frames, corners), self.ids(frames), penalty)

    @torch.no_grad()
    def ids(self, frames: Float[Tensor, "n dim"]) -> Int[Tensor, "n codebook"]:
        return ((frames > 0) * self._basis).sum(dim=1, keepdim=True)

    def vectors(self, ids: Int[Tensor, "n codebook"]) -> Float[Tensor, "n dim"]:
        return ((ids & self._basis) != 0).float() * 2 - 1

    def _entropies(self, frames: Tensor) -> Tensor:
        if not len(frames):
            return frames.sum()
        logits = 2 * self.inverse_temperature * frames @ self._corners.T  # -|z - c|² up to what all corners share
        logs = logits.log_softmax(dim=1)
        chances = logs.exp()
        each = -(chances * logs).sum(dim=1).mean()
        mean = chances.mean(dim=0)
        return each - self.diversity * -torch.xlogy(mean, mean.clamp(min=1e-20)).sum()
