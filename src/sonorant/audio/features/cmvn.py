"""Cepstral mean and variance normalisation: by utterance, in a sliding window, and by statistics of a whole corpus."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.types import Features

__all__ = ["Cmvn", "below_peak", "cmvn", "sliding_cmvn", "without_level"]

# Variances are not divided by below this (Kaldi's floor in its sliding window).
_FLOOR = 1e-10


def cmvn(features: Features, variance: bool = True) -> Features:
    """Each item's own frames to mean 0 and, with `variance`, to variance 1 in every dimension.

    >>> out = cmvn(Features(torch.tensor([[[1.0], [3.0], [9.9]]]), torch.tensor([2]), 100.0))
    >>> out.values.flatten().tolist()
    [-1.0, 1.0, 0.0]
    """
    values, lengths = features.values, features.lengths
    count = lengths.clamp(min=1).to(values.dtype)[:, None, None]
    # A sum over padding zeros may round otherwise than without them; in double precision that is below float32's last bit.
    mean = (zero_padding(values, lengths).double().sum(1, keepdim=True) / count).to(values.dtype)
    centred = zero_padding(values - mean, lengths)
    if variance:
        power = (centred.double().square().sum(1, keepdim=True) / count).clamp(min=_FLOOR)
        centred = centred * power.rsqrt().to(values.dtype)
    return Features(centred, lengths, features.frame_rate)


def without_level(features: Features) -> Features:
    """Each item without its mean over all frames and dimensions: on log energies, whatever its gain was.

    >>> out = without_level(Features(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]), torch.tensor([2]), 100.0))
    >>> out.values.flatten().tolist()
    [-3.0, -1.0, 1.0, 3.0]
    """
    values, lengths = features.values, features.lengths
    count = (lengths.clamp(min=1) * values.shape[2]).to(torch.float64)[:, None, None]
    # In double precision, as in `cmvn`: a sum over padding zeros may round otherwise than without them.
    mean = zero_padding(values, lengths).double().sum((1, 2), keepdim=True) / count
    return Features(zero_padding(values - mean.to(values.dtype), lengths), lengths, features.frame_rate)


def below_peak(features: Features, range_db: float = 50.0) -> Features:
    """Log energies as distances from each item's largest, none of them more than `range_db` below it.

    Neither the gain of a recording matters then, nor what noise or digital silence there is that far below speech.

    Args:
        features: natural logarithms of energies.
        range_db: what is softer is raised to this much below the peak.

    >>> below_peak(Features(torch.tensor([[[1.0, 3.0], [-99.0, 2.0]]]), torch.tensor([2]), 100.0), 10.0).values.tolist()
    [[[-2.0, 0.0], [-2.3025851249694824, -1.0]]]
    """
    values, lengths = features.values, features.lengths
    inside = valid_mask(lengths, values.shape[1])[:, :, None]
    peak = values.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
    below = (values - peak).clamp(min=-range_db * math.log(10) / 10)
    return Features(zero_padding(below, lengths), lengths, features.frame_rate)


def sliding_cmvn(
    features: Features, window: int = 600, min_window: int = 100, center: bool = False, variance: bool = False
) -> Features:
    """Each frame by the statistics of a window around or before it, as Kaldi's `apply-cmvn-sliding`.

    Args:
        features: what to normalise.
        window: frames.
        min_window: frames that are used at the start of an item at least, where not `center`.
        center: the window around the frame instead of before it.
        variance: to variance 1 as well.
    """
    if window < 1 or min_window < 1:
        raise ConfigError(f"window and min_window must be ≥ 1 frame, got {window} and {min_window}")
    values, lengths = features.values, features.lengths
    begin, end = _windows(values.shape[1], lengths, window, min_window, center)
    count = (end - begin).clamp(min=1)[:, :, None].double()
    mean = _window_sums(zero_padding(values, lengths).double(), begin, end) / count
    result = values - mean.to(values.dtype)
    if variance:
        squares = _window_sums(zero_padding(values, lengths).double().square(), begin, end) / count
        spread = (squares - mean.square()).clamp(min=_FLOOR).rsqrt()
        result = result * torch.where(count > 1, spread, 0.0).to(values.dtype)
    return Features(zero_padding(result, lengths), lengths, features.frame_rate)


def _windows(
    frames: int, lengths: Int[Tensor, " batch"], window: int, min_window: int, center: bool
) -> tuple[Int[Tensor, "batch frame"], Int[Tensor, "batch frame"]]:
    """First frame of each frame's window, and the one after its last."""
    now = torch.arange(frames, device=lengths.device).expand(len(lengths), -1)
    begin = now - window // 2 if center else now - window
    end = begin + window if center else now + 1
    end = torch.where(begin < 0, end - begin, end)
    begin = begin.clamp(min=0)
    if not center:
        end = torch.where(end > now, (now + 1).clamp(min=min_window), end)
    total = lengths[:, None]
    begin = torch.where(end > total, begin - (end - total), begin).clamp(min=0)
    end = torch.minimum(end, total)
    return torch.minimum(begin, end), end


def _window_sums(values: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    # Differences of running sums: in double precision, or the later frames of a long item would drown in rounding.
    sums = torch.cat([values.new_zeros(len(values), 1, values.shape[2]), values.cumsum(1)], dim=1)
    wide = (len(values), begin.shape[1], values.shape[2])
    return sums.gather(1, end[:, :, None].expand(wide)) - sums.gather(1, begin[:, :, None].expand(wide))


class Cmvn(nn.Module):
    """Normalisation by the mean and variance of a whole corpus; the sums are buffers, kept in checkpoints.

    Sums of parts of a corpus add up exactly, so that statistics can be gathered in parallel (`merge`).

    Args:
        dim: width of the features.
        variance: to variance 1 as well as mean 0.

    >>> normalise, features = Cmvn(4), Features(torch.randn(2, 50, 4) * 3 + 1, torch.tensor([50, 30]), 100.0)
    >>> values = normalise.fit([features])(features).values[0]
    >>> values.shape
    torch.Size([50, 4])
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, dim: int, variance: bool = True) -> None:
        super().__init__()
        self.dim, self.variance = dim, variance
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(dim, dtype=torch.float64))

    @torch.no_grad()
    def update(self, features: Features) -> None:
        """Takes the frames of a batch into the statistics."""
        if features.values.shape[2] != self.dim:
            raise ConfigError(f"these statistics are {self.dim} wide, the features {features.values.shape[2]}")
        mask = valid_mask(features.lengths, features.values.shape[1])
        frames = features.values[mask].to(self.total)
        self.count += len(frames)
        self.total += frames.sum(0)
        self.squares += frames.square().sum(0)

    def fit(self, batches: Iterable[Features]) -> "Cmvn":
        """`update` with every batch, from nothing; gives itself back."""
        for sums in (self.count, self.total, self.squares):
            sums.zero_()
        for features in batches:
            self.update(features)
        return self

    def merge(self, other: "Cmvn") -> None:
        """Takes another's statistics into these."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """Mean of each dimension."""
        return self.total / self.count.clamp(min=1)

    @property
    def std(self) -> Float[Tensor, " dim"]:
        """Standard deviation of each dimension."""
        return (self.squares / self.count.clamp(min=1) - self.mean.square()).clamp(min=_FLOOR).sqrt()

    def forward(self, features: Features) -> Features:
        """The normalised features.

        Raises:
            ConfigError: no frame has been counted yet.
        """
        if self.count == 0:
            raise ConfigError("Cmvn holds no statistics yet: call fit(batches) or load a checkpoint before using it")
        values = features.values - self.mean.to(features.values.dtype)
        if self.variance:
            values = values / self.std.to(features.values.dtype)
        return Features(zero_padding(values, features.lengths), features.lengths, features.frame_rate)
