"""Waveforms → codes that rest → an encoder of units: what BERT over discrete speech is when it is fine-tuned or probed.

The front is a trained encoder and the quantiser stands behind one of its layers; neither learns any more. `tokenise` gives
the codes; the rest is `encoders.on_units.OnUnits`.
"""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.types import Codes, Features
from sonorant.encoders.checkpoint import describe_config, described_module
from sonorant.encoders.on_units import OnUnits
from sonorant.nn.quantize.catalogue import build_quantizer
from sonorant.nn.transformer import Between

__all__ = ["Tokenised", "TokenisedConfig", "build", "tokenised"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class TokenisedConfig:
    """What makes the codes, and what takes them."""

    front: dict[str, Any] = field(default_factory=dict)
    """The encoder whose frames are quantised, as `describe_config` tells it."""
    layer: int | None = None
    """Its layer: 0 is what enters the first block (vq-wav2vec), null what it gives out."""
    quantizer: str = "vq"
    """Of `nn.quantize.catalogue`."""
    quantizer_options: dict[str, Any] = field(default_factory=dict)
    """Its options, `dim` among them."""
    encoder: dict[str, Any] = field(default_factory=dict)
    """The encoder of features that takes the codes' embeddings, as `describe_config` tells it."""

    def __post_init__(self) -> None:
        if self.layer is not None:
            at_least("layer", self.layer, 0)


def tokenised(
    front: Any, quantizer: str, options: dict[str, Any], encoder: Any, layer: int | None = None
) -> TokenisedConfig:
    """The configuration of an encoder on codes.

    Args:
        front: the trained encoder that makes the frames.
        quantizer: name in `nn.quantize.catalogue`.
        options: of the quantiser, `dim` among them.
        encoder: configuration of an encoder of features that keeps every frame; its frame rate is fitted.
        layer: see `TokenisedConfig`.
    """
    fitted = replace(encoder, input_frame_rate=float(front.frame_rate))
    told = {"front": describe_config(front.config), "encoder": describe_config(fitted)}
    return TokenisedConfig(**told, layer=layer, quantizer=quantizer, quantizer_options=options)


class Tokenised(nn.Module):
    """See the module's docstring.

    >>> from sonorant.encoders.spectral import SpectralFront, mfcc_front
    >>> from sonorant.encoders.tera import tera_tiny
    >>> config = tokenised(SpectralFront(mfcc_front(50)), "vq", {"dim": 39, "codebook_size": 8}, tera_tiny())
    >>> encoder = Tokenised(config)
    >>> encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape
    torch.Size([1, 49, 64])
    """

    input: Literal["waveform"] = "waveform"

    def __init__(self, config: TokenisedConfig) -> None:
        super().__init__()
        self.config = config
        self.front: Any = described_module(config.front)
        self.quantizer = build_quantizer(config.quantizer, **config.quantizer_options)
        self.on_units = OnUnits(self.quantizer.codebook_sizes, described_module(config.encoder))
        self.dim, self.local_dim = self.on_units.dim, self.on_units.local_dim
        self.num_layers = self.on_units.num_layers
        for part in (self.front, self.quantizer):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "Tokenised":
        """As every module, but what makes the codes always stands as in evaluation."""
        super().train(mode)
        self.front.eval()
        self.quantizer.eval()
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers over the codes."""
        return self.on_units.blocks

    @property
    def num_units(self) -> int:
        """Different codes that a frame may bear: the product over the codebooks."""
        return prod(self.quantizer.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Frames a second: one for each code."""
        return float(self.front.frame_rate)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees by convolution alone."""
        samples = 1 << 20
        hop = round(samples / (self.front.output_lengths(2 * samples) - self.front.output_lengths(samples)))
        return int(self.front.receptive_field + (self.on_units.receptive_field - 1) * hop)

    def output_lengths(self, lengths: Count) -> Count:
        """Frames for samples; exact."""
        return self.front.output_lengths(lengths)  # type: ignore[no-any-return]

    @torch.no_grad()
    def tokenise(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Codes:
        """The codes of a padded batch."""
        # A code is all or nothing: half precision would make others.
        with torch.autocast(values.device.type, enabled=False):
            if self.config.layer is None:
                frames = self.front(values, lengths)
            else:
                frames = self.front(values, lengths, layers=True)[self.config.layer]
            return self.quantizer.encode(frames)

    def local(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Features:
        """The codes' embeddings."""
        codes = self.tokenise(values, lengths)
        return self.on_units.local(codes.ids, codes.lengths)

    def embed(self, local: Features) -> Features:
        """What the blocks take."""
        return self.on_units.embed(local)

    def context(self, embedded: Features, layers: bool = False, between: Between | None = None) -> Any:
        """The blocks."""
        return self.on_units.context(embedded, layers, between)

    def forward(self, values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], layers: bool = False) -> Any:
        """Frames of a padded batch, or those of every layer."""
        return self.context(self.embed(self.local(values, lengths)), layers)


def build(config: TokenisedConfig) -> Tokenised:
    """The module of a configuration, with random weights."""
    return Tokenised(config)
