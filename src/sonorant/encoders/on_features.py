"""An encoder of features made an encoder of waveforms: front end, normalisation, encoder, one after another."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.audio.features.cmvn import Cmvn
from sonorant.core.errors import DataError
from sonorant.core.types import Batch, Features

__all__ = ["OnFeatures"]

Count = TypeVar("Count", int, Tensor)


class OnFeatures(nn.Module):
    """Waveform → features → frames.

    Args:
        front_end: `(waveform, lengths) -> Features`, such as `Fbank`; nothing in it learns.
        encoder: of features.

    The features are normalised by mean and variance of the training data, which `fit_normalisation` gathers; they are part
    of the weights.

    >>> from sonorant.audio.features.fbank import Fbank
    >>> from sonorant.encoders.catalogue import build_encoder
    >>> encoder = OnFeatures(Fbank(num_mels=40), build_encoder("conformer_tiny", input_dim=40)).eval()
    >>> encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 23, 64])
    """

    input = "waveform"

    def __init__(self, front_end: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.front_end: Any = front_end
        self.encoder: Any = encoder
        self.normalise = Cmvn(int(front_end.dim))  # type: ignore[arg-type]
        self.dim, self.local_dim = self.encoder.dim, self.encoder.local_dim
        self.num_layers = self.encoder.num_layers

    @property
    def blocks(self) -> nn.ModuleList:
        """The encoder's layers."""
        return self.encoder.blocks  # type: ignore[no-any-return]

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out."""
        return float(self.encoder.frame_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by windows and convolution alone."""
        geometry = self.front_end.geometry
        return int(geometry.receptive_field + (self.encoder.receptive_field - 1) * geometry.stride)

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.encoder.output_lengths(self.front_end.output_lengths(lengths))  # type: ignore[no-any-return]

    def features(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """Normalised features: what reconstruction aims at."""
        # Signal processing stays in float32: log energies do not survive bfloat16.
        with torch.autocast(values.device.type, enabled=False):
            return self.normalise(self.front_end(values.float(), lengths))  # type: ignore[no-any-return]

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """The encoder's own front end over the features."""
        features = self.features(values, lengths)
        own = features.values.to(next(self.encoder.parameters()).dtype)
        return self.encoder.local(own, features.lengths)  # type: ignore[no-any-return]

    def embed(self, local: Features) -> Features:
        """As the encoder's."""
        return self.encoder.embed(local)  # type: ignore[no-any-return]

    def context(self, embedded: Features, *args: Any, **options: Any) -> Any:
        """As the encoder's."""
        return self.encoder.context(embedded, *args, **options)

    def forward(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False) -> Any:
        """Encodes a padded batch; with `layers` as the encoder does."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """The attention of each layer `(batch, head, query, key)`."""
        features = self.features(values, lengths)
        return self.encoder.attention_maps(features.values, features.lengths)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fit_normalisation(self, batches: Iterable[Batch], max_seconds: float = 3600.0) -> None:
        """Gathers mean and variance of the features from up to `max_seconds` of audio.

        Raises:
            DataError: there is none.
        """
        seconds = 0.0
        for batch in batches:
            self.normalise.update(self.front_end(batch.waveform, batch.lengths))
            seconds += batch.seconds
            if seconds >= max_seconds:
                break
        if seconds == 0:
            raise DataError("no audio to gather feature statistics from: the training split is empty")
