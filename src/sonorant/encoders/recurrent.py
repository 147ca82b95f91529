"""Recurrent encoders: Deep Speech's network, and a stack of BiGRU or BiLSTM layers as the plain baseline."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.convolution import SUBSAMPLINGS, build_subsampling
from sonorant.nn.dropout import Dropout
from sonorant.nn.recurrent import ClippedLinear, ClippedRnn, Recurrent, RecurrentKind

__all__ = [
    "DeepSpeechConfig", "DeepSpeechEncoder", "DeepSpeechStream", "RecurrentConfig", "RecurrentEncoder", "bigru", "bilstm",
    "build", "deepspeech", "deepspeech_paper",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class DeepSpeechConfig:
    """Deep Speech (Hannun et al., 2014, arXiv:1412.5567, section 2); defaults as in the engine of that name from 0.6 on."""

    input_dim: int = 26
    """Width of the features that come in (26 MFCC in the engine; the paper takes a spectrogram)."""
    input_frame_rate: float = 50.0
    """Frames a second that come in (20 ms hop in the engine, 10 ms in the paper)."""
    context: int = 9
    """Frames on each side that the first layer sees (section 2: C in 5, 7, 9)."""
    dim: int = 2048
    """Width of all layers (section 2: 2048)."""
    recurrence: Literal["lstm", "rnn"] = "lstm"
    """Layer 4: "lstm" looks back only and can stream (engine); "rnn" is the paper's clipped bidirectional one."""
    clip: float = 20.0
    """Upper end of the rectifiers (section 2)."""
    dropout: float = 0.05
    """After each dense layer (section 2.1: 5–10 %)."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim"):
            at_least(name, getattr(self, name), 1)
        at_least("context", self.context, 0)
        within("dropout", self.dropout, 0, 0.99)
        one_of("recurrence", self.recurrence, ("lstm", "rnn"))
        if self.clip <= 0:
            raise ConfigError(f"clip must be above 0, got {self.clip}")


class DeepSpeechEncoder(nn.Module):
    """Three dense layers, a recurrent one and a dense one; a linear layer over characters on top makes the recogniser.

    >>> encoder = DeepSpeechEncoder(DeepSpeechConfig(dim=16))
    >>> encoder(torch.zeros(1, 50, 26), torch.tensor([50])).values.shape
    torch.Size([1, 50, 16])
    """

    input: Literal["features"] = "features"
    num_layers = 5

    def __init__(self, config: DeepSpeechConfig) -> None:
        super().__init__()
        self.config, self.dim, self.local_dim = config, config.dim, config.input_dim
        widths = [config.input_dim * (2 * config.context + 1), config.dim, config.dim, config.dim]
        self.dense = nn.ModuleList(ClippedLinear(*pair, config.clip, config.dropout) for pair in pairwise(widths))
        if config.recurrence == "lstm":
            self.recurrent: Any = Recurrent("lstm", config.dim, config.dim, bidirectional=False)
        else:
            self.recurrent = ClippedRnn(config.dim, config.dim, config.clip)
        self.last = ClippedLinear(config.dim, config.dim, config.clip, config.dropout)

    @property
    def blocks(self) -> nn.ModuleList:
        """The five layers."""
        return nn.ModuleList([*self.dense, self.recurrent, self.last])

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out: as many as come in."""
        return self.config.input_frame_rate

    @property
    def receptive_field(self) -> int:
        """Input frames that the dense layers see; the recurrence sees the rest."""
        return 2 * self.config.context + 1

    def output_lengths(self, lengths: Count) -> Count:
        """As many frames as come in."""
        return lengths

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The frames as they are."""
        return Features(zero_padding(values, lengths), lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """Each frame with `context` neighbours on both sides, one after another."""
        context = self.config.context
        padded = nn.functional.pad(zero_padding(local.values, local.lengths), (0, 0, context, context))
        return replace(local, values=zero_padding(self._windows(padded), local.lengths))

    def context(self, embedded: Features, layers: bool = False) -> Features | list[Features]:
        """The five layers; `layers=True` returns the windows and what comes out of each layer."""
        lengths = embedded.lengths
        outputs = [zero_padding(embedded.values, lengths)]
        for layer in self.dense:
            outputs.append(layer(outputs[-1]))
        outputs.append(self.recurrent(outputs[-1], lengths))
        outputs.append(self.last(outputs[-1]))
        wanted = outputs if layers else outputs[-1:]
        features = [replace(embedded, values=zero_padding(output, lengths)) for output in wanted]
        return features if layers else features[0]

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns the windows and what comes out of each of the five layers."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def _windows(self, padded: Tensor) -> Tensor:
        return padded.unfold(1, self.receptive_field, 1).transpose(2, 3).flatten(2)

    def dense_output(self, padded: Float[Tensor, "batch frame input"]) -> Float[Tensor, "batch out dim"]:
        """The first three layers over frames that are already surrounded by their context."""
        hidden = self._windows(padded)
        for layer in self.dense:
            hidden = layer(hidden)
        return hidden

    def stream(self, batch: int = 1) -> "DeepSpeechStream":
        """A stream over `batch` signals that grow together; needs the one-directional recurrence."""
        return DeepSpeechStream(self, batch)


class DeepSpeechStream:
    """Any number of frames at a time; an output lags `context` frames behind its input."""

    def __init__(self, encoder: DeepSpeechEncoder, batch: int = 1) -> None:
        if encoder.config.recurrence != "lstm":
            raise ConfigError("recurrence='rnn' runs in both directions and cannot stream; take recurrence='lstm'")
        self.encoder, self.batch = encoder, batch
        self._reset()

    def _reset(self) -> None:
        config, like = self.encoder.config, next(self.encoder.parameters())
        self.waiting = like.new_zeros(self.batch, config.context, config.input_dim)
        self.state: tuple[Tensor, Tensor] | None = None

    def push(self, values: Float[Tensor, "batch frame dim"]) -> Features:
        """Takes frames; returns those whose context is complete (perhaps none)."""
        return self._advance(values)

    def finish(self) -> Features:
        """The last frames, whose context is silence; the stream is then ready for another signal."""
        config = self.encoder.config
        features = self._advance(self.waiting.new_zeros(self.batch, config.context, config.input_dim))
        self._reset()
        return features

    @torch.no_grad()
    def _advance(self, values: Tensor) -> Features:
        encoder = self.encoder
        joined = torch.cat([self.waiting, values], dim=1)
        num_frames = max(0, joined.shape[1] - encoder.receptive_field + 1)
        self.waiting = joined[:, num_frames:]
        if num_frames == 0:
            hidden = joined.new_zeros(self.batch, 0, encoder.dim)
        else:
            dense = encoder.dense_output(joined)
            hidden, self.state = encoder.recurrent.step(dense, self.state)
            hidden = encoder.last(hidden)
        lengths = torch.full((self.batch,), num_frames, device=hidden.device)
        return Features(hidden, lengths, encoder.frame_rate)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A stack of recurrent layers behind a front end; no published model, a baseline that trains fast on a CPU."""

    input_dim: int = 80
    """Width of the features that come in."""
    input_frame_rate: float = 100.0
    """Frames a second that come in."""
    subsampling: str = "stack"
    """Front end: stack (cheapest), conv2d, conv1d or depthwise."""
    factor: int = 4
    """Input frames that become one."""
    channels: int = 0
    """Channels of a 2-D front end; 0: as many as `dim`."""
    kind: RecurrentKind = "gru"
    """Cells: "gru" or "lstm"."""
    dim: int = 256
    """Width of one direction."""
    num_layers: int = 3
    """Recurrent layers."""
    bidirectional: bool = True
    """Also from the end to the start."""
    dropout: float = 0.1
    """Before each recurrent layer."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "factor", "dim", "num_layers"):
            at_least(name, getattr(self, name), 1)
        at_least("channels", self.channels, 0)
        within("dropout", self.dropout, 0, 0.99)
        one_of("subsampling", self.subsampling, list(SUBSAMPLINGS))
        one_of("kind", self.kind, ("gru", "lstm"))


class RecurrentEncoder(nn.Module):
    """Front end, then `num_layers` of dropout, recurrence and layer norm.

    >>> encoder = RecurrentEncoder(RecurrentConfig(dim=16))
    >>> encoder(torch.zeros(1, 100, 80), torch.tensor([100])).values.shape
    torch.Size([1, 25, 32])
    """

    input: Literal["features"] = "features"

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config, self.num_layers, self.local_dim = config, config.num_layers, config.dim
        self.subsampling: Any = build_subsampling(
            config.subsampling, config.input_dim, config.dim, config.factor, config.channels
        )
        self.dropout = Dropout(config.dropout)
        width, layers, norms = config.dim, [], []
        for _ in range(config.num_layers):
            layers.append(Recurrent(config.kind, width, config.dim, config.bidirectional))
            width = layers[-1].dim
            norms.append(nn.LayerNorm(width))
        self.dim = width
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)

    @property
    def blocks(self) -> nn.ModuleList:
        """Recurrence and norm of each layer."""
        pairs = zip(self.layers, self.norms, strict=True)
        return nn.ModuleList(nn.ModuleList(pair) for pair in pairs)

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return self.config.input_frame_rate / self.config.factor

    @property
    def receptive_field(self) -> int:
        """Input frames that the front end sees; the recurrences see the rest."""
        return self.subsampling.receptive_field

    def output_lengths(self, lengths: Count) -> Count:
        """Frames that come out for `lengths` that go in; exact."""
        return self.subsampling.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]) -> Features:
        """The front end: `factor` times fewer frames."""
        hidden, lengths = self.subsampling(values, lengths)
        return Features(hidden, lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The frames as they are."""
        return local

    def context(self, embedded: Features, layers: bool = False) -> Features | list[Features]:
        """The recurrences; `layers=True` returns what enters the first and what comes out of each."""
        lengths = embedded.lengths
        outputs = [zero_padding(embedded.values, lengths)]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            outputs.append(norm(layer(self.dropout(outputs[-1]), lengths)))
        wanted = outputs if layers else outputs[-1:]
        features = [replace(embedded, values=zero_padding(output, lengths)) for output in wanted]
        return features if layers else features[0]

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns the front end's and each layer's output."""
        return self.context(self.embed(self.local(values, lengths)), layers)


def deepspeech(**changes: Any) -> DeepSpeechConfig:
    """The engine's network, from its version 0.6 on."""
    return replace(DeepSpeechConfig(), **changes)


def deepspeech_paper(**changes: Any) -> DeepSpeechConfig:
    """With the paper's bidirectional clipped recurrence."""
    return deepspeech(**{"recurrence": "rnn", **changes})


def bigru(**changes: Any) -> RecurrentConfig:
    """The plain baseline."""
    return replace(RecurrentConfig(), **changes)


def bilstm(**changes: Any) -> RecurrentConfig:
    """The plain baseline with LSTM cells."""
    return bigru(**{"kind": "lstm", **changes})


def build(config: DeepSpeechConfig | RecurrentConfig) -> nn.Module:
    """The module of a configuration, with random weights."""
    return DeepSpeechEncoder(config) if isinstance(config, DeepSpeechConfig) else RecurrentEncoder(config)
