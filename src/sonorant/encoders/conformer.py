"""The Conformer encoder (Gulati et al., 2020, arXiv:2005.08100) and Fast Conformer: config, model, stream, published sizes.

Fast Conformer (Rekesh et al., 2023, arXiv:2305.05084) is the same with a cheaper front end (depthwise, ×8) and shorter
kernels, NEST (arXiv:2408.13106) a Fast Conformer that is pre-trained.

Where we differ from the paper: the norm inside the convolution module is LayerNorm by default, not BatchNorm, so that an
item comes out the same in any batch while training too (`norm="batch"` is the paper's, over valid frames only); kernels
are odd (31 for 32), so that frames keep their places; the front end does not pad in time and loses at most its last
window's overlap, so that it is exact for every length and can stream.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.stack import ChunkStream
from sonorant.nn.attention import Position, position_table
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.convolution import SUBSAMPLINGS, build_subsampling
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import attention_mask
from sonorant.nn.norm import NORMS
from sonorant.nn.streaming import FrameBuffer, LayerCache, check_chunks, chunk_mask
from sonorant.nn.transformer import Between

__all__ = [
    "Conformer", "ConformerConfig", "build", "conformer_large", "conformer_medium",
    "conformer_small", "conformer_tiny", "fastconformer_large", "fastconformer_medium", "fastconformer_streaming",
    "fastconformer_tiny", "fastconformer_xlarge", "nest_large",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    """A Conformer; the defaults are the medium size of table 1."""

    input_dim: int = 80
    """Width of the features that come in (mel bands; section 3.1)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop; section 3.1)."""
    subsampling: str = "conv2d"
    """Front end: conv2d (the paper's), depthwise (Fast Conformer's), depthwise_valid (the same, can stream), conv1d, or
    stack."""
    factor: int = 4
    """Input frames that become one (section 2: 10 ms to 40 ms)."""
    channels: int = 0
    """Channels of a 2-D front end; 0: as many as `dim` (section 2.1). On a CPU the front end is most of the work, and
    32 train several times faster."""
    dim: int = 256
    """Width of the blocks."""
    num_layers: int = 16
    """Blocks."""
    num_heads: int = 4
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 1024
    """Inner width of the feed-forwards (section 2.3: four times `dim`)."""
    kernel_size: int = 31
    """Frames that the depthwise convolution sees; odd (section 3.4.4: 32)."""
    dropout: float = 0.1
    """Everywhere (section 3.2)."""
    position: Position = "relative"
    """Positions in the attention: relative (the paper's), rotary (faster), shaw, none."""
    norm: str = "layer"
    """Norm inside the convolution module: layer, rms, batch (the paper's), group, instance."""
    bias: bool = True
    """Of the products in the blocks; Fast Conformers of 2025 have none."""
    scale_input: bool = False
    """Multiply what enters the blocks by the square root of `dim`, as NVIDIA's Fast Conformers do."""
    causal: bool = False
    """The convolutions look back only; needed for streaming."""
    chunk_size: int | None = None
    """Encoder frames of a streaming chunk: a frame sees its chunk and those before. None: a frame sees everything."""
    left_chunks: int | None = None
    """How many chunks back a frame sees; all where None."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "factor", "dim", "num_layers", "num_heads", "ffn_dim", "kernel_size"):
            at_least(name, getattr(self, name), 1)
        at_least("channels", self.channels, 0)
        within("dropout", self.dropout, 0, 0.99)
        one_of("subsampling", self.subsampling, list(SUBSAMPLINGS))
        one_of("norm", self.norm, list(NORMS))
        if self.dim % self.num_heads or self.dim % 2:
            raise ConfigError(f"num_heads must divide dim, and dim be even, got {self.num_heads} and {self.dim}")
        check_chunks(self.chunk_size, self.left_chunks, self.causal)


class Conformer(nn.Module):
    """Features (fbank) to frames of `config.dim`, `factor` times fewer.

    >>> encoder = Conformer(conformer_tiny())
    >>> encoder(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 25, 64])
    """

    input: Literal["features"] = "features"

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.local_dim, self.num_layers = config.dim, config.dim, config.num_layers
        self.subsampling: Any = build_subsampling(
            config.subsampling, config.input_dim, config.dim, config.factor, config.channels
        )
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            ConformerBlock(
                config.dim,
                config.num_heads,
                config.ffn_dim,
                config.kernel_size,
                config.dropout,
                config.position,
                config.norm,
                config.causal,
                config.bias,
            )
            for _ in range(config.num_layers)
        )

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / self.config.factor

    @property
    def receptive_field(self) -> int:
        """Input frames that one output frame sees by convolution alone; attention sees the rest of the item or chunk."""
        blocks = self.num_layers * (self.config.kernel_size - 1) * self.config.factor
        return self.subsampling.receptive_field + blocks

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return self.subsampling.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The front end: `factor` times fewer frames."""
        hidden, lengths = self.subsampling(values, lengths)
        return Features(hidden, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Scaled where the configuration says so, with dropout."""
        values = local.values * self.dim**0.5 if self.config.scale_input else local.values
        return replace(local, values=self.dropout(values))

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
            layers: return what enters the first block and what comes out of each.
            between: is given each of them (0 for what enters the first block) and returns what the next block gets.
        """
        lengths, outputs = embedded.lengths, []
        hidden = zero_padding(embedded.values, lengths)
        mask, table = self._surroundings(hidden, lengths)
        for index in range(len(self.blocks) + 1):
            if index:
                hidden = self.blocks[index - 1](hidden, lengths, mask, table)
            if layers:
                outputs.append(replace(embedded, values=zero_padding(hidden, lengths)))
            if between is not None and index < len(self.blocks):
                given = between(index, replace(embedded, values=zero_padding(hidden, lengths)))
                hidden = zero_padding(given.values, lengths)
        return outputs if layers else replace(embedded, values=zero_padding(hidden, lengths))

    def attention_maps(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The weights of each block's attention."""
        embedded = self.embed(self.local(values, lengths))
        hidden, maps = embedded.values, []
        mask, table = self._surroundings(hidden, embedded.lengths)
        for block in self.blocks:
            maps.append(block.attention_map(hidden, mask, table))  # type: ignore[operator]
            hidden = block(hidden, embedded.lengths, mask, table)
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
            layers: return what comes out of the front end and of each block, `num_layers + 1` in all.
        """
        return self.context(self.embed(self.local(values, lengths)), layers)

    def _surroundings(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mask and table of positions, shared by all blocks."""
        config, num_frames = self.config, hidden.shape[1]
        window = None
        if config.chunk_size is not None:
            window = chunk_mask(num_frames, config.chunk_size, config.left_chunks, hidden.device)
        table = position_table(config.position, config.dim, config.num_heads, num_frames, num_frames, hidden.device)
        return attention_mask(lengths, num_frames, window), table

    def stream(self, batch: int = 1) -> ChunkStream:
        """A stream over `batch` signals that grow together.

        >>> encoder = Conformer(conformer_tiny(causal=True, chunk_size=4)).eval()
        >>> stream = encoder.stream()
        >>> stream.push(torch.zeros(1, 40, 80)).values.shape, stream.finish().values.shape
        (torch.Size([1, 8, 64]), torch.Size([1, 1, 64]))

        Raises:
            ConfigError: the whole item is seen, or the front end pads.
        """
        config, front = self.config, self.subsampling
        if config.chunk_size is None:
            raise ConfigError(
                "this Conformer sees the whole item; train it with chunk_size=… and causal=True to stream"
            )
        if not front.streamable:
            raise ConfigError(
                f"subsampling='{config.subsampling}' pads in time and cannot stream; take conv2d, depthwise_valid or stack"
            )
        buffer = FrameBuffer(front.stride, front.receptive_field, config.chunk_size)
        left = None if config.left_chunks is None else config.left_chunks * config.chunk_size
        return ChunkStream(self, buffer, lambda: _Chunks(self, left), batch)


class _Chunks:
    """The chunks of one signal, and what the blocks remember of those before."""

    def __init__(self, encoder: Conformer, left_frames: int | None) -> None:
        self.encoder, self.left_frames = encoder, left_frames
        self.caches: list[LayerCache] = []

    @torch.no_grad()
    def __call__(self, window: Tensor) -> Tensor:
        lengths = torch.full((window.shape[0],), window.shape[1], device=window.device)
        embedded = self.encoder.embed(self.encoder.local(window, lengths))
        hidden, lengths = embedded.values, embedded.lengths
        blocks: list[Any] = list(self.encoder.blocks)
        if not self.caches:
            self.caches = [block.empty_cache(window.shape[0], hidden) for block in blocks]
        for index, block in enumerate(blocks):
            hidden, self.caches[index] = block.step(hidden, lengths, self.caches[index], self.left_frames)
        return hidden


def conformer_medium(**changes: object) -> ConformerConfig:
    """30.7 M parameters with the paper's decoder (table 1)."""
    return replace(ConformerConfig(), **changes)  # type: ignore[arg-type]


def conformer_small(**changes: object) -> ConformerConfig:
    """10.3 M parameters with the paper's decoder (table 1)."""
    return conformer_medium(**{"dim": 144, "ffn_dim": 576, **changes})


def conformer_large(**changes: object) -> ConformerConfig:
    """118.8 M parameters with the paper's decoder (table 1)."""
    return conformer_medium(**{"num_layers": 17, "dim": 512, "num_heads": 8, "ffn_dim": 2048, **changes})


def conformer_tiny(**changes: object) -> ConformerConfig:
    """Two small blocks, for tests and demonstrations; no published size."""
    return conformer_medium(**{"num_layers": 2, "dim": 64, "ffn_dim": 128, "kernel_size": 7, "dropout": 0.0, **changes})


def fastconformer_medium(**changes: object) -> ConformerConfig:
    """About 32 M parameters with a decoder: ×8 by depthwise convolutions of 256 channels, kernel 9 (arXiv:2305.05084)."""
    fast = {"subsampling": "depthwise", "factor": 8, "channels": 256, "kernel_size": 9}
    return conformer_medium(**{**fast, **changes})


def fastconformer_large(**changes: object) -> ConformerConfig:
    """About 115 M parameters with a decoder."""
    return fastconformer_medium(**{"num_layers": 17, "dim": 512, "num_heads": 8, "ffn_dim": 2048, **changes})


def fastconformer_xlarge(**changes: object) -> ConformerConfig:
    """About 0.6 G parameters."""
    return fastconformer_large(**{"num_layers": 24, "dim": 1024, "ffn_dim": 4096, **changes})


def fastconformer_tiny(**changes: object) -> ConformerConfig:
    """Two small blocks; no published size."""
    small = {"num_layers": 2, "dim": 64, "ffn_dim": 128, "channels": 32, "dropout": 0.0}
    return fastconformer_medium(**{**small, **changes})


def fastconformer_streaming(**changes: object) -> ConformerConfig:
    """The large one for streams: chunks of 1.04 s that see 5.2 s of the past, about as in arXiv:2312.17279."""
    stream = {"subsampling": "depthwise_valid", "causal": True, "chunk_size": 13, "left_chunks": 5}
    return fastconformer_large(**{**stream, **changes})


def nest_large(**changes: object) -> ConformerConfig:
    """17 blocks of 512, as pre-trained in arXiv:2408.13106 (section 3.1)."""
    return fastconformer_large(**changes)


def build(config: ConformerConfig) -> Conformer:
    """The module of a configuration, with random weights."""
    return Conformer(config)
