"""BEATs (Chen et al., 2022, arXiv:2212.09058): a Transformer over patches of 16 bands × 16 frames.

Patches are projected twice, their order is told by a convolution and by WavLM's gated bias of distances, both over the
tokens column by column; the layers norm behind each part, with DeepNorm's scaled residuals (arXiv:2203.00555). All three
iterations of the paper have this one shape. The input is Kaldi's log-mel of 128 bands, less 15.41663, divided by 13.11164
(`encoders.spectral.beats_front`). The authors' checkpoints are read by `encoders/keys/beats.py`.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.nn.gated_attention import BucketBias, GatedAttention
from sonorant.nn.linear import Linear
from sonorant.nn.patches import PatchGrid, column_features, join_rows, token_features
from sonorant.nn.position import ConvolutionalPosition
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = ["Beats", "BeatsConfig", "beats_base", "beats_tiny", "build"]

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class BeatsConfig:
    """BEATs; the defaults are its one published size (section 4.2), as in the checkpoint of the third iteration."""

    input_dim: int = 128
    """Bands of the log-mel frames that come in."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    patch: tuple[int, int] = (16, 16)
    """Bands and frames of a patch; patches do not overlap."""
    patch_dim: int = 512
    """Width of a patch before it is normed and projected."""
    dim: int = 768
    """Width of the layers."""
    num_layers: int = 12
    """Layers."""
    num_heads: int = 12
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forwards."""
    deep_norm: bool = True
    """Scale what goes past each part by (2 · num_layers)^¼ and begin with smaller weights."""
    num_buckets: int = 320
    """Buckets of distances."""
    max_distance: int = 800
    """Tokens from which on all distances share a bucket."""
    position_kernel: int = 128
    """Tokens that the convolution of positions sees."""
    position_groups: int = 16
    """Groups of its channels."""
    join: Literal["concat", "mean"] = "concat"
    """How the patches of a column make a frame: side by side, or averaged."""
    dropout: float = 0.1
    """Before each residual sum and on what enters the first layer."""
    attention_dropout: float = 0.1
    """On the attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forwards."""
    layer_drop: float = 0.05
    """Share of layers left out while training."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "patch_dim", "dim", "num_layers", "num_heads", "ffn_dim", "position_kernel"):
            at_least(name, getattr(self, name), 1)
        for name in ("dropout", "attention_dropout", "inner_dropout", "layer_drop"):
            within(name, getattr(self, name), 0, 0.99)
        one_of("join", self.join, ("concat", "mean"))
        if self.dim % self.num_heads:
            raise ConfigError(f"num_heads must divide dim, got num_heads={self.num_heads} and dim={self.dim}")


class Beats(nn.Module):
    """Log-mel frames → one frame a column of patches, 6.25 a second.

    >>> import torch
    >>> encoder = Beats(beats_tiny()).eval()
    >>> encoder(torch.zeros(1, 100, 128), torch.tensor([100])).values.shape
    torch.Size([1, 6, 512])
    """

    input = "features"

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config, self.num_layers = config, config.num_layers
        self.grid = PatchGrid(config.input_dim, config.patch, config.patch)
        self.local_dim = self.grid.num_rows * self.grid.patch_dim
        self.dim = config.dim * (self.grid.num_rows if config.join == "concat" else 1)
        self.patches = Linear(self.grid.patch_dim, config.patch_dim, bias=False)
        self.local_norm = nn.LayerNorm(config.patch_dim)
        self.project = Linear(config.patch_dim, config.dim)
        self.stack = _stack(config)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.deep_norm:
            _begin_deep(self.stack.blocks)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Columns of patches a second."""
        return self.config.input_frame_rate / self.config.patch[1]

    @property
    def receptive_field(self) -> int:
        """Input frames of a patch; positions and attention see the rest."""
        return self.config.patch[1]

    def output_lengths(self, lengths: Count) -> Count:
        """Columns that come out; an incomplete last patch is left out."""
        return self.grid.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """The patches as they are: of each column side by side, each of them band by band."""
        return Features(*self.grid.cut(values, lengths), self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The patches projected, normed and projected again; those of a column side by side."""
        patches = self.patches(local.values.unflatten(-1, (self.grid.num_rows, -1)))
        values = self.project(self.local_norm(patches)).flatten(2)
        return Features(zero_padding(values, local.lengths), local.lengths, local.frame_rate)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """Positions and the layers.

        Args:
            embedded: of `embed`.
            layers: what enters the first layer and what comes out of each, as frames.
            between: as in `TransformerStack`; is given and gives columns of patches side by side, whatever `join` is.
        """
        rows, hook = self.grid.num_rows, None
        if between is not None:

            def hook(index: int, tokens: Features) -> Features:
                return self._tokens(between(index, column_features(tokens, rows)))

        outputs = self.stack(self._tokens(embedded), layers, hook)
        if isinstance(outputs, list):
            return [join_rows(column_features(output, rows), rows, self.config.join) for output in outputs]
        return join_rows(column_features(outputs, rows), rows, self.config.join)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "batch head query key"]]:
        """The attention's weights between tokens, one tensor a layer."""
        return self.stack.attention_maps(self._tokens(self.embed(self.local(values, lengths))))

    def _tokens(self, columns: Features) -> Features:
        patches = columns.values.unflatten(-1, (self.grid.num_rows, -1))
        return token_features(patches, columns.lengths, columns.frame_rate)


def _stack(config: BeatsConfig) -> TransformerStack:
    blocks = [
        TransformerLayer(
            config.dim,
            config.num_heads,
            config.ffn_dim,
            config.dropout,
            norm_first=False,
            inner_dropout=config.inner_dropout,
            attention=GatedAttention(config.dim, config.num_heads, config.attention_dropout, gate_from="query"),
            residual_scale=(2 * config.num_layers) ** 0.25 if config.deep_norm else 1.0,
        )
        for _ in range(config.num_layers)
    ]
    return TransformerStack(
        blocks,
        config.dim,
        norm_first=False,
        position=ConvolutionalPosition(config.dim, config.position_kernel, config.position_groups),
        table=BucketBias(config.num_heads, config.num_buckets, config.max_distance),
        dropout=config.dropout,
        layer_drop=config.layer_drop,
    )


def _begin_deep(blocks: nn.ModuleList) -> None:
    """DeepNorm's beginning (arXiv:2203.00555, figure 2): values, outputs and feed-forwards smaller by (8 · layers)^¼."""
    small = (8 * len(blocks)) ** -0.25
    for block in blocks:
        attention: Any = block.attention
        for part, gain in zip(attention.query_key_value.weight.chunk(3), (1.0, 1.0, small), strict=True):
            nn.init.xavier_normal_(part, gain)
        ffn: Any = block.ffn
        for linear in (attention.output, ffn[0], ffn[3]):
            nn.init.xavier_normal_(linear.weight, small)


def build(config: BeatsConfig) -> Beats:
    """The module of a configuration, with random weights."""
    return Beats(config)


def beats_base(**changes: Any) -> BeatsConfig:
    """90 M parameters (section 4.2)."""
    return replace(BeatsConfig(), **changes)


def beats_tiny(**changes: Any) -> BeatsConfig:
    """Two narrow layers, for tests and demonstrations; no published size."""
    size: dict[str, Any] = {"patch_dim": 32, "dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128}
    place: dict[str, Any] = {"position_kernel": 16, "position_groups": 4, "num_buckets": 32, "max_distance": 80}
    still: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0}
    return beats_base(**{**size, **place, **still, **changes})
