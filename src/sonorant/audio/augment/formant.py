"""Formant shift: the spectral envelope stretched along frequency, as by another vocal tract; pitch and times stay."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import check_range, per_item, wide
from sonorant.audio.augment.items import Change, Items, augmented, silenced, with_duration
from sonorant.audio.augment.level import active_samples, gain_between, mean_power
from sonorant.audio.stft import istft, stft
from sonorant.core.config import within
from sonorant.core.types import Batch

__all__ = ["FormantShift", "shift_formants"]

WINDOW_SECONDS = 0.032
FORMANT_WIDTH_HZ = 40.0
"""Peaks of the envelope are widened by about so much, which keeps it from following single harmonics."""
LIMIT_DB = 30.0
"""Most that a bin is raised or lowered: an envelope that falls off a cliff would otherwise raise noise to speech."""


def shift_formants(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    factor: Float[Tensor, " batch"],
    *,
    sample_rate: int,
) -> Float[Tensor, "batch *channel time"]:
    """Moves the formants of each item to `factor` times their frequencies, at the same level.

    In each frame of a short-time transform the envelope is that of linear prediction (Makhoul, 1975), which is sharp at
    formants; the bins are multiplied by the ratio of the stretched envelope to the old one, which leaves harmonics and
    phases where they are.
    """
    size = 1 << (round(WINDOW_SECONDS * sample_rate) - 1).bit_length()
    hop = size // 4
    # Silence behind the end, so that every frame that touches an item exists, alone and in a longer batch.
    padded = with_duration(waveform, waveform.shape[-1] + size)
    spectrum = stft(padded, size, hop)
    loud = waveform.detach().flatten(1).square().amax(dim=1)
    # A floor 120 dB below the item's peak keeps the prediction and its gradient finite in silence.
    floor = per_item(loud * size * 1e-12 + 1e-20, spectrum.real)
    power = spectrum.real.square() + spectrum.imag.square() + floor
    filters = _predictor(_autocorrelation(power, sample_rate)).to(power)
    bins = torch.arange(power.shape[-2], device=power.device)[None] / size
    stretched = (bins / factor.to(power.device)[:, None]).clamp(max=0.5)
    ratio = _response(filters, bins) / _response(filters, stretched)
    gain = ratio.sqrt().clamp(10 ** (-LIMIT_DB / 20), 10 ** (LIMIT_DB / 20))
    shifted = silenced(istft(spectrum * gain, hop, length=padded.shape[-1])[..., : waveform.shape[-1]], lengths)
    before = mean_power(waveform.detach(), active_samples(waveform, lengths, sample_rate))
    after = mean_power(shifted.detach(), active_samples(shifted, lengths, sample_rate))
    return shifted * per_item(gain_between(before, after, torch.zeros_like(after)), shifted)


def _autocorrelation(power: Float[Tensor, "*batch freq frame"], sample_rate: int) -> Float[Tensor, "*batch lag frame"]:
    """As many lags as formants need, widened, and with a floor of noise 50 dB down, in double precision.

    The equations of a steady vowel are badly conditioned without the two.
    """
    order = 2 + round(sample_rate / 1000)
    lags = torch.fft.irfft(power, dim=-2)[..., : order + 1, :].to(wide(power))
    step = torch.arange(order + 1, device=power.device, dtype=lags.dtype)[:, None]
    lags = lags * torch.exp(-0.5 * (2 * math.pi * FORMANT_WIDTH_HZ * step / sample_rate).square())
    return lags * (1 + 1e-5 * (step == 0))


def _response(
    filters: Float[Tensor, "batch *channel lag frame"], frequency: Float[Tensor, "some freq"]
) -> Float[Tensor, "batch *channel freq frame"]:
    """|A(f)|² at frequencies in cycles a sample, the same for all items or each item's own."""
    angle = 2 * math.pi * frequency[..., None] * torch.arange(filters.shape[-2], device=filters.device)
    angle = angle if filters.dim() == 3 else angle[:, None]
    real, imaginary = (wave.to(filters) @ filters for wave in (torch.cos(angle), torch.sin(angle)))
    return real.square() + imaginary.square()


def _predictor(lags: Float[Tensor, "*batch lag frame"]) -> Float[Tensor, "*batch lag frame"]:
    """Prediction error filters from autocorrelations, by Levinson's and Durbin's recursion over all frames at once."""
    filters, error = torch.ones_like(lags[..., :1, :]), lags[..., :1, :]
    for order in range(1, lags.shape[-2]):
        past = lags[..., 1 : order + 1, :].flip(-2)
        reflection = -(filters * past).sum(dim=-2, keepdim=True) / error
        longer = torch.nn.functional.pad(filters, (0, 0, 0, 1))
        filters = longer + reflection * longer.flip(-2)
        error = error * (1 - reflection.square())
    return filters


@dataclass(frozen=True, kw_only=True)
class FormantShift:
    """Changes the apparent size of the speaker; pitch, times and level stay.

    >>> batch = Batch(torch.randn(1, 800), torch.tensor([800]), 16000, seeds=torch.tensor([1]))
    >>> FormantShift(factor=(1.1, 1.2))(batch).waveform.shape
    torch.Size([1, 800])
    """

    factor: tuple[float, float] = (0.85, 1.18)
    """Range of the factor of the formants' frequencies; above 1 the speaker sounds smaller."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("FormantShift.prob", self.prob, 0, 1)
        check_range("FormantShift.factor", self.factor, 0.5, 2)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/formant_shift", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        factor = items.draws.uniform("factor", *self.factor)
        return Change(shift_formants(items.waveform, items.lengths, factor, sample_rate=items.sample_rate))
