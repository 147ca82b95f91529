"""Whisper (Radford et al., 2022, arXiv:2212.04356): encoder of log-mel frames and decoder of text.

The input is that of `audio.features.mel.WhisperMel`, 100 frames a second; two convolutions halve them, sinusoids are added,
Transformer layers with the norm first follow. Read `WhisperConfig`, `WhisperEncoder`, `WhisperDecoder`; `Whisper` joins the
two. The tables of foreign names stand in `encoders/keys/whisper.py`.

Where we differ: Whisper was trained on items followed by silence up to 30 s, and what it says of an item depends on that.
Here an item is as long as it is, which costs less and makes no frame of silence; `window=3000` puts the silence behind it
(every item then has 1500 frames and none may be longer). `WhisperMel(seconds=30)` does the same before the features are
made, which is what the authors do, and differs in the one or two frames whose windows reach over the item's end.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import Geometry, valid_mask, zero_padding
from sonorant.core.types import Features
from sonorant.nn.decoder import DecoderCache, DecoderLayer
from sonorant.nn.dropout import Dropout
from sonorant.nn.masking import attention_mask, causal_mask
from sonorant.nn.packed import Layout
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = [
    "DecoderState", "Whisper", "WhisperConfig", "WhisperDecoder", "WhisperEncoder", "build", "build_whisper",
    "frame_positions", "whisper_base", "whisper_large", "whisper_large_v3", "whisper_large_v3_turbo", "whisper_medium",
    "whisper_micro", "whisper_small", "whisper_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)

HALVING = Geometry.conv(3, 2, 1)
"""The second convolution; the first one keeps the number of frames."""


@dataclass(frozen=True, kw_only=True)
class WhisperConfig:
    """Encoder and decoder; the defaults are Whisper base, multilingual (table 1)."""

    input_dim: int = 80
    """Mel bands; 128 from large-v3 on."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop, section 2.2)."""
    dim: int = 512
    """Width of the layers of both."""
    num_layers: int = 6
    """Layers of the encoder."""
    num_heads: int = 8
    """Heads of all attentions; must divide `dim`."""
    ffn_dim: int = 2048
    """Inner width of the feed-forwards."""
    decoder_layers: int = 6
    """Layers of the decoder."""
    vocab_size: int = 51865
    """Tokens: 51864 in the English models, 51866 from large-v3 on."""
    max_tokens: int = 448
    """Tokens that the decoder's positions reach."""
    window: int = 0
    """Input frames that every item is filled up to with silence (3000 = 30 s as in training); 0: none."""
    dropout: float = 0.0
    """Before each residual sum and on what enters the first layer."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forwards."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "num_layers", "num_heads", "ffn_dim", "decoder_layers", "vocab_size"):
            at_least(name, getattr(self, name), 1)
        at_least("max_tokens", self.max_tokens, 1)
        at_least("window", self.window, 0)
        for name in ("dropout", "attention_dropout", "inner_dropout"):
            within(name, getattr(self, name), 0, 0.99)
        if self.dim % self.num_heads or self.dim % 2 or self.dim < 4:
            raise ConfigError(
                f"num_heads must divide dim, and dim be even and 4 or more, got num_heads={self.num_heads} and dim={self.dim}"
            )


def frame_positions(num_frames: int, dim: int, device: torch.device | str = "cpu") -> Float[Tensor, "frame dim"]:
    """Sines in the first half, cosines in the second, of periods from 2π to exactly 20000π frames (the authors' code)."""
    steps = torch.arange(dim // 2, device=device, dtype=torch.float32)
    rates = torch.exp(steps * (-math.log(10_000.0) / (dim // 2 - 1)))
    angles = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _Positions(nn.Module):
    """Adds `frame_positions`; they are computed, so no item is too long."""

    def packed(self, values: Float[Tensor, "*frames dim"], layout: Layout) -> Float[Tensor, "*frames dim"]:
        def add(own: Tensor, _: Tensor | None) -> Tensor:
            return own + frame_positions(own.shape[1], own.shape[2], own.device).to(own.dtype)

        return layout.over_items(add, values)


class WhisperEncoder(nn.Module):
    """Log-mel frames → frames of `config.dim`, half as many.

    >>> encoder = WhisperEncoder(whisper_micro())
    >>> encoder(torch.zeros(1, 51, 80), torch.tensor([51])).values.shape
    torch.Size([1, 26, 64])
    """

    input = "features"

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.dim = self.local_dim = config.dim
        self.num_layers = config.num_layers
        self.convs = nn.ModuleList(
            [nn.Conv1d(config.input_dim, config.dim, 3, padding=1), nn.Conv1d(config.dim, config.dim, 3, 2, 1)]
        )
        blocks = [
            TransformerLayer(
                config.dim,
                config.num_heads,
                config.ffn_dim,
                config.dropout,
                attention_dropout=config.attention_dropout,
                inner_dropout=config.inner_dropout,
            )
            for _ in range(config.num_layers)
        ]
        options: dict[str, Any] = {"norm_first": True, "position": _Positions(), "dropout": config.dropout}
        self.stack = TransformerStack(blocks, config.dim, **options)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / 2

    @property
    def receptive_field(self) -> int:
        """Input frames that one frame sees by the convolutions; attention sees the whole item."""
        return 5

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out; those of the window for every item where there is one."""
        if self.config.window:
            lengths = lengths * 0 + self.config.window
        return HALVING.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """What the two convolutions make.

        Raises:
            DataError: an item is longer than the window.
        """
        if self.config.window:
            values, lengths = self._filled(values, lengths)
        hidden = zero_padding(values, lengths)
        for conv in self.convs:
            # What the first one writes just beyond an item's end must not be seen by the second.
            hidden = nn.functional.gelu(conv(hidden.transpose(1, 2))).transpose(1, 2)
            lengths = lengths if conv is self.convs[0] else HALVING.output_lengths(lengths)
            hidden = zero_padding(hidden, lengths)
        return Features(hidden, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The same: positions are added behind what may be masked."""
        return local

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """Positions and the layers; see `TransformerStack`."""
        return self.stack(embedded, layers, between)

    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[False] = False) -> Features: ...
    @overload
    def forward(self, values: Tensor, lengths: Tensor, layers: Literal[True]) -> list[Features]: ...
    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The attention's weights, one tensor a layer."""
        return self.stack.attention_maps(self.embed(self.local(values, lengths)))

    def _filled(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Each item followed by the features of silence: the floor, which lies 2 below the item's peak (8 in log10)."""
        window = self.config.window
        if not torch.compiler.is_compiling() and values.shape[1] > window and int(lengths.max()) > window:
            raise DataError(
                f"an item has {int(lengths.max())} frames and the window holds {window}: cut the audio, or take window=0"
            )
        values = nn.functional.pad(values, (0, 0, 0, window))[:, :window]
        beyond = ~valid_mask(lengths, window)[..., None]
        # Without a frame of signal there is no peak; the lowest floor is that of digital silence.
        floor = (values.masked_fill(beyond, float("-inf")).amax(dim=(1, 2), keepdim=True) - 2).clamp(min=-1.5)
        return torch.where(beyond, floor, values), lengths * 0 + window


class DecoderState(NamedTuple):
    """What the decoder remembers between steps."""

    caches: tuple[DecoderCache, ...]
    frames_mask: Tensor
    """(batch, 1, 1, frame), True where there is signal."""

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return self.caches[0].key.shape[2]

    def select(self, rows: Int[Tensor, " row"]) -> "DecoderState":
        """That of some rows, in their order, perhaps repeated: what a beam search keeps."""
        return DecoderState(tuple(cache.select(rows) for cache in self.caches), self.frames_mask[rows])


class WhisperDecoder(nn.Module):
    """Tokens → logits of the next token at each of them.

    Step by step: `state = decoder.start(encoded)`, then `logits, state = decoder.step(tokens, state)` with any number of
    tokens at a time; `forward` is one such step from the start.
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Parameter(torch.empty(config.max_tokens, config.dim))
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            DecoderLayer(
                config.dim,
                config.num_heads,
                config.ffn_dim,
                config.dropout,
                attention_dropout=config.attention_dropout,
                inner_dropout=config.inner_dropout,
            )
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.dim)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, tokens: Int[Tensor, "batch token"], encoded: Features) -> Float[Tensor, "batch token vocab"]:
        """Logits for whole texts; tokens of padding, at the end, change nothing before them.

        Raises:
            DataError: more tokens than there are positions.
        """
        return self.step(tokens, self.start(encoded))[0]

    def start(self, encoded: Features) -> DecoderState:
        """The state before the first token: keys and values of the encoder's frames."""
        frames = zero_padding(encoded.values, encoded.lengths)
        caches = tuple(block.start(frames) for block in self.blocks)  # type: ignore[operator]
        return DecoderState(caches, attention_mask(encoded.lengths, frames.shape[1]))

    def step(
        self, tokens: Int[Tensor, "batch token"], state: DecoderState
    ) -> tuple[Float[Tensor, "batch token vocab"], DecoderState]:
        """Logits after each of some tokens that follow those of `state`, and the state with them.

        Raises:
            DataError: more tokens than there are positions.
        """
        past, count = state.num_tokens, tokens.shape[1]
        if past + count > len(self.positions):
            raise DataError(
                f"a text of {past + count} tokens is longer than the decoder's {len(self.positions)} positions: cut the "
                "audio into shorter items"
            )
        values = self.dropout(self.tokens(tokens) + self.positions[past : past + count])
        mask = causal_mask(count, past, tokens.device)
        caches = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            values, cache = block.step(values, cache, mask, state.frames_mask)  # type: ignore[operator]
            caches.append(cache)
        logits = self.norm(values) @ self.tokens.weight.t()
        return logits, DecoderState(tuple(caches), state.frames_mask)


class Whisper(nn.Module):
    """Encoder and decoder.

    >>> model = Whisper(whisper_micro()).eval()
    >>> model(torch.zeros(1, 40, 80), torch.tensor([40]), torch.tensor([[3, 1, 2]])).shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)

    def forward(
        self,
        values: Float[Tensor, "batch frame dim"],
        lengths: Int[Tensor, " batch"],
        tokens: Int[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token vocab"]:
        """Logits of the next token at each token."""
        return self.decoder(tokens, self.encoder(values, lengths))  # type: ignore[no-any-return]


def build(config: WhisperConfig) -> WhisperEncoder:
    """The encoder of a configuration, with random weights."""
    return WhisperEncoder(config)


def build_whisper(config: WhisperConfig) -> Whisper:
    """Encoder and decoder of a configuration, with random weights."""
    return Whisper(config)


# --- sizes (table 1) ----------------------------------------------------------------------------------------------------


def whisper_base(**changes: Any) -> WhisperConfig:
    """74 M parameters, 20 M of them in the encoder."""
    return replace(WhisperConfig(), **changes)


def whisper_tiny(**changes: Any) -> WhisperConfig:
    """39 M parameters: the smallest that was published."""
    size = {"dim": 384, "num_layers": 4, "decoder_layers": 4, "num_heads": 6, "ffn_dim": 1536}
    return whisper_base(**{**size, **changes})


def whisper_small(**changes: Any) -> WhisperConfig:
    """244 M parameters."""
    size = {"dim": 768, "num_layers": 12, "decoder_layers": 12, "num_heads": 12, "ffn_dim": 3072}
    return whisper_base(**{**size, **changes})


def whisper_medium(**changes: Any) -> WhisperConfig:
    """769 M parameters."""
    size = {"dim": 1024, "num_layers": 24, "decoder_layers": 24, "num_heads": 16, "ffn_dim": 4096}
    return whisper_base(**{**size, **changes})


def whisper_large(**changes: Any) -> WhisperConfig:
    """1550 M parameters; large-v2 is the same, trained longer."""
    size = {"dim": 1280, "num_layers": 32, "decoder_layers": 32, "num_heads": 20, "ffn_dim": 5120}
    return whisper_base(**{**size, **changes})


def whisper_large_v3(**changes: Any) -> WhisperConfig:
    """Large on 128 bands, with one language more."""
    return whisper_large(**{"input_dim": 128, "vocab_size": 51866, **changes})


def whisper_large_v3_turbo(**changes: Any) -> WhisperConfig:
    """809 M parameters: large-v3 with four layers in the decoder."""
    return whisper_large_v3(**{"decoder_layers": 4, **changes})


def whisper_micro(**changes: Any) -> WhisperConfig:
    """Two narrow layers each, for tests and demonstrations; no published size."""
    size = {"dim": 64, "num_layers": 2, "decoder_layers": 2, "num_heads": 2, "ffn_dim": 128}
    return whisper_base(**{**size, "vocab_size": 100, "max_tokens": 64, **changes})
