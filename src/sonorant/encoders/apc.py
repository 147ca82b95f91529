"""APC: a recurrent network over log-mel that is trained to say the frame some steps ahead (arXiv:1904.03240).

VQ-APC (arXiv:2005.08392) is the same network with a quantiser after one of its layers, which only its training knows
(`objectives.reconstruction.VqApc`), so both have one encoder.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.stack import BlockStream, run_blocks
from sonorant.nn.dropout import Dropout
from sonorant.nn.recurrent import Recurrent, RecurrentKind
from sonorant.nn.transformer import Between

__all__ = ["Apc", "ApcConfig", "apc", "apc_tiny", "build"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class ApcConfig:
    """An APC network; the defaults are those of section 4.1 of arXiv:2005.08392."""

    input_dim: int = 80
    """Width of the features that come in (log-mel bands)."""
    input_frame_rate: float = 100.0
    """Frames a second that come in, and out (10 ms hop)."""
    dim: int = 512
    """Width of the recurrent layers."""
    num_layers: int = 3
    """Recurrent layers."""
    kind: RecurrentKind = "gru"
    """Cells: gru or lstm."""
    residual: bool = True
    """Each layer from the second on adds its input to its output."""
    dropout: float = 0.0
    """After each layer."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "num_layers"):
            at_least(name, getattr(self, name), 1)
        one_of("kind", self.kind, ("gru", "lstm"))
        within("dropout", self.dropout, 0, 0.99)


class _Layer(nn.Module):
    """A recurrence that looks back only, dropout, and the input added."""

    def __init__(self, config: ApcConfig, input_dim: int, residual: bool) -> None:
        super().__init__()
        self.recurrent = Recurrent(config.kind, input_dim, config.dim, bidirectional=False)
        self.dropout, self.residual = Dropout(config.dropout), residual

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        outputs = self.dropout(self.recurrent(values, lengths))
        return outputs + values if self.residual else outputs

    def step(self, values: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        outputs, state = self.recurrent.step(values, state)
        return (outputs + values if self.residual else outputs), state


class Apc(nn.Module):
    """Log-mel frames to as many frames of `config.dim`, from the past alone.

    >>> import torch
    >>> Apc(apc_tiny())(torch.zeros(1, 50, 80), torch.tensor([50])).values.shape
    torch.Size([1, 50, 64])
    """

    input = "features"
    receptive_field = 1

    def __init__(self, config: ApcConfig) -> None:
        super().__init__()
        self.config, self.dim, self.local_dim, self.num_layers = config, config.dim, config.input_dim, config.num_layers
        widths = [config.input_dim] + [config.dim] * (config.num_layers - 1)
        self.blocks = nn.ModuleList(
            _Layer(config, width, config.residual and index > 0) for index, width in enumerate(widths)
        )

    @property
    def frame_rate(self) -> float:
        """Frames a second that come out: as many as come in."""
        return self.config.input_frame_rate

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
        """The recurrent layers; see `run_blocks`."""
        return run_blocks(embedded, self.blocks, layers, between)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; `layers=True` returns what goes in and what comes out of each layer."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def stream(self, batch: int = 1) -> BlockStream:
        """A stream over `batch` signals that grow together."""
        return BlockStream(self, batch)


def apc(**changes: Any) -> ApcConfig:
    """Three GRU layers of 512."""
    return replace(ApcConfig(), **changes)


def apc_tiny(**changes: Any) -> ApcConfig:
    """Two small layers, for tests and demonstrations; no published size."""
    return apc(**{"dim": 64, "num_layers": 2, **changes})


def build(config: ApcConfig) -> Apc:
    """The module of a configuration, with random weights."""
    return Apc(config)
