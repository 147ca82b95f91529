"""Filtering a padded batch with a filter for each item, and the windowed sinc that band drops and codecs are made of."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["convolve", "sinc_lowpass"]


def convolve(
    waveform: Float[Tensor, "batch *channel time"], taps: Float[Tensor, "batch *one tap"], delay: int = 0
) -> Float[Tensor, "batch *channel time"]:
    """Each item convolved with its own filter, `delay` samples cut off the front, and as long as it came.

    Args:
        waveform: zeros beyond each item's length.
        taps: `(batch, tap)`, or `(batch, channel, tap)` with as many channels as the waveform, or one.
        delay: samples by which the filter is late (half its length for linear phase).
    """
    if taps.dim() < waveform.dim():
        taps = taps[:, None]
    num_samples, num_taps = waveform.shape[-1], taps.shape[-1]
    # Overlap and save in blocks whose size and place depend on the filter alone: a sample's rounding is then the same
    # however long the batch is padded, and no quantiser further down a chain can fall to the other side because of it.
    size = 1 << max(10, (4 * num_taps - 1).bit_length())
    step = size - num_taps + 1
    num_blocks = max(1, -(-(num_samples + delay) // step))
    padded = pad(waveform, (num_taps - 1, num_blocks * step - num_samples))
    spectra = torch.fft.rfft(padded.unfold(-1, size, step))
    blocks = torch.fft.irfft(_product(spectra, torch.fft.rfft(taps, size)[..., None, :]), size)[..., num_taps - 1 :]
    return blocks.flatten(-2)[..., delay : delay + num_samples]


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left · right, written out: torch's complex product rounds differently inside and at the end of a vector register."""
    real = left.real * right.real - left.imag * right.imag
    return torch.complex(real, left.real * right.imag + left.imag * right.real)


def sinc_lowpass(cutoff: Float[Tensor, "*batch"], half: int) -> Float[Tensor, "*batch tap"]:
    """Linear-phase low-pass filters of `2 half + 1` taps: sinc under a Blackman window, half amplitude at the cutoff.

    Args:
        cutoff: in cycles a sample; below 0 gives zeros, above 0.5 everything.
        half: taps on each side, which is also the delay in samples.
    """
    steps = torch.arange(-half, half + 1, device=cutoff.device, dtype=torch.float32)
    cutoff = cutoff.clamp(0, 0.5)[..., None]
    window = torch.blackman_window(2 * half + 3, periodic=False, device=cutoff.device)[1:-1].clamp(min=0)
    return 2 * cutoff * torch.sinc(2 * cutoff * steps) * window
