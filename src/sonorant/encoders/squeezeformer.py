"""The Squeezeformer encoder (Kim et al., 2022, arXiv:2206.00888): a Conformer whose upper half runs at half the rate.

After the first half of the blocks neighbouring frames, alike by then, become one; before the last block they are two
again, joined to what they were. The layers that `layers=True` gives in between are brought back in the same way: what
would come out if the encoder ended there.

Where we differ from the paper: LayerNorm inside the convolution by default (`norm="batch"` is the paper's), and a front
end without padding in time, as in our Conformer. The order of parts, the norms after each and the learnt scales are its.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.attention import Position, position_table
from sonorant.nn.convolution import SUBSAMPLINGS, build_subsampling
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import attention_mask
from sonorant.nn.norm import NORMS
from sonorant.nn.squeezeformer import SqueezeformerBlock, TimeRecovery, TimeReduction
from sonorant.nn.transformer import Between

__all__ = [
    "Squeezeformer", "SqueezeformerConfig", "build", "squeezeformer_large", "squeezeformer_medium",
    "squeezeformer_medium_large", "squeezeformer_small", "squeezeformer_small_medium", "squeezeformer_tiny",
    "squeezeformer_xsmall",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class SqueezeformerConfig:
    """A Squeezeformer; the defaults are the size SM of table 2."""

    input_dim: int = 80
    """Width of the features that come in (mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    subsampling: str = "depthwise_valid"
    """Front end: a plain and a depthwise convolution (section 3.2.3), or any other of the Conformer's."""
    factor: int = 4
    """Input frames that become one."""
    channels: int = 0
    """Channels of a 2-D front end; 0: as many as `dim`."""
    dim: int = 256
    """Width of the blocks."""
    num_layers: int = 16
    """Blocks."""
    num_heads: int = 4
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 1024
    """Inner width of the feed-forwards."""
    kernel_size: int = 31
    """Frames that the depthwise convolution sees; odd."""
    reduce_after: int | None = None
    """Blocks before the rate is halved (section 3.1.1: 7 of 16); one less than half of all where None."""
    dropout: float = 0.1
    """Everywhere."""
    position: Position = "relative"
    """Positions in the attention: relative (the paper's), rotary (faster), shaw, none."""
    norm: str = "layer"
    """Norm inside the convolution module: layer, rms, batch (the paper's), group, instance."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "factor", "dim", "num_layers", "num_heads", "ffn_dim", "kernel_size"):
            at_least(name, getattr(self, name), 1)
        at_least("channels", self.channels, 0)
        within("dropout", self.dropout, 0, 0.99)
        one_of("subsampling", self.subsampling, list(SUBSAMPLINGS))
        one_of("norm", self.norm, list(NORMS))
        if self.dim % self.num_heads or self.dim % 2:
            raise ConfigError(f"num_heads must divide dim, and dim be even, got {self.num_heads} and {self.dim}")
        if self.reduce_after is not None:
            within("reduce_after", self.reduce_after, 0, self.num_layers - 1)

    @property
    def slow(self) -> range:
        """Indices of the blocks that run at half the rate."""
        start = max(0, self.num_layers // 2 - 1) if self.reduce_after is None else self.reduce_after
        return range(start, self.num_layers - 1)


class Squeezeformer(nn.Module):
    """Features (fbank) to frames of `config.dim`, `factor` times fewer.

    >>> import torch
    >>> encoder = Squeezeformer(squeezeformer_tiny())
    >>> encoder(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 25, 64])
    """

    input: Literal["features"] = "features"

    def __init__(self, config: SqueezeformerConfig) -> None:
        super().__init__()
        self.config, self.slow = config, config.slow
        self.dim, self.local_dim, self.num_layers = config.dim, config.dim, config.num_layers
        self.subsampling: Any = build_subsampling(
            config.subsampling, config.input_dim, config.dim, config.factor, config.channels or config.dim
        )
        self.norm, self.dropout = nn.LayerNorm(config.dim), Dropout(config.dropout)
        sizes = (config.dim, config.num_heads, config.ffn_dim, config.kernel_size, config.dropout)
        self.blocks = nn.ModuleList(
            SqueezeformerBlock(*sizes, config.position, config.norm) for _ in range(config.num_layers)
        )
        self.reduction = TimeReduction(config.dim) if self.slow else None
        self.recovery = TimeRecovery(config.dim) if self.slow else None

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / self.config.factor

    @property
    def receptive_field(self) -> int:
        """Input frames that one output frame sees by convolution alone; attention sees the rest of the item."""
        fast, slow = self.num_layers - len(self.slow), len(self.slow)
        steps = (self.config.kernel_size - 1) * (fast + 2 * slow) + (2 if slow else 0)
        return self.subsampling.receptive_field + steps * self.config.factor

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return self.subsampling.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The front end: `factor` times fewer frames."""
        hidden, lengths = self.subsampling(values, lengths)
        return Features(hidden, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Normed (the one norm before a block), with dropout."""
        return replace(local, values=zero_padding(self.dropout(self.norm(local.values)), local.lengths))

    @overload
    def context(
        self, embedded: Features, layers: Literal[False] = False, between: Between | None = None
    ) -> Features: ...
    @overload
    def context(self, embedded: Features, layers: Literal[True], between: Between | None = None) -> list[Features]: ...
    @overload
    def context(
        self, embedded: Features, layers: bool, between: Between | None = None
    ) -> Features | list[Features]: ...
    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The blocks.

        Args:
            embedded: padded; what stands in the padding does not matter.
            layers: return what would come out with no block, with the first alone, and so on: all at one rate.
            between: is given what comes out of each block (0: what enters the first), at the block's own rate, and
                returns what the next one gets.
        """
        results = self._run(embedded, layers, between, None)
        return results if layers else results[-1]

    def attention_maps(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The weights of each block's attention, at the block's own frame rate."""
        maps: list[Tensor] = []
        self._run(self.embed(self.local(values, lengths)), False, None, maps)
        return maps

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch.

        Args:
            values: features; what stands in the padding does not matter.
            lengths: frames of each item.
            layers: return what would come out after the front end and after each block, `num_layers + 1` in all.
        """
        return self.context(self.embed(self.local(values, lengths)), layers)

    def _run(
        self, embedded: Features, layers: bool, between: Between | None, maps: list[Tensor] | None
    ) -> list[Features]:
        now = replace(embedded, values=zero_padding(embedded.values, embedded.lengths))
        around, before, results = self._surroundings(now), None, [now] if layers else []
        blocks: list[Any] = list(self.blocks)
        for index, block in enumerate(blocks):
            if between is not None:
                given = between(index, now)
                now = replace(now, values=zero_padding(given.values, given.lengths))
            if index == self.slow.start and self.reduction is not None:
                before = now
                values, lengths = self.reduction(now.values, now.lengths)
                now = Features(values, lengths, embedded.frame_rate / 2)
                around = self._surroundings(now)
            elif index == self.slow.stop and before is not None:
                now, before = self._recovered(now, before), None
                around = self._surroundings(now)
            if maps is not None:
                maps.append(block.attention_map(now.values, *around))
            now = replace(now, values=zero_padding(block(now.values, now.lengths, *around), now.lengths))
            if layers:
                results.append(self._recovered(now, before))
        return results if layers else [self._recovered(now, before)]

    def _recovered(self, now: Features, before: Features | None) -> Features:
        """At the full rate again; as it is where it never left it."""
        if before is None or self.recovery is None:
            return now
        return replace(before, values=zero_padding(self.recovery(now.values, before.values), before.lengths))

    def _surroundings(self, now: Features) -> tuple[Tensor, Tensor | None]:
        """Mask and table of positions, shared by the blocks of one rate."""
        config, num_frames = self.config, now.values.shape[1]
        sizes = (config.dim, config.num_heads, num_frames, num_frames)
        table = position_table(config.position, *sizes, device=now.values.device)
        return attention_mask(now.lengths, num_frames), table


def _sized(dim: int, num_layers: int, num_heads: int, changes: dict[str, Any]) -> SqueezeformerConfig:
    sizes = {"dim": dim, "num_layers": num_layers, "num_heads": num_heads, "ffn_dim": 4 * dim}
    return replace(SqueezeformerConfig(), **{**sizes, **changes})


def squeezeformer_xsmall(**changes: Any) -> SqueezeformerConfig:
    """9.0 M parameters with a CTC layer (table 2, XS)."""
    return _sized(144, 16, 4, changes)


def squeezeformer_small(**changes: Any) -> SqueezeformerConfig:
    """18.6 M parameters (table 2, S)."""
    return _sized(196, 18, 4, changes)


def squeezeformer_small_medium(**changes: Any) -> SqueezeformerConfig:
    """28.2 M parameters (table 2, SM)."""
    return _sized(256, 16, 4, changes)


def squeezeformer_medium(**changes: Any) -> SqueezeformerConfig:
    """55.6 M parameters (table 2, M)."""
    return _sized(324, 20, 4, changes)


def squeezeformer_medium_large(**changes: Any) -> SqueezeformerConfig:
    """125.1 M parameters (table 2, ML)."""
    return _sized(512, 18, 8, changes)


def squeezeformer_large(**changes: Any) -> SqueezeformerConfig:
    """236.3 M parameters (table 2, L)."""
    return _sized(640, 22, 8, changes)


def squeezeformer_tiny(**changes: Any) -> SqueezeformerConfig:
    """Four small blocks, for tests and demonstrations; no published size."""
    return _sized(64, 4, 4, {"kernel_size": 7, "channels": 32, "dropout": 0.0, "ffn_dim": 128, **changes})


def build(config: SqueezeformerConfig) -> Squeezeformer:
    """The module of a configuration, with random weights."""
    return Squeezeformer(config)
