"""NPC: convolutions over log-mel, read out by convolutions that do not see the frame in question (arXiv:2011.00406).

The last layer is what pre-training predicts frames from, blind to a few input frames in the middle; the layer before it
is the last convolution block, which sees them and makes the better features (the authors' later finding). Nothing
recurs, so the cost a second of audio is constant.

Where we differ: blocks are normed by LayerNorm, not BatchNorm, so that an item comes out the same in any batch while
training too (`norm="batch"` is the authors', over valid frames). Norms over an item's frames are refused: they would
carry the frame in question round the mask.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.dropout import Dropout
from sonorant.nn.linear import Linear
from sonorant.nn.masked_convolution import MaskedAggregate
from sonorant.nn.norm import build_norm
from sonorant.nn.transformer import Between

__all__ = ["Npc", "NpcBlock", "NpcConfig", "build", "npc", "npc_tiny"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class NpcConfig:
    """An NPC network; the defaults are the paper's (section 3.1)."""

    input_dim: int = 80
    """Width of the features that come in (log-mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in, and out (10 ms hop)."""
    dim: int = 512
    """Width of all layers."""
    num_blocks: int = 4
    """Convolution blocks; the masked read-out is one layer more."""
    kernel_size: int = 15
    """Frames that the masked convolutions reach over, odd; an output sees `kernel_size + 2 · num_blocks` frames."""
    mask_size: int = 5
    """Input frames in the middle that the last layer does not see, odd."""
    residual: bool = True
    """Each block from the second on adds its input."""
    norm: str = "layer"
    """layer, rms, or batch (the authors')."""
    dropout: float = 0.1
    """In the blocks."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "num_blocks"):
            at_least(name, getattr(self, name), 1)
        one_of("norm", self.norm, ("layer", "rms", "batch"))
        within("dropout", self.dropout, 0, 0.99)


class NpcBlock(nn.Module):
    """Convolution over 3 frames, norm, ReLU, a linear layer, norm, dropout, the input added, ReLU (figure 1)."""

    def __init__(self, input_dim: int, dim: int, residual: bool, norm: str, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(input_dim, dim, 3, padding=1)
        self.linear = Linear(dim, dim)
        self.norms = nn.ModuleList(build_norm(norm, dim) for _ in range(2))
        self.dropout, self.residual = Dropout(dropout), residual

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        hidden = self.conv(zero_padding(values, lengths).transpose(1, 2)).transpose(1, 2)
        hidden = torch.relu(self.norms[0](hidden, lengths))
        hidden = self.dropout(self.norms[1](self.linear(hidden), lengths))
        return torch.relu(hidden + values if self.residual else hidden)


class Npc(nn.Module):
    """Log-mel frames to as many frames of `config.dim`; the last layer does not see the frame it stands for.

    >>> encoder = Npc(npc_tiny())
    >>> outputs = encoder(torch.zeros(1, 50, 80), torch.tensor([50]), layers=True)
    >>> len(outputs), outputs[-1].values.shape
    (4, torch.Size([1, 50, 64]))
    """

    input = "features"

    def __init__(self, config: NpcConfig) -> None:
        super().__init__()
        self.config, self.dim, self.local_dim = config, config.dim, config.input_dim
        self.num_layers = config.num_blocks + 1
        widths = [config.input_dim] + [config.dim] * (config.num_blocks - 1)
        blocks: list[nn.Module] = [
            NpcBlock(width, config.dim, config.residual and index > 0, config.norm, config.dropout)
            for index, width in enumerate(widths)
        ]
        aggregate = MaskedAggregate(config.dim, config.num_blocks, config.kernel_size, config.mask_size)
        self.blocks = nn.ModuleList([*blocks, aggregate])

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out: as many as come in."""
        return self.config.input_frame_rate

    @property
    def receptive_field(self) -> int:
        """Frames from the first to the last that one output sees."""
        return self.config.kernel_size + 2 * self.config.num_blocks

    def output_lengths(self, lengths: Count) -> Count:
        """As many frames as come in."""
        return lengths

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """The features themselves, zero in the padding."""
        return Features(zero_padding(values, lengths), lengths, self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The features themselves."""
        return local

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """The blocks, and the masked read-out of all of them as the last layer."""
        lengths = embedded.lengths
        entering, outputs = embedded, [embedded]
        for index, block in enumerate(self.blocks, start=1):
            if between is not None:
                entering = between(index - 1, entering)
            if isinstance(block, MaskedAggregate):
                values = block([output.values for output in outputs[1:]], lengths)
            else:
                values = block(entering.values, lengths)
            entering = Features(zero_padding(values, lengths), lengths, self.frame_rate)
            outputs.append(entering)
        return outputs if layers else outputs[-1]

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns what goes in, what comes out of each block, and the read-out."""
        return self.context(self.embed(self.local(values, lengths)), layers)


def npc(**changes: Any) -> NpcConfig:
    """Four blocks of 512, a mask of five frames."""
    return replace(NpcConfig(), **changes)


def npc_tiny(**changes: Any) -> NpcConfig:
    """Two small blocks, for tests and demonstrations; no published size."""
    return npc(**{"dim": 64, "num_blocks": 2, "dropout": 0.0, **changes})


def build(config: NpcConfig) -> Npc:
    """The module of a configuration, with random weights."""
    return Npc(config)
