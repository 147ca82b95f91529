"""An encoder of discrete units: embedding tables in front of an encoder of features, as BERT over vq-wav2vec's codes."""

from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.transformer import Between

__all__ = ["OnUnits"]

Count = TypeVar("Count", int, Tensor)


class OnUnits(nn.Module):
    """Units → embeddings → frames.

    Args:
        num_units: of each stream; the embeddings of a frame's streams are added.
        encoder: of features, that keeps every frame (TERA; a Conformer with stacks of one); the embeddings are its input.

    >>> from sonorant.encoders.catalogue import build_encoder
    >>> encoder = OnUnits((50,), build_encoder("tera_tiny"))
    >>> encoder(torch.zeros(1, 20, dtype=torch.long), torch.tensor([20])).values.shape
    torch.Size([1, 20, 64])
    """

    input = "units"

    def __init__(self, num_units: tuple[int, ...], encoder: nn.Module) -> None:
        super().__init__()
        if not num_units:
            raise ConfigError("num_units must name the units of at least one stream")
        for count in num_units:
            at_least("num_units", count, 2)
        self.num_units = num_units
        inner: Any = encoder
        self.encoder: Any = inner
        if inner.input != "features" or inner.output_lengths(100) != 100:
            raise ConfigError(f"units need an encoder of features that keeps every frame, not {type(encoder).__name__}")
        self.dim, self.local_dim, self.num_layers = int(inner.dim), int(inner.local_dim), int(inner.num_layers)
        self.embeddings = nn.ModuleList(nn.Embedding(count, int(inner.config.input_dim)) for count in num_units)

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's layers."""
        return self.encoder.blocks  # type: ignore[no-any-return]

    @property
    def frame_rate(self) -> float:
        """Frames a second: as many as there are units."""
        return float(self.encoder.frame_rate)

    @property
    def receptive_field(self) -> int:
        """Units that a frame sees by convolution alone."""
        return int(self.encoder.receptive_field)

    def output_lengths(self, lengths: Count) -> Count:
        """As many as come in."""
        return lengths

    def local(
        self,
        values: Int[Tensor, "batch frame"] | Int[Tensor, "batch stream frame"],
        lengths: Int[Tensor, " batch"],
    ) -> Features:
        """The embeddings, through the encoder's front end; what stands in the padding does not matter."""
        streams = values[:, None] if values.dim() == 2 else values
        if streams.shape[1] != len(self.num_units):
            raise ConfigError(f"this encoder takes {len(self.num_units)} streams of units, got {streams.shape[1]}")
        streams = zero_padding(streams.transpose(1, 2), lengths)  # (batch, frame, stream)
        frames = torch.stack([table(ids) for table, ids in zip(self.embeddings, streams.unbind(2), strict=True)]).sum(0)
        return self.encoder.local(zero_padding(frames, lengths), lengths)  # type: ignore[no-any-return]

    def embed(self, local: Features) -> Features:
        """As the encoder's."""
        return self.encoder.embed(local)  # type: ignore[no-any-return]

    def context(self, embedded: Features, layers: bool = False, between: Between | None = None) -> Any:
        """As the encoder's."""
        return self.encoder.context(embedded, layers, between)

    def forward(self, values: Tensor, lengths: Int[Tensor, " batch"], layers: bool = False) -> Any:
        """Frames of padded units; with `layers` of every layer."""
        return self.context(self.embed(self.local(values, lengths)), layers)
