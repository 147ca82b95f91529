"""Log power spectra, frame by frame."""

import torch
from torch import Tensor

from sonorant.audio.features.fbank import power_spectrum
from sonorant.audio.frames import Edges, FramedFeatures, Framing, window
from sonorant.core.errors import ConfigError

__all__ = ["LogPower"]


class LogPower(FramedFeatures):
    """Natural logarithm of the power of each bin of the short-time spectrum.

    Args:
        sample_rate: Hz.
        n_fft: length of the transform; `n_fft // 2 + 1` columns come out.
        frame_length: seconds of the periodic Hann window, at most the transform's.
        hop: seconds.
        edges: as in `Framing`; "zero" centres frames on multiples of the hop.
        log_floor: power below it counts as this.

    >>> LogPower(n_fft=512)(torch.randn(1, 16000)).values.shape
    torch.Size([1, 101, 257])
    """

    taps: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_fft: int = 512,
        frame_length: float = 0.025,
        hop: float = 0.01,
        edges: Edges = "zero",
        log_floor: float = 1e-10,
    ) -> None:
        size = round(sample_rate * frame_length)
        if not 0 < size <= n_fft or log_floor <= 0:
            raise ConfigError(
                f"log power needs a frame_length of 1 to n_fft={n_fft} samples and log_floor > 0, "
                f"got {size} samples and log_floor={log_floor}"
            )
        super().__init__(Framing(n_fft, round(sample_rate * hop), edges), n_fft // 2 + 1, sample_rate)
        self.log_floor = log_floor
        left = (n_fft - size) // 2
        taps = torch.nn.functional.pad(window("hann", size, periodic=True), (left, n_fft - size - left))
        self.register_buffer("taps", taps, persistent=False)

    def _rows(self, rows: Tensor) -> Tensor:
        return power_spectrum(rows * self.taps).clamp(min=self.log_floor).log()
