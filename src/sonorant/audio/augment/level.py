"""Levels: where an item speaks, and the gain that puts one sound at a ratio below another."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import per_item, wide
from sonorant.audio.augment.items import silenced, with_duration
from sonorant.core.lengths import valid_mask

__all__ = ["active_samples", "gain_between", "gain_for_snr", "mean_power"]

FRAME_SECONDS = 0.02


def active_samples(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    sample_rate: int,
    range_db: float | Float[Tensor, " batch"] = 35.0,
) -> Bool[Tensor, "batch time"]:
    """True in the 20 ms frames whose power lies within `range_db` of the item's loudest frame, one for all or each its own.

    A ratio to noise means something only where there is speech: pauses would make the same speech count as weaker.
    """
    frame = max(1, round(FRAME_SECONDS * sample_rate))
    num_samples = waveform.shape[-1]
    num_frames = -(-num_samples // frame)
    energy = silenced(waveform.detach(), lengths).square()
    energy = with_duration(energy if waveform.dim() == 2 else energy.mean(dim=1), num_frames * frame)
    counts = (lengths[:, None] - frame * torch.arange(num_frames, device=lengths.device)).clamp(1, frame)
    power = energy.view(len(energy), num_frames, frame).sum(dim=2, dtype=wide(energy)) / counts
    share = 10 ** (-torch.as_tensor(range_db, device=power.device, dtype=power.dtype) / 10)
    floor = power.amax(dim=1, keepdim=True) * share.reshape(-1, 1)
    loud = ((power >= floor) & (power > 0)).repeat_interleave(frame, dim=1)[:, :num_samples]
    return loud & valid_mask(lengths, num_samples)


def mean_power(waveform: Float[Tensor, "batch *channel time"], mask: Bool[Tensor, "batch time"]) -> Tensor:
    """Mean square over the samples that `mask` marks (and channels), `(batch)`, float64; 0 where it marks none."""
    square = waveform.square()
    square = square if square.dim() == 2 else square.mean(dim=1)
    return (square * mask).sum(dim=1, dtype=wide(waveform)) / mask.sum(dim=1).clamp(min=1)


def gain_for_snr(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    noise: Float[Tensor, "batch *channel time"],
    snr_db: Float[Tensor, " batch"],
    sample_rate: int,
) -> Tensor:
    """The factor for `noise` that puts it `snr_db` below `waveform`, both measured where `waveform` is active.

    0 where either of them is silent there, so that a silent clip never asks for an infinite gain. Levels are not
    differentiated: the gain is part of the draw, and the gradient of a mix with regard to speech stays the identity.
    """
    active = active_samples(waveform, lengths, sample_rate)
    gain = gain_between(mean_power(waveform.detach(), active), mean_power(noise.detach(), active), snr_db)
    return per_item(gain, waveform)


def gain_between(
    power: Float[Tensor, " batch"], noise_power: Float[Tensor, " batch"], snr_db: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The factor of amplitude that puts a sound of `noise_power` `snr_db` below one of `power`; 0 where it is silent."""
    ratio = power / noise_power.clamp(min=1e-20) * 10 ** (-snr_db.to(power) / 10)
    return torch.where(noise_power > 1e-20, ratio.sqrt(), torch.zeros_like(ratio))
