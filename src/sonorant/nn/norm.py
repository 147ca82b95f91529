"""Normalisations whose statistics never see padding.

All share one call, `norm(values (batch, frame, dim), lengths)`. `LayerNorm` and `RmsNorm` work frame by frame, so an item
comes out the same in any batch, in training too. `BatchNorm` counts valid frames only: in training an item depends on
its batch (that is what it is for), never on how much the batch was padded. `GroupNorm` (and `InstanceNorm`, one group a
channel) takes its statistics over the frames of one item; it cannot stream.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.lengths import valid_mask

__all__ = ["NORMS", "BatchNorm", "GroupNorm", "LayerNorm", "RmsNorm", "build_norm", "instance_norm"]


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over `dim` (arXiv:1607.06450)."""

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return super().forward(values)


class RmsNorm(nn.RMSNorm):
    """Division by the root mean square over `dim` (arXiv:1910.07467); no mean is subtracted."""

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return super().forward(values)


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv:1502.03167) with statistics over the valid frames of the batch.

    Args:
        dim: channels.
        momentum: weight of the new batch in the running statistics.
        eps: added to the variance.

    The names of parameters and buffers are those of `nn.BatchNorm1d`, so weights pass between them.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        if self.training:
            mean, var = self._statistics(values, lengths)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + self.eps)
        return values * scale.to(values.dtype) + (self.bias - mean * scale).to(values.dtype)

    def _statistics(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = valid_mask(lengths, values.shape[1])[..., None]
        count = lengths.sum().clamp(min=1)
        mean = torch.where(mask, values, 0).sum((0, 1), dtype=torch.float32) / count
        # The second pass over the centred values keeps precision where the mean is large against the deviation.
        var = torch.where(mask, values - mean.to(values.dtype), 0).square().sum((0, 1), dtype=torch.float32) / count
        with torch.no_grad():
            unbiased = var * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked += 1
        return mean, var


class GroupNorm(nn.Module):
    """Group normalisation (arXiv:1803.08494) over each item's valid frames and the channels of a group.

    Args:
        num_groups: must divide `dim`; `dim` groups make instance normalisation, 1 makes one mean for the whole item.
        dim: channels.
    """

    def __init__(self, num_groups: int, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        if dim % num_groups:
            raise ConfigError(f"num_groups must divide dim, got num_groups={num_groups} and dim={dim}")
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        grouped = values.unflatten(-1, (self.num_groups, -1))  # (batch, frame, group, channels of a group)
        mask = valid_mask(lengths, values.shape[1])[..., None, None]
        count = (lengths.clamp(min=1) * grouped.shape[-1])[:, None, None, None]
        mean = torch.where(mask, grouped, 0).sum((1, 3), keepdim=True) / count
        centred = torch.where(mask, grouped - mean, 0)
        var = centred.square().sum((1, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(var + self.eps)).flatten(-2).to(values.dtype)
        return normed * self.weight + self.bias

    def channels_first(
        self, values: Float[Tensor, "batch dim frame"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim frame"]:
        """The same where channels stand before frames, as convolutions have them: faster than to turn a waveform's worth of
        frames round. What stands in the padding must be finite; what comes out there is of no meaning."""
        sizes = (self.num_groups, -1)
        mask = valid_mask(lengths, values.shape[2])[:, None]
        count = (lengths.clamp(min=1) * (values.shape[1] // self.num_groups))[:, None]
        sums = (values * mask).sum(2, dtype=torch.float32)  # (batch, dim)
        mean = (sums.unflatten(1, sizes).sum(2) / count).repeat_interleave(values.shape[1] // self.num_groups, dim=1)
        centred = (values - mean[..., None].to(values.dtype)) * mask
        squares = centred.square().sum(2, dtype=torch.float32).unflatten(1, sizes).sum(2) / count
        scale = torch.rsqrt(squares + self.eps).repeat_interleave(values.shape[1] // self.num_groups, dim=1)
        scale = scale * self.weight
        shift = self.bias - mean * scale
        return torch.addcmul(shift[..., None].to(values.dtype), values, scale[..., None].to(values.dtype))


def instance_norm(dim: int) -> GroupNorm:
    """Each channel of each item by its own mean and deviation over the valid frames (arXiv:1607.08022)."""
    return GroupNorm(dim, dim)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": LayerNorm,
    "rms": RmsNorm,
    "batch": BatchNorm,
    "group": lambda dim: GroupNorm(8 if dim % 8 == 0 else 1, dim),
    "instance": instance_norm,
}
"""Name → builder from `dim`."""


def build_norm(name: str, dim: int) -> nn.Module:
    """A normalisation by its name in `NORMS`.

    >>> build_norm("layer", 4)(torch.zeros(1, 2, 4), torch.tensor([2])).shape
    torch.Size([1, 2, 4])
    """
    if name not in NORMS:
        raise ConfigError(unknown_name("norm", name, NORMS))
    return NORMS[name](dim)
