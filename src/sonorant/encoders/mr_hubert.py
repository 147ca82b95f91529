"""MR-HuBERT: HuBERT at several frame rates (Shi et al., 2023, arXiv:2310.02720).

Transformer layers at 50 frames a second, the next ones at 25, the last ones at 50 again, with a skip from the first (section
3.1, figure 1). Between them stand samplers: a convolution that makes frames more and one that makes them fewer, each with a
norm of the whole item, GELU, and what they are given, resampled, added. What comes out of each layer is at its own frame
rate; the loss at the low rate looks at the last layer there (section 3.2), see `objectives.masked_prediction`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.waveform_front import WaveformFront, WaveformFrontConfig
from sonorant.nn.norm import GroupNorm
from sonorant.nn.position import ConvolutionalPosition
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = ["MrHubert", "MrHubertConfig", "Sampler", "build", "mr_hubert_base", "mr_hubert_large", "mr_hubert_tiny"]

Count = TypeVar("Count", int, Tensor)
Run = Callable[[int, Features, Callable[[Features], Features]], Features]
"""(number of the stack, what enters it, what is done to its result) → what leaves it."""

RESIDUAL_SCALE = 0.4**0.5
"""Each sum in a sampler is multiplied by it."""


@dataclass(frozen=True, kw_only=True)
class MrHubertConfig(WaveformFrontConfig):
    """The defaults are the base model with two frame rates (table 1)."""

    layers: tuple[int, ...] = (4, 4, 4)
    """Layers of each stack, from the highest frame rate to the lowest and back; an odd number of stacks (table 1)."""
    factors: tuple[int, ...] = (2,)
    """Frames that become one at each step down."""
    plain_sampling: bool = False
    """Samplers that hold only the convolution that is needed (appendix B.3)."""
    sampler_kernel: int = 1
    """Frames that their convolutions see; odd."""
    norm_first: bool = False
    """Norms before the parts of a layer (large models) rather than after them."""
    position_kernel: int = 128
    """Frames that the convolution of positions sees, before the first layer alone."""
    position_groups: int = 16
    """Groups of its channels."""
    attention_dropout: float = 0.1
    """On the attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forwards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("position_kernel", "position_groups", "sampler_kernel"):
            at_least(name, getattr(self, name), 1)
        within("attention_dropout", self.attention_dropout, 0, 0.99)
        within("inner_dropout", self.inner_dropout, 0, 0.99)
        if len(self.layers) != 2 * len(self.factors) + 1 or min(self.layers) < 1:
            raise ConfigError(
                "layers must hold one number for each stack, down and up again, and factors one for each step down: "
                f"got layers={self.layers} and factors={self.factors}"
            )
        if min(self.factors, default=1) < 1 or self.sampler_kernel % 2 == 0:
            raise ConfigError(
                f"factors must be at least 1 and sampler_kernel odd, got {self.factors} and {self.sampler_kernel}"
            )

    @property
    def num_layers(self) -> int:
        """Of all stacks."""
        return sum(self.layers)


class Sampler(nn.Module):
    """To `up` / `down` times as many frames.

    Args:
        dim: width.
        up: frames that one becomes.
        down: frames of these that become one.
        kernel_size: of the convolutions, odd.
        plain: only the convolution that changes something, and no second sum with what came in.
    """

    def __init__(self, dim: int, up: int, down: int, kernel_size: int = 1, plain: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.plain, self.kernel_size = up, down, plain, kernel_size
        self.up_conv = self.down_conv = None
        if not plain or up > 1:
            self.up_conv = nn.ConvTranspose1d(dim, dim, kernel_size, up, output_padding=up - 1, bias=False)
            self.up_norm = GroupNorm(1, dim)
        if not plain or up == 1:
            self.down_conv = nn.Conv1d(dim, dim, kernel_size, down, kernel_size // 2, bias=False)
            self.down_norm = GroupNorm(1, dim)

    def forward(self, features: Features) -> Features:
        lengths = features.lengths * self.up
        given = zero_padding(features.values, features.lengths).repeat_interleave(self.up, dim=1)
        values = given
        if self.up_conv is not None:
            more = self.up_conv(zero_padding(features.values, features.lengths).transpose(1, 2)).transpose(1, 2)
            # A kernel of more than one frame reaches beyond the last.
            more = more if self.kernel_size == 1 else more[:, : given.shape[1]]
            more = nn.functional.gelu(self.up_norm(more, lengths))
            values = zero_padding((more + given) * RESIDUAL_SCALE, lengths)
        if self.down_conv is None:
            return Features(values, lengths, features.frame_rate * self.up)
        lengths = (lengths + self.down - 1) // self.down
        # Contiguous, or an exported program would ask whether the number of frames is even.
        kept = values[:, :: self.down].contiguous()
        fewer = nn.functional.gelu(self.down_norm(self._fewer(values, kept), lengths))
        values = (fewer + kept) * RESIDUAL_SCALE
        if not self.plain:
            values = (values + given[:, :: self.down]) * RESIDUAL_SCALE
        return Features(zero_padding(values, lengths), lengths, features.frame_rate * self.up / self.down)

    def _fewer(self, values: Tensor, kept: Tensor) -> Tensor:
        conv: Any = self.down_conv
        if self.kernel_size == 1:  # a matrix on the frames that are kept
            return nn.functional.linear(kept, conv.weight[..., 0])
        return conv(values.transpose(1, 2)).transpose(1, 2)[:, : kept.shape[1]]  # type: ignore[no-any-return]


class MrHubert(nn.Module):
    """Waveform → frames of `config.dim`, 50 a second, through layers at 50, 25 and 50.

    >>> import torch
    >>> encoder = MrHubert(mr_hubert_tiny()).eval()
    >>> layers = encoder(torch.randn(1, 16000), torch.tensor([16000]), layers=True)
    >>> [(layer.values.shape[1], layer.frame_rate) for layer in layers]
    [(49, 50.0), (49, 50.0), (25, 25.0), (49, 50.0)]
    """

    input = "waveform"

    def __init__(self, config: MrHubertConfig) -> None:
        super().__init__()
        self.config, self.dim, self.num_layers = config, config.dim, config.num_layers
        self.front = WaveformFront(config, always_project=False)
        self.local_dim = self.front.dim
        self.stacks = nn.ModuleList(_stack(config, index) for index in range(len(config.layers)))
        options = (config.sampler_kernel, config.plain_sampling)
        self.downs = nn.ModuleList(Sampler(config.dim, 1, factor, *options) for factor in config.factors)
        self.ups = nn.ModuleList(Sampler(config.dim, factor, 1, *options) for factor in config.factors)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers of all stacks, in order."""
        stacks: list[Any] = list(self.stacks)
        return nn.ModuleList(block for stack in stacks for block in stack.blocks)

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.front.frame_rate

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by the convolutions over the waveform."""
        return self.front.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.front.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the convolutions over the waveform make."""
        return self.front.local(values, lengths)

    def embed(self, local: Features) -> Features:
        """Normed and projected: what masks are laid on."""
        return self.front.embed(local)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The stacks.

        Args:
            embedded: padded; what stands in the padding does not matter.
            layers: return what enters the first layer and what comes out of each, skips added, at its own frame rate.
            between: is given each of them (0 for what enters the first layer) and returns what the next part gets.
        """
        outputs: list[Features] = []
        starts = [sum(self.config.layers[:index]) for index in range(len(self.config.layers) + 1)]

        def run(index: int, features: Features, finish: Callable[[Features], Features]) -> Features:
            stack: Any = self.stacks[index]

            def inner(place: int, entering: Features) -> Features:
                if place == 0 and index > 0:  # what a sampler made is no layer's output
                    return entering
                return cast(Between, between)(starts[index] + place, entering)

            found = stack(features, True, None if between is None else inner)
            last = finish(found[-1])
            outputs.extend([*(_like(own, last) for own in found[(index > 0) : -1]), last])
            ended = index == len(self.stacks) - 1
            return last if between is None or ended else between(starts[index + 1], last)

        result = self._through(embedded, run)
        return outputs if layers else result

    def _through(self, features: Features, run: Run) -> Features:
        """Down to the lowest frame rate and up again, each stack called by `run`."""
        depth, skips = len(self.downs), []
        for level, down in enumerate(self.downs):
            features = run(level, features, lambda last: last)
            skips.append(features)
            features = down(features)
        features = run(depth, features, partial(_added, features))
        for step, (up, skip) in enumerate(zip(reversed(self.ups), reversed(skips), strict=True)):
            # A step down rounds up, so that there may be a frame too many: the layers see it, and the sum cuts it off.
            features = run(depth + 1 + step, up(features), partial(_added, skip))
        return features

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """The attention of each layer `(batch, head, query, key)`, each at its own frame rate."""
        maps: list[Tensor] = []

        def run(index: int, features: Features, finish: Callable[[Features], Features]) -> Features:
            stack: Any = self.stacks[index]
            maps.extend(stack.attention_maps(features))
            return finish(stack(features))

        self._through(self.embed(self.local(values, lengths)), run)
        return maps


def _added(features: Features, other: Features) -> Features:
    """The sum at the frames that `features` has."""
    return replace(features, values=features.values + _like(other, features).values)


def _like(features: Features, target: Features) -> Features:
    """At most the frames that `target` has."""
    # Padded whether or not there are enough, so that an exported program has no branch here.
    values = nn.functional.pad(features.values, (0, 0, 0, 1))[:, : target.values.shape[1]]
    return Features(zero_padding(values, target.lengths), target.lengths, features.frame_rate)


def _stack(config: MrHubertConfig, index: int) -> TransformerStack:
    blocks = [
        TransformerLayer(
            config.dim,
            config.num_heads,
            config.ffn_dim,
            config.dropout,
            norm_first=config.norm_first,
            attention_dropout=config.attention_dropout,
            inner_dropout=config.inner_dropout,
        )
        for _ in range(config.layers[index])
    ]
    position = ConvolutionalPosition(config.dim, config.position_kernel, config.position_groups) if index == 0 else None
    return TransformerStack(
        blocks,
        config.dim,
        norm_first=config.norm_first,
        position=position,
        dropout=config.dropout,
        layer_drop=config.layer_drop,
    )


def build(config: MrHubertConfig) -> MrHubert:
    """The module of a configuration, with random weights."""
    return MrHubert(config)


# --- sizes ------------------------------------------------------------------------------------------------------------


def mr_hubert_base(**changes: Any) -> MrHubertConfig:
    """97 M parameters (arXiv:2310.02720, table 1)."""
    return replace(MrHubertConfig(), **changes)


def mr_hubert_large(**changes: Any) -> MrHubertConfig:
    """321 M parameters: three times 8 layers, norms first (arXiv:2310.02720, table 1)."""
    size = {
        "dim": 1024,
        "layers": (8, 8, 8),
        "num_heads": 16,
        "ffn_dim": 4096,
        "conv_norm": "layer",
        "norm_first": True,
    }
    return mr_hubert_base(**{**size, "dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0, **changes})


def mr_hubert_tiny(**changes: Any) -> MrHubertConfig:
    """Three narrow layers, for tests and demonstrations; no published size."""
    convs = ((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2)
    size = {"conv_layers": convs, "dim": 64, "layers": (1, 1, 1), "num_heads": 2, "ffn_dim": 128, "position_kernel": 16}
    still = {"dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0}
    return mr_hubert_base(**{**size, **still, "position_groups": 4, **changes})
