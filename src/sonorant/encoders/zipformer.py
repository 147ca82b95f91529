"""Zipformer (Yao et al., 2023, arXiv:2310.11230): a U-Net of stacks at different frame rates, config, model, sizes.

Stacks of blocks run at 50 Hz divided by 1, 2, 4, 8, 4, 2: the middle, widest ones see the fewest frames. A slower stack is
entered by a learnt average of neighbouring frames, left by repeating them, and joined to what came in by a learnt bypass.
The layers that `layers=True` gives are what would come out if the encoder ended there: all of one rate and width.

Where we differ from the authors' code: an item's last, incomplete group of frames is filled with its own last frame, never
with padding, so that every item comes out the same in any batch; no random skipping of layers and no dropout on channels
or positions (dropout in the feed-forwards only); in a causal model all convolutions look back only, where theirs look
ahead within a chunk; what limits activations (`nn/limits.py`) is off unless asked for.
"""

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeVar, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.stack import ChunkStream
from sonorant.nn.conv_embed import ConvEmbed
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.masking import attention_mask
from sonorant.nn.multirate import Downsample, fit_width
from sonorant.nn.streaming import FrameBuffer, check_chunks, chunk_mask
from sonorant.nn.transformer import Between
from sonorant.nn.zipformer import BiasNorm, BlockCache, RateChange, ZipformerBlock, compact_table

__all__ = [
    "Zipformer", "ZipformerConfig", "build", "zipformer_base", "zipformer_large", "zipformer_medium",
    "zipformer_small", "zipformer_streaming", "zipformer_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)
Numbers = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ZipformerConfig:
    """A Zipformer; the defaults are the medium size of table 5. Tuples have one entry a stack."""

    input_dim: int = 80
    """Width of the features that come in (mel bands; section 4.1)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    channels: Numbers = (8, 32, 128)
    """Of the three convolutions of the front end (section 3.1)."""
    factors: Numbers = (1, 2, 4, 8, 4, 2)
    """Frames of the front end that become one inside the stack (section 3.1)."""
    num_blocks: Numbers = (2, 2, 3, 4, 3, 2)
    """Blocks."""
    dims: Numbers = (192, 256, 384, 512, 384, 256)
    """Widths; the largest is that of the output."""
    ffn_dims: Numbers = (512, 768, 1024, 1536, 1024, 768)
    """Inner widths of the second feed-forwards; the first have ¾ of it, the third 1¼."""
    num_heads: Numbers = (4, 4, 4, 8, 4, 4)
    """Heads of the attention."""
    kernel_sizes: Numbers = (31, 31, 15, 15, 15, 31)
    """Frames that the depthwise convolutions see; odd."""
    query_dim: int = 32
    """Width of a head's queries and keys."""
    value_dim: int = 12
    """Width of a head's values."""
    position_head_dim: int = 4
    """Width of a head's query against positions."""
    position_dim: int = 48
    """Width of the table of positions."""
    output_factor: int = 2
    """Frames of the last stack that become one (section 3.1: 25 Hz come out); 1 where units of 50 Hz are predicted."""
    dropout: float = 0.1
    """In the feed-forwards and after the front end."""
    bypass_steps: int = 20_000
    """Batches over which the smallest share of a bypass falls from 0.9 to 0.2 (section 3.1)."""
    limit_activations: bool = False
    """Use Balancer and Whitener (section 3.5) while training."""
    causal: bool = False
    """The convolutions look back only; needed for streaming."""
    chunk_size: int | None = None
    """Frames of the front end in a streaming chunk: a frame sees its chunk and those before. None: everything."""
    left_chunks: int | None = None
    """How many chunks back a frame sees; all where None."""

    def __post_init__(self) -> None:
        for name in ("factors", "num_blocks", "ffn_dims", "num_heads", "kernel_sizes"):
            if len(getattr(self, name)) != len(self.dims):
                sizes = f"{len(getattr(self, name))} and {len(self.dims)}"
                raise ConfigError(f"{name} and dims must have one entry for each stack, got {sizes}")
            at_least(name, min(getattr(self, name), default=0), 1)
        if len(self.channels) != 3:
            raise ConfigError(f"channels must be three numbers, got {self.channels}")
        at_least("dims", min(self.dims), 4)
        at_least("output_factor", self.output_factor, 1)
        at_least("bypass_steps", self.bypass_steps, 1)
        within("dropout", self.dropout, 0, 0.99)
        check_chunks(self.chunk_size, self.left_chunks, self.causal)
        for factor in (*self.factors, self.output_factor):
            if self.chunk_size is not None and self.chunk_size % factor:
                raise ConfigError(f"chunk_size must be a multiple of every factor, got {self.chunk_size} and {factor}")


class Zipformer(nn.Module):
    """Features (fbank) to frames as wide as the widest stack, `2 * output_factor` times fewer.

    >>> encoder = Zipformer(zipformer_tiny())
    >>> encoder(torch.zeros(1, 103, 80), torch.tensor([103])).values.shape
    torch.Size([1, 24, 64])
    """

    input: Literal["features"] = "features"
    updates: Tensor

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.embed_dim, self.num_layers = max(config.dims), config.dims[0], sum(config.num_blocks)
        self.front = ConvEmbed(config.input_dim, config.channels, config.causal, config.limit_activations)
        self.local_dim = self.front.dim
        self.project = Linear(self.front.dim, config.dims[0])
        self.norm = BiasNorm(config.dims[0])
        self.dropout = Dropout(config.dropout)
        # Beside the blocks, not around them: all blocks stand in one list.
        self.stacks = nn.ModuleList(RateChange(*sizes) for sizes in zip(config.dims, config.factors, strict=True))
        spans = pairwise(accumulate(config.num_blocks, initial=0))
        self.spans = [range(*span) for span in spans]
        self.blocks = nn.ModuleList(_block(config, stack) for stack, span in enumerate(self.spans) for _ in span)
        self.output = Downsample(config.output_factor) if config.output_factor > 1 else None
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / (self.front.stride * self.config.output_factor)

    @property
    def receptive_field(self) -> int:
        """Input frames that one output frame sees by convolutions and averages alone; attention sees the rest."""
        config, seen = self.config, self.config.output_factor - 1
        for factor, count, kernel in zip(config.factors, config.num_blocks, config.kernel_sizes, strict=True):
            seen += factor - 1 + count * 2 * (kernel - 1) * factor
        return self.front.receptive_field + seen * self.front.stride

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return -(-self.front.output_lengths(lengths) // self.config.output_factor)

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The convolutional front end: half the frames."""
        hidden, lengths = self.front(values, lengths)
        return Features(hidden, lengths, self.config.input_frame_rate / self.front.stride)

    def embed(self, local: Features) -> Features:
        """Projected to the first stack's width and normed."""
        values = self.dropout(self.norm(self.project(local.values)))
        return replace(local, values=zero_padding(values, local.lengths))

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
        """The stacks.

        Args:
            embedded: padded; what stands in the padding does not matter.
            layers: return what would come out if the encoder had no block, the first alone, and so on.
            between: is given what comes out of each block (0: what enters the first), at its stack's rate and width, and
                returns what the next block gets.
        """
        results = self._run(embedded, layers, between, None)
        return results if layers else results[-1]

    def attention_maps(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The weights of each block's attention, at its stack's frame rate."""
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

    def floor(self) -> Tensor:
        """Smallest share of a block that its bypass keeps: 0.9 at the start of training, 0.2 from `bypass_steps` on."""
        return 0.9 - 0.7 * (self.updates / self.config.bypass_steps).clamp(max=1.0)

    def finished(self, outputs: list[Tensor], lengths: Tensor) -> Features:
        """From what came out of the stacks to the output: the last one's channels, then those that only wider ones have."""
        pieces, width = [outputs[-1]], outputs[-1].shape[-1]
        for output in reversed(outputs[:-1]):
            if output.shape[-1] > width:
                pieces.append(output[..., width:])
                width = output.shape[-1]
        values = fit_width(torch.cat(pieces, dim=-1), self.dim)
        if self.output is not None:
            values, lengths = self.output(values, lengths)
        return Features(zero_padding(values, lengths), lengths, self.frame_rate)

    def _run(
        self, embedded: Features, layers: bool, between: Between | None, maps: list[Tensor] | None
    ) -> list[Features]:
        lengths, floor = embedded.lengths, self._counted_floor()
        whole = _changed(between, 0, zero_padding(embedded.values, lengths), lengths, embedded.frame_rate)
        outputs: list[Tensor] = []
        results = [self.finished([zero_padding(embedded.values, lengths)], lengths)] if layers else []
        stacks: list[Any] = list(self.stacks)
        for stack, span in zip(stacks, self.spans, strict=True):
            blocks: list[tuple[int, Any]] = list(enumerate(self.blocks))[span.start : span.stop]
            if not blocks:  # the upper blocks were cut off
                break
            before = fit_width(whole, stack.dim)
            inner, sizes = stack.enter(before, lengths)
            mask, table = self._surroundings(stack.factor, inner, sizes)
            for index, block in blocks:
                if maps is not None:
                    maps.append(block.attention_map(inner, mask, table))
                inner = block(inner, sizes, mask, table, floor)
                if layers:
                    left = stack.leave(before, inner, floor)
                    results.append(self.finished([*outputs, left], lengths))
                if index + 1 < len(self.blocks):
                    inner = _changed(between, index + 1, inner, sizes, embedded.frame_rate / stack.factor)
            whole = stack.leave(before, inner, floor)
            outputs.append(whole)
        return results if layers else [self.finished(outputs or [whole], lengths)]

    def _counted_floor(self) -> Tensor:
        floor = self.floor()
        if self.training and not torch.compiler.is_compiling():
            self.updates += 1
        return floor

    def _surroundings(self, factor: Any, inner: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and table of positions, shared by the blocks of a stack."""
        config, num_frames = self.config, inner.shape[1]
        window = None
        if config.chunk_size is not None:
            window = chunk_mask(num_frames, config.chunk_size // factor, config.left_chunks, inner.device)
        table = compact_table(num_frames, num_frames, config.position_dim, inner.device)
        return attention_mask(lengths, num_frames, window), table

    def stream(self, batch: int = 1) -> ChunkStream:
        """A stream over `batch` signals that grow together.

        >>> encoder = Zipformer(zipformer_tiny(causal=True, chunk_size=8)).eval()
        >>> stream = encoder.stream()
        >>> stream.push(torch.zeros(1, 45, 80)).values.shape, stream.finish().values.shape
        (torch.Size([1, 8, 64]), torch.Size([1, 2, 64]))

        Raises:
            ConfigError: the whole item is seen.
        """
        config, front = self.config, self.front
        if config.chunk_size is None:
            raise ConfigError(
                "this Zipformer sees the whole item; train it with chunk_size=… and causal=True to stream"
            )
        buffer = FrameBuffer(front.stride, front.valid_field, config.chunk_size)
        left = None if config.left_chunks is None else config.left_chunks * config.chunk_size
        return ChunkStream(self, buffer, lambda: _Chunks(self, left), batch)


def _block(config: ZipformerConfig, stack: int) -> ZipformerBlock:
    return ZipformerBlock(
        config.dims[stack],
        config.num_heads[stack],
        config.ffn_dims[stack],
        config.kernel_sizes[stack],
        query_dim=config.query_dim,
        value_dim=config.value_dim,
        position_head_dim=config.position_head_dim,
        position_dim=config.position_dim,
        dropout=config.dropout,
        causal=config.causal,
        limit=config.limit_activations,
    )


def _changed(between: Between | None, index: int, values: Tensor, lengths: Tensor, frame_rate: float) -> Tensor:
    if between is None:
        return values
    given = between(index, Features(zero_padding(values, lengths), lengths, frame_rate))
    return zero_padding(given.values, given.lengths)


class _Chunks:
    """The chunks of one signal, and what front end and blocks remember of those before."""

    def __init__(self, encoder: Zipformer, left: int | None) -> None:
        self.encoder, self.left = encoder, left
        self.caches: list[BlockCache] = []
        self.front_cache: Tensor | None = None

    @torch.no_grad()
    def __call__(self, window: Tensor) -> Tensor:
        encoder, floor = self.encoder, self.encoder.floor()
        blocks: list[Any] = list(encoder.blocks)
        if not self.caches:
            self.caches = [block.empty_cache(window.shape[0], window) for block in blocks]
        hidden, self.front_cache = encoder.front.step(window, self.front_cache)
        lengths = torch.full((hidden.shape[0],), hidden.shape[1], device=hidden.device)
        whole = encoder.embed(Features(hidden, lengths, encoder.frame_rate)).values
        outputs: list[Tensor] = []
        stacks: list[Any] = list(encoder.stacks)
        for stack, span in zip(stacks, encoder.spans, strict=True):
            before = fit_width(whole, stack.dim)
            inner, _ = stack.enter(before, lengths)
            left = None if self.left is None else self.left // stack.factor
            for index in span[: max(0, len(blocks) - span.start)]:
                past = self.caches[index].key.shape[2]
                size = inner.shape[1]
                table = compact_table(size, past + size, encoder.config.position_dim, inner.device)
                inner, self.caches[index] = blocks[index].step(inner, self.caches[index], left, table, floor)
            whole = stack.leave(before, inner, floor)
            outputs.append(whole)
        return encoder.finished(outputs, lengths).values


def zipformer_medium(**changes: Any) -> ZipformerConfig:
    """About 64 M parameters (table 5)."""
    return replace(ZipformerConfig(), **changes)


def zipformer_small(**changes: Any) -> ZipformerConfig:
    """About 22 M parameters (table 5)."""
    wide = (256,) * 5
    sizes = {"num_blocks": (2,) * 6, "dims": (192, *wide), "ffn_dims": (512, *(768,) * 5)}
    return zipformer_medium(**{**sizes, **changes})


def zipformer_large(**changes: Any) -> ZipformerConfig:
    """About 147 M parameters (table 5)."""
    sizes = {
        "num_blocks": (2, 2, 4, 5, 4, 2),
        "dims": (192, 256, 512, 768, 512, 256),
        "ffn_dims": (512, 768, 1536, 2048, 1536, 768),
    }
    return zipformer_medium(**{**sizes, **changes})


def zipformer_base(**changes: Any) -> ZipformerConfig:
    """The size of HuBERT Base, as pre-trained on units of 50 Hz in arXiv:2411.17100."""
    return zipformer_medium(**{"dims": (192, 256, 448, 768, 448, 192), "output_factor": 1, **changes})


def zipformer_streaming(**changes: Any) -> ZipformerConfig:
    """The medium size for streams: chunks of 0.64 s that see 2.56 s of the past."""
    return zipformer_medium(**{"causal": True, "chunk_size": 32, "left_chunks": 4, **changes})


def zipformer_tiny(**changes: Any) -> ZipformerConfig:
    """Three stacks of one block, for tests and demonstrations; no published size."""
    sizes = {
        "channels": (4, 8, 16), "factors": (1, 2, 1), "num_blocks": (1, 1, 1), "dims": (48, 64, 48),
        "ffn_dims": (96, 128, 96), "num_heads": (2, 2, 2), "kernel_sizes": (7, 5, 7), "query_dim": 16, "dropout": 0.0,
    }  # fmt: skip
    return zipformer_medium(**{**sizes, **changes})


def build(config: ZipformerConfig) -> Zipformer:
    """The module of a configuration, with random weights."""
    return Zipformer(config)
