"""Band-pass filters whose edges are learned: SincNet's first layer (arXiv:1808.00158)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.audio.frames import window
from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError

__all__ = ["SincConv", "sinc_filters"]


def sinc_filters(
    low: Float[Tensor, " filter"], high: Float[Tensor, " filter"], kernel_size: int
) -> Float[Tensor, "filter time"]:
    """Windowed band-pass filters of gain 1 between two edges (equations 4 and 5, Hamming window).

    Args:
        low: lower edges, in cycles a sample (0 … 0.5).
        high: upper edges, in cycles a sample.
        kernel_size: taps, odd, so that the filters are symmetric and delay nothing.

    The paper's code divides each filter by twice its width, which makes peaks of the impulse response equal; here gains
    are equal: what follows is normalised anyway, and a filter is then what its edges say.
    """
    half = kernel_size // 2
    steps = torch.arange(1, half + 1, device=low.device, dtype=low.dtype)
    turns = 2 * math.pi * steps
    # (sin 2πf₂n − sin 2πf₁n) / πn for n > 0, its limit 2(f₂ − f₁) at n = 0, and the mirror image for n < 0.
    right = (torch.sin(high[:, None] * turns) - torch.sin(low[:, None] * turns)) / (math.pi * steps)
    filters = torch.cat([right.flip(1), 2 * (high - low)[:, None], right], dim=1)
    return filters * window("hamming", kernel_size, dtype=torch.float64).to(filters)


class SincConv(nn.Module):
    """A waveform through `num_filters` band-pass filters with two learned numbers each: lower edge and width.

    Args:
        num_filters: bands, at first evenly spaced in mel from `min_low_hz` to half the sample rate.
        kernel_size: taps, odd.
        sample_rate: Hz.
        min_low_hz: no lower edge falls below it.
        min_band_hz: no band is narrower.

    >>> SincConv(8, 101)(torch.randn(2, 1600)).shape
    torch.Size([2, 8, 1600])
    """

    def __init__(
        self,
        num_filters: int = 64,
        kernel_size: int = 251,
        sample_rate: int = 16000,
        min_low_hz: float = 50.0,
        min_band_hz: float = 50.0,
    ) -> None:
        super().__init__()
        at_least("num_filters", num_filters, 1)
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ConfigError(f"kernel_size must be odd and at least 3, so that nothing is delayed, got {kernel_size}")
        if not 0 <= min_low_hz < sample_rate / 2 - min_band_hz:
            raise ConfigError(f"min_low_hz + min_band_hz must lie below {sample_rate / 2:g} Hz (half the sample rate)")
        self.num_filters, self.kernel_size, self.sample_rate = num_filters, kernel_size, sample_rate
        self.min_low_hz, self.min_band_hz = min_low_hz, min_band_hz
        lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (min_low_hz, sample_rate / 2 - min_band_hz))
        mels = torch.linspace(lowest, highest, num_filters + 1, dtype=torch.float64)
        edges = 700 * (10 ** (mels / 2595) - 1)
        # Kept as distances above the least allowed, in kHz: of the order of 1, as other weights are. None begins at 0, where
        # the magnitude has no slope.
        self.low = nn.Parameter(((edges[:-1] - min_low_hz).clamp(min=1.0) / 1000).float())
        self.band = nn.Parameter(((edges.diff() - min_band_hz).clamp(min=1.0) / 1000).float())

    def edges_hz(self) -> tuple[Float[Tensor, " filter"], Float[Tensor, " filter"]]:
        """Lower and upper edges, Hz."""
        kind = torch.promote_types(self.low.dtype, torch.float32)
        low = self.min_low_hz + 1000 * self.low.to(kind).abs()
        low = low.clamp(max=self.sample_rate / 2 - self.min_band_hz)
        high = (low + self.min_band_hz + 1000 * self.band.to(kind).abs()).clamp(max=self.sample_rate / 2)
        return low, high

    def filters(self) -> Float[Tensor, "filter time"]:
        """Impulse responses."""
        low, high = self.edges_hz()
        return sinc_filters(low / self.sample_rate, high / self.sample_rate, self.kernel_size)

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch filter time"]:
        """As many samples in each band as came in; zeros stand around the signal."""
        # Phases turn by hundreds of radians over a filter: it is computed in float32 whatever the weights are kept in.
        with torch.autocast(waveform.device.type, enabled=False):
            weight = self.filters().to(waveform.dtype)
        return nn.functional.conv1d(waveform[:, None], weight[:, None], padding=self.kernel_size // 2)
