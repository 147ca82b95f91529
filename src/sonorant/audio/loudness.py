"""Level and loudness: RMS and peak in decibels, and integrated loudness by ITU-R BS.1770-4."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.filters import Biquad, sosfilt
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import padding_mask, valid_mask, zero_padding

__all__ = ["k_weighting", "loudness", "normalise_loudness", "peak_db", "rms_db"]

_Waveform = Float[Tensor, "batch time"] | Float[Tensor, "batch channel time"]

# Left, right, centre, left and right surround.
_CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)

# BS.1770-4: loudness is this plus ten times the logarithm of weighted power; gates in LUFS and in LU.
_OFFSET, _ABSOLUTE_GATE, _RELATIVE_GATE = -0.691, -70.0, -10.0


def rms_db(
    waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Root mean square in dB below full scale: 0 for a square wave of ±1, -3.01 for a full sine, -inf for silence.

    >>> rms_db(torch.tensor([[1.0, -1.0, 1.0]])).item()
    0.0
    """
    return _to_db(_mean_square(waveform, lengths))


def peak_db(
    waveform: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Largest magnitude of a sample in dB below full scale; -inf for silence."""
    silent = waveform if lengths is None else zero_padding(waveform, lengths)
    return _to_db(silent.abs().amax(dim=1).square())


def _mean_square(waveform: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return waveform.square().mean(dim=1)
    # Summed in double precision, so that padding zeros do not change how the sum rounds.
    power = zero_padding(waveform, lengths).double().square().sum(dim=1) / lengths.clamp(min=1)
    return power.to(waveform.dtype)


def _to_db(power: Tensor) -> Tensor:
    return 10 * torch.log10(power)


def k_weighting(sample_rate: float) -> tuple[Biquad, Biquad]:
    """The head's shelf and the low cut of BS.1770, for any sample rate.

    The standard tabulates coefficients for 48 kHz; these are its analogue prototypes under the bilinear transform, which
    give the table back at 48 kHz.

    Raises:
        ConfigError: a sample rate so low that the shelf lies beyond its Nyquist frequency.
    """
    if sample_rate < 4000:
        raise ConfigError(f"loudness needs a sample rate of 4000 Hz at least, got {sample_rate}")
    root, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    norm = 1 + root / q + root * root
    shelf = Biquad(
        (
            (high + band * root / q + root * root) / norm,
            2 * (root * root - high) / norm,
            (high - band * root / q + root * root) / norm,
        ),
        (1.0, 2 * (root * root - 1) / norm, (1 - root / q + root * root) / norm),
    )
    root, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    norm = 1 + root / q + root * root
    cut = Biquad((1.0, -2.0, 1.0), (1.0, 2 * (root * root - 1) / norm, (1 - root / q + root * root) / norm))
    return shelf, cut


def loudness(
    waveform: _Waveform, sample_rate: int, lengths: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Integrated loudness in LUFS with both gates of BS.1770-4; -inf where nothing passes -70 LUFS.

    Blocks of 400 ms every 100 ms. An item shorter than one block counts as one block of its own length.

    Args:
        waveform: up to five channels in the order left, right, centre, left and right surround.
        sample_rate: Hz.
        lengths: samples of each item.
    """
    channels = waveform[:, None] if waveform.dim() == 2 else waveform
    batch, count, time = channels.shape
    if count > len(_CHANNEL_WEIGHTS):
        raise ConfigError(f"loudness is defined for up to 5 channels, got {count}")
    if lengths is None:
        lengths = torch.full((batch,), time, device=waveform.device)
    if batch and int(lengths.min()) < 1:
        raise DataError(f"loudness needs samples, got an item of length {int(lengths.min())}")
    # The low cut's poles lie within 0.005 of 1 at 48 kHz: double precision.
    silent = channels.double().masked_fill(padding_mask(lengths, time)[:, None, :], 0.0)
    weighted = sosfilt(silent, k_weighting(sample_rate)).square()
    weights = torch.tensor(_CHANNEL_WEIGHTS[:count], dtype=torch.float64, device=waveform.device)
    power = (weighted * weights[:, None]).sum(1) * valid_mask(lengths, time)
    blocks, present = _blocks(power, lengths, round(0.4 * sample_rate), round(0.1 * sample_rate))
    return _gated(blocks, present).to(waveform.dtype)


def _blocks(power: Tensor, lengths: Tensor, size: int, hop: int) -> tuple[Tensor, Tensor]:
    """Mean power of each block, and which of them an item has."""
    padded = F.pad(power, (0, max(0, size - power.shape[1])))
    means = padded.unfold(1, size, hop).sum(2) / lengths.clamp(max=size)[:, None]
    counts = ((lengths - size) // hop + 1).clamp(min=1)
    return means, valid_mask(counts, means.shape[1])


def _gated(blocks: Tensor, present: Tensor) -> Tensor:
    def level(power: Tensor) -> Tensor:
        return _OFFSET + _to_db(power)

    def mean_of(mask: Tensor) -> Tensor:
        return (blocks * mask).sum(1) / mask.sum(1).clamp(min=1)

    loud = present & (level(blocks) > _ABSOLUTE_GATE)
    relative = level(mean_of(loud)) + _RELATIVE_GATE
    return level(mean_of(loud & (level(blocks) > relative[:, None])))


def normalise_loudness(
    waveform: _Waveform,
    sample_rate: int,
    target_lufs: float = -23.0,
    lengths: Int[Tensor, " batch"] | None = None,
    peak_limit_db: float = -1.0,
) -> _Waveform:
    """Each item with a gain that brings it to a loudness, or as near as its peak allows.

    Args:
        waveform: signals.
        sample_rate: Hz.
        target_lufs: loudness that is wanted.
        lengths: samples of each item.
        peak_limit_db: no sample goes above this, in dB below full scale. Silent items stay as they are.
    """
    if lengths is not None:
        waveform = zero_padding(waveform.movedim(-1, 1), lengths).movedim(1, -1)
    level = loudness(waveform, sample_rate, lengths)
    gain = torch.minimum(target_lufs - level, peak_limit_db - peak_db(waveform.flatten(1)))
    gain = torch.where(torch.isfinite(gain), gain, 0.0)
    return waveform * (10 ** (gain / 20)).view(-1, *[1] * (waveform.dim() - 1))
