"""Gammatone filterbank: the bands of the cochlea's model as signals, and their energies frame by frame.

The filter of fourth order at centre frequency f is t³·e^{-2πbt}·cos(2πft) with b = 1.019·ERB(f) (Patterson et al., 1987);
ERB(f) = 24.7·(4.37·f/1000 + 1) Hz (Glasberg and Moore, 1990).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.features.fbank import power_spectrum
from sonorant.audio.filters import fft_convolve
from sonorant.audio.frames import FramedFeatures, Framing, window
from sonorant.core.errors import ConfigError

__all__ = ["Gammatone", "erb", "erb_centers", "gammatone_bands", "gammatone_weights"]

# Glasberg and Moore's: the quality far up, and the bandwidth at 0 Hz.
_EAR_Q, _MIN_BANDWIDTH = 1000 / (24.7 * 4.37), 24.7


def erb(center_hz: Float[Tensor, " band"]) -> Float[Tensor, " band"]:
    """Equivalent rectangular bandwidth of the ear at a frequency, Hz."""
    return center_hz / _EAR_Q + _MIN_BANDWIDTH


def erb_centers(num_bands: int, low_hz: float, high_hz: float) -> Float[Tensor, " band"]:
    """Centre frequencies in Hz, rising, evenly spaced on the scale of equivalent rectangular bandwidths.

    >>> erb_centers(3, 100, 4000).round().tolist()
    [100.0, 950.0, 4000.0]
    """
    offset = _EAR_Q * _MIN_BANDWIDTH
    ends = math.log(low_hz + offset), math.log(high_hz + offset)
    return torch.exp(torch.linspace(*ends, num_bands, dtype=torch.float64)) - offset


def gammatone_weights(
    num_bands: int, n_fft: int, sample_rate: float, low_hz: float = 50.0, high_hz: float | None = None
) -> Float[Tensor, "freq band"]:
    """Power responses 1 / (1 + ((f - f_c)/b)²)⁴ at an FFT's bins, 1 at the centre; float64."""
    high = sample_rate / 2 if high_hz is None else high_hz
    if not 0 < low_hz < high <= sample_rate / 2 or num_bands < 1:
        raise ConfigError(
            f"gammatone bands need 0 < low_hz < high_hz ≤ {sample_rate / 2:g} Hz and num_bands ≥ 1, "
            f"got low_hz={low_hz:g}, high_hz={high:g} and num_bands={num_bands}"
        )
    centers = erb_centers(num_bands, low_hz, high)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft
    return (1 + ((bins - centers) / (1.019 * erb(centers))).square()).pow(-4)


def gammatone_bands(
    waveform: Float[Tensor, "*batch time"],
    sample_rate: float,
    num_bands: int = 64,
    low_hz: float = 50.0,
    high_hz: float | None = None,
    seconds: float = 0.128,
) -> Float[Tensor, "*batch band time"]:
    """The signal in each band, of gain 1 at the band's centre.

    Args:
        waveform: samples.
        sample_rate: Hz.
        num_bands: bands.
        low_hz: centre of the lowest band.
        high_hz: centre of the highest band; 0.9 of half the sample rate where None.
        seconds: of the impulse responses; at 50 Hz the response has died away by 80 dB after 0.128 s.
    """
    centers = erb_centers(num_bands, low_hz, 0.45 * sample_rate if high_hz is None else high_hz)
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    bandwidth = (2 * math.pi * 1.019 * erb(centers))[:, None]
    response = time.pow(3) * torch.exp(-bandwidth * time)
    # The integral of the envelope over time is 3!/(2πb)⁴; half of a cosine's energy lies at +f.
    response = response * torch.cos(2 * math.pi * centers[:, None] * time) * bandwidth.pow(4) / 3 / sample_rate
    return fft_convolve(waveform[..., None, :], response.to(waveform.device, waveform.dtype), "causal")


class Gammatone(FramedFeatures):
    """Log energies of gammatone bands, frame by frame.

    Args:
        sample_rate: Hz.
        num_bands: bands, evenly spaced in equivalent rectangular bandwidths.
        low_hz: centre of the lowest band.
        high_hz: centre of the highest band; half the sample rate where None.
        frame_length: seconds of the Hann window.
        hop: seconds.
        snip_edges: only frames that fit; else as many as there are hops, over a mirrored signal.
        log_floor: the natural logarithm of what is not below this; energies where None.

    >>> Gammatone(num_bands=32)(torch.randn(1, 16000)).values.shape
    torch.Size([1, 98, 32])
    """

    weights: Tensor
    taps: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        num_bands: int = 64,
        low_hz: float = 50.0,
        high_hz: float | None = None,
        frame_length: float = 0.025,
        hop: float = 0.01,
        snip_edges: bool = True,
        log_floor: float | None = 1e-10,
    ) -> None:
        size, step = round(sample_rate * frame_length), round(sample_rate * hop)
        super().__init__(Framing(size, step, "snip" if snip_edges else "mirror"), num_bands, sample_rate)
        self.log_floor = log_floor
        self.n_fft = 1 << (size - 1).bit_length()
        weights = gammatone_weights(num_bands, self.n_fft, sample_rate, low_hz, high_hz)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("taps", window("hann", size, periodic=True), persistent=False)

    def _rows(self, rows: Tensor) -> Tensor:
        energies = power_spectrum(rows * self.taps, self.n_fft) @ self.weights
        return energies if self.log_floor is None else energies.clamp(min=self.log_floor).log()
