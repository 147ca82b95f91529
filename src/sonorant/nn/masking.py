"""Masks: of padding, in attention and in reverse recurrences, and of the frames that pre-training hides and asks for.

Everything here works from `lengths`, never from the values, so that what stands in the padding (garbage, infinities,
NaN) can never reach a frame of signal. What is hidden of an item is a function of its own seed and length, so it is the
same alone and in any batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.core.seed import normal, uniform

__all__ = [
    "MaskConfig", "MaskEmbedding", "attention_mask", "causal_mask", "channel_mask", "frames_at", "hidden_first",
    "reverse_frames", "span_mask",
]  # fmt: skip

Style = Literal["share", "bernoulli"]


def attention_mask(
    lengths: Int[Tensor, " batch"], num_frames: int, window: Bool[Tensor, "query key"] | None = None
) -> Bool[Tensor, "batch 1 query_or_one key"]:
    """True where a query may look: at frames of signal and, if given, inside `window (query, key)`.

    Without a window the query axis has size 1 (every query sees the same keys). An item of no frames, and a padded query
    whose window holds nothing but padding, would have nothing to look at and turn into NaN; the first is given frame 0,
    the second itself. Neither is ever seen by a frame of signal.

    >>> attention_mask(torch.tensor([1, 2]), 2).int().tolist()
    [[[[1, 0]]], [[[1, 1]]]]
    """
    keys = valid_mask(lengths.clamp(min=1), num_frames)[:, None, None, :]
    if window is None:
        return keys
    itself = torch.eye(num_frames, dtype=torch.bool, device=lengths.device)
    return (keys & window) | itself


def causal_mask(num_tokens: int, past: int, device: torch.device | str = "cpu") -> Bool[Tensor, "1 1 token seen"]:
    """True where a token may look: itself and what stands before it; `past` tokens stand before the first.

    >>> causal_mask(2, 1)[0, 0].int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    own = torch.arange(num_tokens, device=device)[:, None] + past
    return (torch.arange(past + num_tokens, device=device)[None, :] <= own)[None, None]


def reverse_frames(values: Shaped[Tensor, "batch frame *rest"], lengths: Int[Tensor, " batch"]) -> Tensor:
    """Each item turned round within its length; the padding stays where it is. Its own inverse.

    >>> reverse_frames(torch.tensor([[1, 2, 3, 0]]), torch.tensor([3])).tolist()
    [[3, 2, 1, 0]]
    """
    steps = torch.arange(values.shape[1], device=values.device)[None, :]
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return torch.gather(values, 1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand_as(values))


# --- what pre-training hides ----------------------------------------------------------------------------------------


def span_mask(
    seeds: Int[Tensor, " batch"],
    lengths: Int[Tensor, " batch"],
    num_frames: int,
    *,
    prob: float = 0.65,
    span: int = 10,
    style: str = "share",
    min_masks: int = 2,
    name: str = "mask",
) -> Bool[Tensor, "batch frame"]:
    """True where a frame is hidden: spans that start at random frames and may overlap.

    Args:
        seeds: of the items.
        lengths: frames of the items.
        num_frames: frames of the padded tensor.
        prob: with "share", the share of frames that would be hidden if no spans overlapped: prob · length / span starts,
            rounded up or down at random (wav2vec 2.0, arXiv:2006.11477, section 3.1, in fairseq's terms); with
            "bernoulli", the probability that a span starts at a frame (BEST-RQ, arXiv:2202.01855; NEST: 0.01, span 40).
        span: frames of a span. An item of less than two spans gets spans of half its length, so that something is left
            to predict from.
        style: "share" or "bernoulli".
        min_masks: spans that an item gets at least.
        name: of the draw; two masks of one item need two.

    >>> seeds, lengths = torch.tensor([1, 2]), torch.tensor([40, 100])
    >>> mask = span_mask(seeds, lengths, 120)
    >>> torch.equal(mask[:1, :40], span_mask(seeds[:1], lengths[:1], 40)), bool(mask[0, 40:].any())
    (True, False)
    """
    one_of("style", style, ("share", "bernoulli"))
    steps = torch.arange(num_frames, device=lengths.device)[None]
    spans = (lengths // 2).clamp(1, span)
    # A whole span fits where it starts; by the second rule any frame starts one, and the item's end cuts it off.
    places = torch.where(lengths > 0, lengths - spans + 1, 0) if style == "share" else lengths
    keys = uniform(seeds, f"{name}/starts", num_frames).masked_fill(steps >= places[:, None], 2)
    rank = keys.argsort(dim=1, stable=True).argsort(dim=1)
    least = places.clamp(max=min_masks)
    if style == "share":
        rounding = uniform(seeds, f"{name}/rounding")[:, 0]
        count = (prob * lengths / spans + rounding).long()
        starts = rank < torch.minimum(torch.maximum(count, least), places)[:, None]
    else:
        starts = (keys < prob) | (rank < least[:, None])
    return _spread(starts, spans) & (steps < lengths[:, None])


def _spread(starts: Bool[Tensor, "batch frame"], spans: Int[Tensor, " batch"]) -> Bool[Tensor, "batch frame"]:
    """True at each start and on the frames after it, `spans` in all."""
    counts = nn.functional.pad(starts.cumsum(dim=1), (1, 0))  # starts before each frame
    steps = torch.arange(1, starts.shape[1] + 1, device=starts.device)[None]
    before = (steps - spans[:, None]).clamp(min=0)
    return counts[:, 1:] > counts.gather(1, before)


def channel_mask(
    seeds: Int[Tensor, " batch"], dim: int, *, prob: float, span: int, name: str = "channels"
) -> Bool[Tensor, "batch dim"]:
    """True where a channel is zeroed for the whole item: spans of neighbours (wav2vec 2.0 fine-tuning, section 4.3)."""
    widths = torch.full_like(seeds, dim)
    return span_mask(seeds, widths, dim, prob=prob, span=span, min_masks=0, name=name)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """What is hidden; the defaults are wav2vec 2.0's."""

    prob: float = 0.65
    """Share of frames in spans that do not overlap, or probability of a start; see `style` (0.65 in spans of 10 is p = 0.065
    of section 3.1)."""
    span: int = 10
    """Frames of a span (M in section 3.1)."""
    style: Style = "share"
    """share: so many spans; bernoulli: each frame starts one with `prob`."""
    min_masks: int = 2
    """Spans that an item gets at least."""
    channel_prob: float = 0.0
    """Share of channels that are zeroed for a whole item."""
    channel_span: int = 64
    """Channels of such a span."""

    def __post_init__(self) -> None:
        within("prob", self.prob, 0, 1)
        at_least("span", self.span, 1)
        one_of("style", self.style, ("share", "bernoulli"))
        at_least("min_masks", self.min_masks, 0)
        within("channel_prob", self.channel_prob, 0, 1)
        at_least("channel_span", self.channel_span, 1)

    def draw(
        self, seeds: Int[Tensor, " batch"], lengths: Int[Tensor, " batch"], num_frames: int, name: str = "mask"
    ) -> Bool[Tensor, "batch frame"]:
        """The hidden frames of a batch; see `span_mask`."""
        return span_mask(
            seeds,
            lengths,
            num_frames,
            prob=self.prob,
            span=self.span,
            style=self.style,
            min_masks=self.min_masks,
            name=name,
        )


class MaskEmbedding(nn.Module):
    """Puts something else in the place of hidden frames: a learnt vector, or noise (BEST-RQ: deviation 0.1).

    Args:
        dim: width of the frames.
        noise: standard deviation of normal noise, drawn from each item's seed; 0 learns a vector.
    """

    def __init__(self, dim: int, noise: float = 0.0) -> None:
        super().__init__()
        at_least("noise", noise, 0)
        self.noise = noise
        self.vector = nn.Parameter(torch.rand(dim)) if noise == 0 else None

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        mask: Bool[Tensor, "batch frame"],
        seeds: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch frame dim"]:
        """`values` with hidden frames replaced; `seeds` are needed for noise, and ConfigError says so."""
        if self.vector is not None:
            return torch.where(mask[..., None], self.vector.to(values.dtype), values)
        if seeds is None:
            raise ConfigError(f"MaskEmbedding with noise={self.noise} draws from the items' seeds; give seeds too")
        drawn = normal(seeds, "mask/noise", values.shape[1] * values.shape[2]).view(values.shape)
        return torch.where(mask[..., None], (self.noise * drawn).to(values.dtype), values)


def hidden_first(mask: Bool[Tensor, "batch frame"]) -> tuple[Int[Tensor, "batch position"], Int[Tensor, " batch"]]:
    """Where the hidden frames of each item stand, in order, and how many there are; beyond these, other frames.

    >>> places, counts = hidden_first(torch.tensor([[False, True, True], [False, False, True]]))
    >>> places.tolist(), counts.tolist()
    ([[1, 2], [2, 0]], [2, 1])
    """
    counts = mask.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :most], counts


def frames_at(
    values: Shaped[Tensor, "batch frame *rest"], places: Int[Tensor, "batch position"]
) -> Shaped[Tensor, "batch position *rest"]:
    """The frames at some places of each item."""
    index = places.view(*places.shape, *[1] * (values.dim() - 2)).expand(*places.shape, *values.shape[2:])
    return values.gather(1, index)
