"""Tempo: faster or slower with the pitch kept, by WSOLA (Verhelst and Roelands, 1993, https://doi.org/10.1109/ICASSP.1993.319366).

Output frames overlap by half under Hann windows, which add up to one. Frame m would come from the input time m·hop·rate;
it may come from up to 10 ms beside it, where the input is most like what followed the frame before, so that pitch periods
stay in step. Waveform similarity keeps the sharp pulses of speech, which a phase vocoder smears.

Each frame's place depends on the one before, so there is one loop over frames, of a few small operations on the whole
batch; the spectra of all stretches that are searched, and the output itself, are made at once. Every item has its own rate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sonorant.audio.augment.draws import check_range, wide
from sonorant.audio.augment.items import Change, Items, augmented, silenced
from sonorant.core.config import within
from sonorant.core.types import Batch

__all__ = ["Tempo", "change_tempo"]

HOP_SECONDS = 0.016
SEARCH_SECONDS = 0.010
"""To either side: a whole period of voices down to 50 Hz lies within."""
CHUNK = 64
"""Frames whose spectra are held at a time."""


def change_tempo(
    waveform: Float[Tensor, "batch *channel time"],
    lengths: Int[Tensor, " batch"],
    rate: Float[Tensor, " batch"],
    *,
    sample_rate: int,
) -> tuple[Float[Tensor, "batch *channel new_time"], Int[Tensor, " batch"]]:
    """Each item `rate` times as fast at the same pitch.

    Differentiable with regard to the waveform: the places that frames come from are found without a gradient.

    Returns:
        The waveform, zero beyond the new lengths, and these.
    """
    hop, search = max(1, round(HOP_SECONDS * sample_rate)), max(1, round(SEARCH_SECONDS * sample_rate))
    new_lengths = (lengths / rate.to(wide(waveform))).round().long().clamp(min=1)
    num_frames = -(-int(new_lengths.max()) // hop) + 1
    # Frame m stands in the middle of output sample m·hop, so the time map is exactly t_out · rate.
    steps = torch.arange(num_frames, device=waveform.device)
    nominal = (steps * hop * rate.to(wide(waveform))[:, None]).round().long() - hop
    before = hop + search
    after = max(0, int(nominal.max()) + 4 * hop + 2 * search - waveform.shape[-1])
    padded = pad(waveform, (before, after))
    mono = padded.detach() if waveform.dim() == 2 else padded.detach().mean(dim=1)
    start = _places(mono, nominal + before, hop, search)
    where = start[:, :, None] + torch.arange(2 * hop, device=start.device)
    window = torch.hann_window(2 * hop, device=waveform.device, dtype=waveform.dtype)
    flat = where.flatten(1) if waveform.dim() == 2 else where.flatten(1)[:, None].expand(-1, waveform.shape[1], -1)
    frames = padded.gather(-1, flat).view(*waveform.shape[:-1], num_frames, 2, hop) * window.view(2, hop)
    joined = frames[..., :-1, 1, :] + frames[..., 1:, 0, :]
    return silenced(joined.flatten(-2)[..., : int(new_lengths.max())], new_lengths), new_lengths


def _places(
    mono: Float[Tensor, "batch time"], nominal: Int[Tensor, "batch frame"], hop: int, search: int
) -> Int[Tensor, "batch frame"]:
    """Where each frame begins, in samples of `mono`."""
    width, num_lags = 2 * hop, 2 * search + 1
    size = 1 << (width + 2 * search - 1).bit_length()
    lags = torch.arange(-search, search + 1, device=mono.device)
    # A hair's preference for the nominal place decides ties (steady tones, silence) the same way everywhere.
    penalty = 1e-3 * lags.abs() / search
    running = pad(mono.to(wide(mono)).square().cumsum(dim=1), (1, 0))
    steps = torch.arange(width, device=mono.device)
    place = nominal[:, 0]
    places = [place]
    for begin in range(1, nominal.shape[1], CHUNK):
        near = nominal[:, begin : begin + CHUNK]
        spectra = torch.fft.rfft(_stretches(mono, near - search, width + 2 * search), size)
        scale = _stretches(running, near - search + width, num_lags) - _stretches(running, near - search, num_lags)
        scale = scale.clamp(min=1e-10).rsqrt().to(mono)
        for frame in range(near.shape[1]):
            wanted = mono.gather(1, (place + hop)[:, None] + steps)
            product = torch.fft.irfft(spectra[:, frame] * torch.fft.rfft(wanted, size).conj(), size)[:, :num_lags]
            level = torch.linalg.vector_norm(wanted, dim=1, keepdim=True)
            best = (product * scale[:, frame] - penalty * level).argmax(dim=1)
            place = near[:, frame] - search + best
            places.append(place)
    return torch.stack(places, dim=1)


def _stretches(signal: Float[Tensor, "batch time"], start: Int[Tensor, "batch frame"], size: int) -> Tensor:
    where = start[:, :, None] + torch.arange(size, device=signal.device)
    return signal.gather(1, where.flatten(1)).view(*start.shape, size)


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """Makes each item faster or slower at the same pitch; segments are scaled.

    >>> batch = Batch(torch.randn(1, 1600), torch.tensor([1600]), 16000, seeds=torch.tensor([1]))
    >>> Tempo(rate=(0.5, 0.5))(batch).lengths
    tensor([3200])
    """

    rate: tuple[float, float] = (0.85, 1.15)
    """Range of the speed-up."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Tempo.prob", self.prob, 0, 1)
        check_range("Tempo.rate", self.rate, 0.25, 4)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/tempo", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        rate = items.draws.uniform("rate", *self.rate)
        waveform, lengths = change_tempo(items.waveform, items.lengths, rate, sample_rate=items.sample_rate)
        return Change(waveform, lengths, scale=1 / rate.to(wide(waveform)))
