"""What all quantisers share: the batch around a codebook.

A codebook works on single frames `(n, dim)`: it is a part, an `nn.Module` that keeps the small interface `Codebook`.
`Quantizer` puts a padded batch around any of them: only valid frames reach the codebook, so padding counts neither in values
nor in penalties nor in statistics; products are taken in float32 whatever comes in; draws come from each item's seed. Parts
nest: `residual.Residual` and `product.Product` are codebooks made of codebooks, `projected.Projected` puts linear maps
around one.
"""

from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.seed import integers
from sonorant.core.types import Codes, Features

__all__ = [
    "Codebook", "FrameCodes", "FrameSeeds", "Quantized", "Quantizer", "code_counts", "joint_codes", "mean_square",
    "perplexity", "straight_through",
]  # fmt: skip


class FrameSeeds(NamedTuple):
    """Where a frame's draws come from."""

    item: Int[Tensor, " n"]
    """The seed of the item that the frame is of: the same for all its frames."""
    frame: Int[Tensor, " n"]
    """A seed of the frame's own."""


class FrameCodes(NamedTuple):
    """What a codebook makes of frames."""

    values: Float[Tensor, "n dim"]
    """Quantised; gradients pass straight through where the codebook has any."""
    ids: Int[Tensor, "n codebook"]
    """-1 where a residual level was dropped in training."""
    penalty: Float[Tensor, ""]
    """To be added to the loss: weighted, a mean over frames."""


@runtime_checkable
class Codebook(Protocol):
    """A quantiser of single frames."""

    dim: int
    """Width of the frames that go in."""
    output_dim: int
    """Width of those that come out; the same but for few."""
    codebook_sizes: tuple[int, ...]

    def __call__(self, frames: Tensor, seeds: FrameSeeds) -> FrameCodes:
        """Quantises; in training it may draw, and update statistics."""
        ...

    def ids(self, frames: Tensor) -> Tensor:
        """Indices `(n, codebook)` without draws, updates or gradients."""
        ...

    def vectors(self, ids: Tensor) -> Tensor:
        """The frames `(n, dim)` that indices stand for."""
        ...


class Quantized(NamedTuple):
    """What a quantiser makes of a padded batch."""

    values: Float[Tensor, "batch frame dim"]
    """Quantised, of the type that came in; zero in the padding."""
    ids: Int[Tensor, "batch codebook frame"]
    """Indices; 0 in the padding, -1 where a residual level was dropped in training."""
    penalty: Float[Tensor, ""]
    """To be added to a mean loss: weighted, a mean over valid frames."""
    usage: Float[Tensor, " codebook"]
    """Perplexity of each codebook's indices in this batch: 1 when one code is used, its size when all are used alike."""


class Quantizer(nn.Module):
    """A codebook with a padded batch around it.

    Args:
        codebook: a part that keeps the interface `Codebook`.

    >>> from sonorant.nn.quantize.finite_scalar import FiniteScalar
    >>> quantizer = Quantizer(FiniteScalar((5, 5)))
    >>> found = quantizer(torch.tensor([[[0.1, 9.0], [-9.0, 0.0]]]), torch.tensor([1]))
    >>> found.values.tolist(), found.ids.tolist()
    ([[[0.0, 1.0], [0.0, 0.0]]], [[[22, 0]]])
    """

    def __init__(self, codebook: nn.Module) -> None:
        super().__init__()
        self.codebook = codebook
        part = self.part
        self.dim, self.output_dim, self.codebook_sizes = part.dim, part.output_dim, tuple(part.codebook_sizes)

    @property
    def part(self) -> Codebook:
        """The codebook, as its interface."""
        return cast(Codebook, self.codebook)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        lengths: Int[Tensor, " batch"],
        seeds: Int[Tensor, " batch"] | None = None,
    ) -> Quantized:
        """Quantises a padded batch.

        Args:
            values: frames; what stands in the padding does not matter.
            lengths: frames of each item.
            seeds: one an item, for codebooks that draw in training; by default drawn from torch's generator.
        """
        mask = valid_mask(lengths, values.shape[1])
        frames = self._frames(values, mask)
        with torch.autocast(values.device.type, enabled=False):
            found = self.part(frames, _frame_seeds(seeds, mask))
        blank = values.new_zeros(*mask.shape, self.output_dim)
        # Not masked_scatter: on a CPU its gradient takes ten times as long.
        quantised = blank.index_put((mask,), found.values.to(values.dtype))
        ids = found.ids.new_zeros(*mask.shape, found.ids.shape[1])
        ids[mask] = found.ids
        usage = torch.stack([perplexity(code_counts(column, size)) for column, size in self._columns(found.ids)])
        return Quantized(quantised, ids.transpose(1, 2), found.penalty, usage)

    @torch.no_grad()
    def encode(self, features: Features) -> Codes:
        """Features → codes at the same frame rate; the same in training and in evaluation."""
        mask = valid_mask(features.lengths, features.values.shape[1])
        with torch.autocast(features.values.device.type, enabled=False):
            found = self.part.ids(self._frames(features.values, mask))
        ids = found.new_zeros(*mask.shape, found.shape[1])
        ids[mask] = found
        return Codes(ids.transpose(1, 2), features.lengths, features.frame_rate, self.codebook_sizes)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Features:
        """Codes → features, float32.

        Raises:
            DataError: another number of codebooks, or sizes that are not this quantiser's.
        """
        if tuple(codes.codebook_sizes) != self.codebook_sizes:
            raise DataError(f"codes have codebooks of {codes.codebook_sizes}, this quantiser {self.codebook_sizes}")
        mask = valid_mask(codes.lengths, codes.ids.shape[2])
        vectors = self.part.vectors(codes.ids.transpose(1, 2)[mask])
        values = vectors.new_zeros(*mask.shape, self.output_dim)
        values[mask] = vectors
        return Features(values, codes.lengths, codes.frame_rate)

    def _frames(self, values: Tensor, mask: Tensor) -> Tensor:
        if values.shape[-1] != self.dim:
            raise ConfigError(f"this quantiser takes frames {self.dim} wide, got {values.shape[-1]}")
        return values[mask].float()

    def _columns(self, ids: Tensor) -> Any:
        return zip(ids.unbind(dim=1), self.codebook_sizes, strict=True)


def _frame_seeds(seeds: Tensor | None, mask: Tensor) -> FrameSeeds:
    if seeds is None:
        seeds = torch.randint(2**62, (len(mask),)).to(mask.device)
    frames = integers(seeds, "frame", mask.shape[1], high=2**47)
    return FrameSeeds(seeds[:, None].expand(mask.shape)[mask], frames[mask])


def joint_codes(ids: Int[Tensor, "batch codebook frame"], sizes: tuple[int, ...]) -> Int[Tensor, "batch frame"]:
    """One number for the codes of all codebooks.

    >>> joint_codes(torch.tensor([[[1, 0], [2, 3]]]), (5, 10)).tolist()
    [[12, 3]]
    """
    joint = torch.zeros_like(ids[:, 0])
    for column, size in zip(ids.unbind(dim=1), sizes, strict=True):
        joint = joint * size + column
    return joint


def straight_through(frames: Float[Tensor, "n dim"], quantised: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """The quantised values with the gradient of the frames (arXiv:1308.3432).

    >>> x = torch.tensor([[0.4]], requires_grad=True)
    >>> straight_through(x, x.round()).backward()
    >>> x.grad.tolist()
    [[1.0]]
    """
    # The sum is exact only up to rounding, so the values are put in as they are: what is decoded later is the same.
    return _StraightThrough.apply(frames, quantised.detach())  # type: ignore[no-any-return, no-untyped-call]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, quantised: Tensor) -> Tensor:
        return quantised.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def mean_square(first: Float[Tensor, "n dim"], second: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Mean squared difference; 0 where there are no frames."""
    return (first - second).square().sum() / max(first.numel(), 1)


def code_counts(ids: Int[Tensor, " n"], size: int) -> Float[Tensor, " size"]:
    """How often each code occurs; indices below 0 are left out."""
    return torch.bincount(ids + 1, minlength=size + 1)[1:].float()


def perplexity(weights: Float[Tensor, "*rest code"]) -> Float[Tensor, "*rest"]:
    """exp of the entropy of a distribution, given up to its scale: how many codes are in use.

    >>> float(perplexity(torch.tensor([3.0, 3.0, 0.0])))
    2.0
    """
    shares = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-20)
    # A share of exactly 0 has the gradient 0 / 0 under its own logarithm.
    return torch.exp(-torch.xlogy(shares, shares.clamp(min=1e-20)).sum(dim=-1))
