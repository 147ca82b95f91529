"""Convolutions that do not see their own middle, for predicting a frame from its surroundings (NPC, arXiv:2011.00406)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding

__all__ = ["MaskedAggregate", "MaskedConv"]


class MaskedConv(nn.Module):
    """A convolution of `kernel_size` frames without the `mask_size` in its middle (equation 3).

    Only the taps outside the mask exist: they are two convolutions, one before the mask and one behind it, and cost what
    they hold.

    Args:
        input_dim: width that comes in.
        dim: width that comes out.
        kernel_size: frames from the first to the last tap, odd.
        mask_size: frames in the middle that are not seen, odd, below `kernel_size`.
    """

    def __init__(self, input_dim: int, dim: int, kernel_size: int, mask_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or mask_size % 2 == 0 or not 0 < mask_size < kernel_size:
            raise ConfigError(
                "a masked convolution needs odd sizes with mask_size < kernel_size, "
                f"got mask_size={mask_size} and kernel_size={kernel_size}"
            )
        self.reach = kernel_size // 2
        self.taps = (kernel_size - mask_size) // 2
        self.before = nn.Conv1d(input_dim, dim, self.taps)
        self.behind = nn.Conv1d(input_dim, dim, self.taps, bias=False)
        for conv in (self.before, self.behind):
            nn.init.kaiming_uniform_(conv.weight, a=11**0.5)  # as one convolution over both sides would be

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        """Frames in, frames out; beyond an item's ends stand zeros."""
        around = (self.reach, self.reach)
        padded = nn.functional.pad(zero_padding(values, lengths).transpose(1, 2), around)
        width = values.shape[1] + self.taps - 1
        before, behind = padded[..., :width], padded[..., padded.shape[-1] - width :]
        return (self.before(before) + self.behind(behind)).transpose(1, 2)


class MaskedAggregate(nn.Module):
    """The sum of tanh(masked convolution) over a stack of layers, blind to the same input frames from each of them.

    Layer i (from 1) of a stack whose frames see `growth · i` input frames more on either side than the first needs a mask
    that is wider by as much, so that the input frames in the middle stay unseen (section 2.2).

    Args:
        dim: width of the layers, and of what comes out.
        num_layers: layers of the stack.
        kernel_size: of all masked convolutions.
        mask_size: input frames in the middle that must not be seen, odd.
        growth: input frames by which a layer's sight grows on either side.
    """

    def __init__(self, dim: int, num_layers: int, kernel_size: int = 15, mask_size: int = 5, growth: int = 1) -> None:
        super().__init__()
        widest = mask_size + 2 * growth * num_layers
        if widest >= kernel_size:
            raise ConfigError(
                f"kernel_size must exceed mask_size + {2 * growth} · num_layers = {widest}, or the last layer's masked "
                f"convolution holds nothing, got kernel_size={kernel_size}"
            )
        self.mask_size = mask_size
        self.convs = nn.ModuleList(
            MaskedConv(dim, dim, kernel_size, mask_size + 2 * growth * layer) for layer in range(1, num_layers + 1)
        )

    def forward(
        self, outputs: Sequence[Float[Tensor, "batch frame dim"]], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        """What comes out of each layer, first to last, to one sequence."""
        if len(outputs) != len(self.convs):
            raise ConfigError(f"this aggregate takes {len(self.convs)} layers, got {len(outputs)}")
        seen = [torch.tanh(conv(output, lengths)) for conv, output in zip(self.convs, outputs, strict=True)]
        return torch.stack(seen).sum(0)
