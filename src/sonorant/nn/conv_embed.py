"""The Zipformer's front end (arXiv:2310.11230, section 3.1): three convolutions and a ConvNeXt block, half the frames."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry, zero_padding
from sonorant.nn.limits import Balancer
from sonorant.nn.linear import Linear
from sonorant.nn.swoosh import swoosh_l, swoosh_r

__all__ = ["ConvEmbed"]

Count = TypeVar("Count", int, Tensor)
KERNEL = 7
"""Frames and bands that the ConvNeXt block's depthwise convolution sees."""


class ConvEmbed(nn.Module):
    """Frames of `channels[-1]` × bands from log-mel, every second frame.

    Args:
        input_dim: mel bands.
        channels: of the three convolutions.
        causal: the ConvNeXt block looks back only, so that it can stream.
        limit: keep activations in bounds by `Balancer` while training.
    """

    def __init__(self, input_dim: int, channels: Sequence[int], causal: bool = False, limit: bool = False) -> None:
        super().__init__()
        first, second, third = channels
        bands = ((input_dim - 3) // 2 + 1 - 3) // 2 + 1
        if bands < 1:
            raise ConfigError(f"input_dim={input_dim} is too small for this front end; give 9 mel bands or more")
        self.geometry = Geometry.chain([(3, 1), (3, 2), (3, 1)])
        self.stride, self.valid_field = self.geometry.stride, self.geometry.receptive_field
        self.left, self.right = (KERNEL - 1, 0) if causal else (KERNEL // 2, KERNEL // 2)
        self.dim = third * bands
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(1, first, 3, padding=(0, 1)),
                nn.Conv2d(first, second, 3, stride=2),
                nn.Conv2d(second, third, 3, stride=(1, 2)),
            ]
        )
        self.depthwise = nn.Conv2d(third, third, KERNEL, groups=third, padding=(0, KERNEL // 2))
        self.expand = Linear(third, 3 * third)
        self.contract = Linear(3 * third, third)
        with torch.no_grad():
            self.contract.weight.mul_(0.01)
            self.contract.bias.mul_(0.01)
        self.balancer = Balancer(max_abs=1.0) if limit else None

    @property
    def receptive_field(self) -> int:
        """Input frames that one output frame sees."""
        return self.valid_field + (KERNEL - 1) * self.stride

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out; the three convolutions do not pad."""
        return self.geometry.output_lengths(lengths)

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch out dim"], Int[Tensor, " batch"]]:
        if values.shape[1] < self.valid_field:  # too short for one window: zeros are cut off again by the lengths
            values = nn.functional.pad(values, (0, 0, 0, self.valid_field - values.shape[1]))
        image = self._thinned(zero_padding(values, lengths))
        lengths = self.output_lengths(lengths)
        # The ConvNeXt block pads in time, so what stands beyond an item must be as if nothing were there.
        image = zero_padding(image.transpose(1, 2), lengths).transpose(1, 2)
        padded = nn.functional.pad(image, (0, 0, self.left, self.right))
        return zero_padding(self._mixed(image, padded), lengths), lengths

    def step(self, window: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """A chunk from its input frames and the past of the ConvNeXt block; returns the output and the new past."""
        image = self._thinned(window)
        if past is None:
            past = image.new_zeros(*image.shape[:2], self.left, image.shape[3])
        padded = torch.cat([past, image], dim=2)
        return self._mixed(image, padded), padded[:, :, padded.shape[2] - self.left :]

    def _thinned(self, values: Tensor) -> Tensor:
        # (batch, 1, frame, band), with channels side by side in memory: on a CPU the backward is three times faster.
        image = values.unsqueeze(1).to(memory_format=torch.channels_last)
        for conv in self.convs:
            image = conv(image)
            image = swoosh_r(image if self.balancer is None else self.balancer(image.movedim(1, -1)).movedim(-1, 1))
        return image

    def _mixed(self, image: Tensor, padded: Tensor) -> Tensor:
        """The ConvNeXt block (arXiv:2201.03545): depthwise, out to three times the channels, and back."""
        hidden = self._depthwise(padded).movedim(1, -1)  # (batch, frame, band, channel)
        return (image.movedim(1, -1) + self.contract(swoosh_l(self.expand(hidden)))).flatten(2)

    def _depthwise(self, padded: Tensor) -> Tensor:
        if padded.device.type != "cpu" or torch.compiler.is_compiling():
            return self.depthwise(padded)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else padded.dtype
        if dtype not in (torch.bfloat16, torch.float16):
            return self.depthwise(padded)
        # As in nn/convolution.py: the kernel for short types is not to be relied on.
        conv = self.depthwise
        with torch.autocast("cpu", enabled=False):
            weight, bias = conv.weight.float(), None if conv.bias is None else conv.bias.float()
            mixed = nn.functional.conv2d(padded.float(), weight, bias, padding=conv.padding, groups=conv.groups)
        return mixed.to(dtype)
