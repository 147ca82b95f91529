"""Codecs: MP3 and Opus by real encoders, µ-law and a GSM-like telephone band in differentiable torch."""

import io
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.convolve import convolve, sinc_lowpass
from sonorant.audio.augment.draws import check_range
from sonorant.audio.augment.items import Change, Items, augmented, silenced, with_duration
from sonorant.audio.resample import resample
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch

__all__ = ["CODECS", "Codec", "encode_decode", "mu_law", "narrow_band"]

CODECS = ("mp3", "opus", "mu_law", "gsm")

# Format and subtype of libsndfile, the rates that the codec takes, and its compression levels from best to worst that
# still keep speech intelligible (libsndfile's scale from 0 to 1; at its very end MP3 refuses and Opus falls to 6 kbit/s).
_EXTERNAL = {
    "mp3": ("MP3", "MPEG_LAYER_III", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000), (0.2, 0.9)),
    "opus": ("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000), (0.8, 0.97)),
}
TELEPHONE_HZ = (300.0, 3400.0)
FILTER_SECONDS = 0.016


def mu_law(waveform: Float[Tensor, "*batch time"], bits: int = 8) -> Float[Tensor, "*batch time"]:
    """µ-law companding (ITU-T G.711's curve) to 2 ** bits steps and back; [-1, 1] goes in, what lies beyond is clipped.

    Rounding has no gradient, so the gradient passes straight through (arXiv:1308.3432).

    >>> mu_law(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.4953, 1.0000])
    """
    top = 2 ** (bits - 1) - 1
    mu = 2.0**bits - 1
    limited = waveform.detach().clamp(-1, 1)
    compressed = limited.sign() * torch.log1p(mu * limited.abs()) / math.log1p(mu)
    level = (compressed * top).round() / top
    decoded = level.sign() * torch.expm1(level.abs() * math.log1p(mu)) / mu
    return waveform + (decoded - waveform).detach()


def narrow_band(
    waveform: Float[Tensor, "batch *channel time"], lengths: Int[Tensor, " batch"], *, sample_rate: int
) -> Float[Tensor, "batch *channel time"]:
    """Telephone speech: 300 to 3400 Hz, in the steps of an 8-bit line, without delay.

    The band is cut before the steps and its top again after them, as at an 8 kHz converter, so that nothing, rounding noise
    included, is left above 3.4 kHz.
    """
    half = round(FILTER_SECONDS * sample_rate / 2) * 2
    # Half amplitude lies at a cutoff; the filter's slope is 2.75 / FILTER_SECONDS = 170 Hz wide to that side.
    edges = torch.tensor([TELEPHONE_HZ[0], TELEPHONE_HZ[1] - 170.0], device=waveform.device) / sample_rate
    low, high = sinc_lowpass(edges, half).to(waveform)
    shape = (len(waveform), -1)
    band = silenced(convolve(waveform, (high - low).expand(shape), half), lengths)
    return silenced(convolve(mu_law(band), high.expand(shape), half), lengths)


def encode_decode(
    waveform: Float[Tensor, "channel time"], sample_rate: int, codec: str, level: float
) -> Float[Tensor, "channel time"]:
    """One item through a real encoder and decoder in memory; without a gradient, in time with the original.

    libsndfile takes the codecs' delay out (LAME's tag, Opus's pre-skip); the tests hold it to that. A rate that the
    codec does not know goes by the next higher one. Audio above full scale is brought down before and up after.

    Args:
        waveform: without padding.
        sample_rate: Hz.
        codec: `"mp3"` or `"opus"`.
        level: from 0, the best the codec offers, to 1, the worst that keeps speech intelligible.
    """
    import soundfile

    container, subtype, rates, (best, worst) = _EXTERNAL[codec]
    rate = next((known for known in rates if known >= sample_rate), rates[-1])
    source = resample(waveform.detach().cpu(), sample_rate, rate)
    scale = max(1.0, float(source.abs().amax()) / 0.99) if source.numel() else 1.0
    memory = io.BytesIO()
    frames = (source / scale).T.contiguous().numpy()
    compression = best + level * (worst - best)
    soundfile.write(memory, frames, rate, format=container, subtype=subtype, compression_level=compression)
    memory.seek(0)
    decoded, _ = soundfile.read(memory, dtype="float32", always_2d=True)
    result = resample(torch.from_numpy(decoded).T.contiguous(), rate, sample_rate) * scale
    return with_duration(result, waveform.shape[-1]).to(waveform)


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Sends each item through one of several codecs.

    `"mu_law"` and `"gsm"` (telephone band and 8-bit steps) are batched and pass gradients; `"mp3"` and `"opus"` call real
    encoders item by item and pass none: the gradient of such an item is zero.

    >>> batch = Batch(torch.rand(1, 800), torch.tensor([800]), 16000, seeds=torch.tensor([1]))
    >>> Codec(kinds=("mu_law",))(batch).waveform.shape
    torch.Size([1, 800])
    """

    kinds: tuple[str, ...] = CODECS
    """Drawn with equal chances."""
    level: tuple[float, float] = (0.0, 1.0)
    """Range of the compression of mp3 and opus: 0 best, 1 worst."""
    bits: int = 8
    """Of µ-law."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Codec.prob", self.prob, 0, 1)
        within("Codec.bits", self.bits, 2, 16)
        check_range("Codec.level", self.level, 0, 1)
        unknown = [kind for kind in self.kinds if kind not in CODECS]
        if unknown or not self.kinds:
            raise ConfigError(f"Codec.kinds must be some of {', '.join(CODECS)}, got {self.kinds}")

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        return augmented(batch, f"{stream}/codec", self.prob, self._change)

    def _change(self, items: Items) -> Change:
        which = items.draws.integer("kind", 0, len(self.kinds))
        level = items.draws.uniform("level", *self.level)
        result = items.waveform
        for number, kind in enumerate(self.kinds):
            index = (which == number).nonzero()[:, 0]
            if len(index):
                result = result.index_copy(0, index, self._coded(items, kind, index, level[index]))
        return Change(result)

    def _coded(self, items: Items, kind: str, index: Tensor, level: Tensor) -> Tensor:
        part, lengths = items.waveform[index], items.lengths[index]
        if kind == "mu_law":
            return mu_law(part, self.bits)
        if kind == "gsm":
            return narrow_band(part, lengths, sample_rate=items.sample_rate)
        coded = torch.zeros_like(part)
        for item, (length, own) in enumerate(zip(lengths.tolist(), level.tolist())):
            coded[item, :, :length] = encode_decode(part[item, :, :length], items.sample_rate, kind, own)
        return coded
