"""The Conformer encoder (Gulati et al., 2020, arXiv:2005.08100): config, model, stream, published sizes.

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
from sonorant.nn.attention import Position, position_table
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.convolution import SUBSAMPLINGS, build_subsampling
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import attention_mask
from sonorant.nn.norm import NORMS
from sonorant.nn.streaming import FrameBuffer, LayerCache, chunk_mask

__all__ = [
    "Conformer", "ConformerConfig", "ConformerStream", "build", "conformer_large", "conformer_medium",
    "conformer_small", "conformer_tiny",
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
    """Front end: conv2d (the paper's), depthwise (Fast Conformer's), conv1d, or stack."""
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
        if self.chunk_size is not None:
            at_least("chunk_size", self.chunk_size, 1)
            if not self.causal:
                raise ConfigError("chunk_size needs causal=True: a centred convolution would look beyond the chunk")
        elif self.left_chunks is not None:
            raise ConfigError("left_chunks is counted in chunks; give chunk_size too")


class Conformer(nn.Module):
    """Features (fbank) to frames of `config.dim`, `factor` times fewer.

    >>> encoder = Conformer(conformer_tiny())
    >>> encoder(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 25, 64])
    """

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.num_layers = config.dim, config.num_layers
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
        hidden, lengths = self.subsampling(values, lengths)
        hidden = self.dropout(hidden)
        mask, table = self._surroundings(hidden, lengths)
        outputs = [hidden]
        for block in self.blocks:
            outputs.append(block(outputs[-1], lengths, mask, table))
        if layers:
            return [Features(zero_padding(output, lengths), lengths, self.frame_rate) for output in outputs]
        return Features(zero_padding(outputs[-1], lengths), lengths, self.frame_rate)

    def _surroundings(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mask and table of positions, shared by all blocks."""
        config, num_frames = self.config, hidden.shape[1]
        window = None
        if config.chunk_size is not None:
            window = chunk_mask(num_frames, config.chunk_size, config.left_chunks, hidden.device)
        table = position_table(config.position, config.dim, config.num_heads, num_frames, num_frames, hidden.device)
        return attention_mask(lengths, num_frames, window), table

    def stream(self, batch: int = 1) -> "ConformerStream":
        """A stream over `batch` signals that grow together."""
        return ConformerStream(self, batch)


class ConformerStream:
    """Chunk by chunk, with the same frames as the whole signal at once gives (module in `eval()`).

    >>> encoder = Conformer(conformer_tiny(causal=True, chunk_size=4)).eval()
    >>> stream = encoder.stream()
    >>> stream.push(torch.zeros(1, 40, 80)).values.shape, stream.finish().values.shape
    (torch.Size([1, 8, 64]), torch.Size([1, 1, 64]))
    """

    def __init__(self, encoder: Conformer, batch: int = 1) -> None:
        config = encoder.config
        if config.chunk_size is None:
            raise ConfigError(
                "this Conformer sees the whole item; train it with chunk_size=… and causal=True to stream"
            )
        if not encoder.subsampling.streamable:
            raise ConfigError(
                f"subsampling='{config.subsampling}' pads in time and cannot stream; take conv2d or stack"
            )
        self.encoder, self.batch = encoder, batch
        front = encoder.subsampling
        self.buffer = FrameBuffer(front.stride, front.receptive_field, config.chunk_size)
        self.left_frames = None if config.left_chunks is None else config.left_chunks * config.chunk_size
        self.caches: list[LayerCache] = []

    def push(self, values: Float[Tensor, "batch frame dim"]) -> Features:
        """Takes any number of frames; returns those that came out, in whole chunks (perhaps none)."""
        return self._features([self._chunk(window) for window in self.buffer.push(values)], values)

    def finish(self) -> Features:
        """The frames of the last, incomplete chunk; the stream is then ready for another signal."""
        rest = self.buffer.finish()
        chunks = [] if rest is None else [self._chunk(rest)]
        self.caches = []
        return self._features(chunks, next(self.encoder.parameters()))

    @torch.no_grad()
    def _chunk(self, window: Tensor) -> Tensor:
        lengths = torch.full((window.shape[0],), window.shape[1], device=window.device)
        hidden, lengths = self.encoder.subsampling(window, lengths)
        blocks: list[Any] = list(self.encoder.blocks)
        if not self.caches:
            self.caches = [block.empty_cache(window.shape[0], hidden) for block in blocks]
        for index, block in enumerate(blocks):
            hidden, self.caches[index] = block.step(hidden, lengths, self.caches[index], self.left_frames)
        return hidden

    def _features(self, chunks: list[Tensor], like: Tensor) -> Features:
        values = torch.cat(chunks, dim=1) if chunks else like.new_zeros(self.batch, 0, self.encoder.dim)
        lengths = torch.full((values.shape[0],), values.shape[1], device=values.device)
        return Features(values, lengths, self.encoder.frame_rate)


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


def build(config: ConformerConfig) -> Conformer:
    """The module of a configuration, with random weights."""
    return Conformer(config)
