"""Short-time Fourier transform and its inverse, invariant to the batch they run in.

`torch.stft` mirrors and `torch.istft` normalises at the end of the tensor, so a short item's last frames depend on how
far it was padded. Here both ends are the item's own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from sonorant.audio.frames import Edges, Framing, window
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import Geometry, valid_mask

__all__ = ["Stft", "istft", "magnitude", "stft"]


def stft(
    waveform: Float[Tensor, "*batch time"],
    n_fft: int = 512,
    hop_length: int = 128,
    win_length: int | None = None,
    window_name: str = "hann",
    edges: Edges = "zero",
    lengths: Int[Tensor, " item"] | None = None,
) -> Complex[Tensor, "*batch freq frame"]:
    """Short-time spectra.

    Args:
        waveform: samples.
        n_fft: length of the transform, samples.
        hop_length: samples between frames.
        win_length: samples of the window, centred in the transform; `n_fft` where None.
        window_name: one of `sonorant.audio.frames.WINDOWS`, periodic.
        edges: as in `Framing`; `"zero"` and `"reflect"` centre the frames on multiples of the hop.
        lengths: samples of each item, where the waveform is `(batch, time)` with padding.

    Returns:
        `n_fft // 2 + 1` bins; frames beyond an item's own are zero.
    """
    framing = Framing(n_fft, hop_length, edges)
    flat = waveform.reshape(-1, waveform.shape[-1])
    if lengths is not None and len(lengths) != len(flat):
        raise ConfigError(f"lengths must hold one length an item, got {len(lengths)} for {len(flat)} items")
    count = framing.geometry.output_lengths(flat.shape[1])
    taps = _window(window_name, win_length, n_fft, waveform)
    if count == 0 or len(flat) == 0:
        return torch.zeros(*waveform.shape[:-1], n_fft // 2 + 1, count, dtype=taps.to(torch.complex64).dtype)
    rows = framing.extend(flat, lengths).unfold(1, n_fft, hop_length)[:, :count]
    spectrum = torch.fft.rfft(rows * taps)
    if lengths is not None:
        spectrum = spectrum * valid_mask(framing.geometry.output_lengths(lengths), count)[:, :, None]
    return spectrum.mT.reshape(*waveform.shape[:-1], n_fft // 2 + 1, count)


def istft(
    spectrum: Complex[Tensor, "*batch freq frame"],
    hop_length: int = 128,
    win_length: int | None = None,
    window_name: str = "hann",
    edges: Edges = "zero",
    length: int | None = None,
    lengths: Int[Tensor, " item"] | None = None,
) -> Float[Tensor, "*batch time"]:
    """The signal whose spectra are nearest, in least squares, to the ones given (Griffin and Lim, 1984, eq. 6).

    Args:
        spectrum: as `stft` gives it; the other arguments as they were there.
        hop_length: samples between frames.
        win_length: samples of the window.
        window_name: of `stft`.
        edges: of `stft`.
        length: samples to give back; as many as the frames stand for where None.
        lengths: samples of each item; its frames alone count, and zeros follow its end.
    """
    n_fft = 2 * (spectrum.shape[-2] - 1)
    framing = Framing(n_fft, hop_length, edges)
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    count = flat.shape[-1]
    if length is None:
        length = int(lengths.max()) if lengths is not None else framing.geometry.input_length(count)
    frames = torch.fft.irfft(flat, n=n_fft, dim=1)
    taps = _window(window_name, win_length, n_fft, frames)[:, None]
    counts = None if lengths is None else framing.geometry.output_lengths(lengths)
    mask = frames.new_ones(1, count) if counts is None else valid_mask(counts, count).to(frames.dtype)
    mask = mask[:, None, :]
    summed = _overlap_add(frames * taps * mask, hop_length)
    weight = _overlap_add(taps.square() * mask, hop_length)
    left = framing.geometry.left
    total = F.pad(summed, (0, max(0, left + length - summed.shape[1])))[:, left : left + length]
    weight = F.pad(weight, (0, max(0, left + length - weight.shape[1])))[:, left : left + length]
    # Where no window reaches there is nothing to restore.
    signal = torch.where(weight > 1e-8, total / weight.clamp(min=1e-8), 0.0)
    if lengths is not None:
        signal = signal * valid_mask(lengths, length)
    return signal.reshape(*spectrum.shape[:-2], length)


def _overlap_add(frames: Float[Tensor, "batch time frame"], hop: int) -> Float[Tensor, "batch total"]:
    size, count = frames.shape[1:]
    total = (count - 1) * hop + size
    return F.fold(frames, (1, total), (1, size), stride=(1, hop))[:, 0, 0]


def _window(name: str, size: int | None, n_fft: int, like: Tensor) -> Tensor:
    size = size or n_fft
    if size > n_fft:
        raise ConfigError(f"win_length must not exceed n_fft, got win_length={size} and n_fft={n_fft}")
    left = (n_fft - size) // 2
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return F.pad(window(name, size, periodic=True, dtype=dtype), (left, n_fft - size - left)).to(like.device)


class Stft(nn.Module):
    """`stft` and `istft` with the same settings.

    >>> transform, waveform = Stft(n_fft=256, hop_length=64), torch.randn(2, 1000)
    >>> spectrum, lengths = transform(waveform, torch.tensor([1000, 700]))
    >>> spectrum.shape, lengths.tolist()
    (torch.Size([2, 129, 16]), [16, 11])
    >>> back = transform.inverse(spectrum, torch.tensor([1000, 700]))
    >>> torch.allclose(back[1, :700], waveform[1, :700], atol=1e-5)
    True
    """

    def __init__(
        self,
        n_fft: int = 512,
        hop_length: int = 128,
        win_length: int | None = None,
        window_name: str = "hann",
        edges: Edges = "zero",
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.win_length = n_fft, hop_length, win_length
        self.window_name, self.edges = window_name, edges
        self.framing = Framing(n_fft, hop_length, edges)

    @property
    def geometry(self) -> Geometry:
        """Where the frames stand."""
        return self.framing.geometry

    def output_lengths(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames for samples."""
        return self.geometry.output_lengths(lengths)

    def forward(
        self, waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Complex[Tensor, "batch freq frame"], Int[Tensor, " batch"]]:
        """Spectra and the number of frames of each item."""
        spectrum = stft(
            waveform, self.n_fft, self.hop_length, self.win_length, self.window_name, self.edges, lengths=lengths
        )
        return spectrum, self.output_lengths(lengths)

    def inverse(
        self, spectrum: Complex[Tensor, "batch freq frame"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch time"]:
        """The signal of `lengths` samples each."""
        return istft(spectrum, self.hop_length, self.win_length, self.window_name, self.edges, lengths=lengths)


def magnitude(spectrum: Complex[Tensor, "*batch freq frame"], floor: float = 0.0) -> Float[Tensor, "*batch freq frame"]:
    """Magnitude with a gradient that is finite at zero once `floor` > 0: sqrt(|s|² + floor²)."""
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + floor * floor) if floor else spectrum.abs()
