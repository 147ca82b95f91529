"""Transformers over patches of log-mel: AST (Gong et al., 2021, arXiv:2104.01778), SSAST (arXiv:2110.09784), masked
autoencoders for audio (Audio-MAE, arXiv:2207.06405; MSM-MAE, arXiv:2204.12260).

Rectangles of bands × frames are projected, get a position and go through layers with the norm first. A column of patches is
a frame: side by side or averaged over frequency. Read `PatchConfig`, then `PatchEncoder`; masked autoencoders are trained by
`objectives.masked_patches`, which sends only the visible patches through `encode_tokens`. Tables of foreign names:
`encoders/keys/patch.py`.

Where we differ: the authors fill or cut items to one size (10.24 s). Here an item has as many columns as it has whole
patches of time, whatever it is batched with.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask, zero_padding
from sonorant.core.types import Features
from sonorant.nn.linear import Linear
from sonorant.nn.norm import BatchNorm
from sonorant.nn.patches import PatchGrid, PatchPositions, column_features, join_rows, token_features
from sonorant.nn.transformer import Between, TransformerLayer, TransformerStack

__all__ = [
    "PatchConfig", "PatchEncoder", "ast_base", "audio_mae_base", "build", "msm_mae_base", "patch_tiny", "ssast_base",
    "ssast_frame_base", "ssast_small", "ssast_tiny",
]  # fmt: skip

Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """A Transformer over patches; the defaults are AST (arXiv:2104.01778, section 2.1)."""

    input_dim: int = 128
    """Bands of the log-mel frames that come in."""
    input_frame_rate: float = 100.0
    """Frames a second that come in (10 ms hop)."""
    patch: tuple[int, int] = (16, 16)
    """Bands and frames of a patch."""
    stride: tuple[int, int] = (10, 10)
    """Bands and frames from one patch to the next (an overlap of 6)."""
    dim: int = 768
    """Width of the layers."""
    num_layers: int = 12
    """Layers."""
    num_heads: int = 12
    """Heads of the attention; must divide `dim`."""
    ffn_dim: int = 3072
    """Inner width of the feed-forwards."""
    num_extra: int = 2
    """Tokens before the patches that stand for the whole item: class, and in AST distillation."""
    position: Literal["learned", "separate", "sinusoid"] = "learned"
    """learned for each place; separate for rows and columns; sinusoid, computed, of both."""
    max_columns: int = 101
    """Columns that learned positions reach (10.24 s); an item of more is refused."""
    cut_long: bool = False
    """Encode items of more than `max_columns` in stretches of so many that do not see each other instead."""
    join: Literal["concat", "mean"] = "concat"
    """How the patches of a column make a frame: side by side, or averaged."""
    input_norm: bool = False
    """Batch normalisation of each band before patches are cut."""
    norm_eps: float = 1e-6
    """Added to the variance in the layers' norms."""
    dropout: float = 0.0
    """Before each residual sum and on what enters the first layer."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    layer_drop: float = 0.0
    """Share of layers left out while training."""

    def __post_init__(self) -> None:
        for name in ("input_dim", "dim", "num_layers", "num_heads", "ffn_dim", "max_columns"):
            at_least(name, getattr(self, name), 1)
        at_least("num_extra", self.num_extra, 0)
        for name in ("dropout", "attention_dropout", "layer_drop"):
            within(name, getattr(self, name), 0, 0.99)
        one_of("position", self.position, ("learned", "separate", "sinusoid"))
        one_of("join", self.join, ("concat", "mean"))
        if self.dim % self.num_heads or (self.position == "sinusoid" and self.dim % 4):
            raise ConfigError(
                f"num_heads must divide dim, and 4 with sinusoids, got num_heads={self.num_heads} and dim={self.dim}"
            )
        if self.cut_long and self.num_extra:
            raise ConfigError("cut_long leaves no token for a whole item; take num_extra=0")


class PatchEncoder(nn.Module):
    """Log-mel frames → one frame a column of patches.

    >>> encoder = PatchEncoder(patch_tiny())
    >>> encoder(torch.zeros(1, 100, 80), torch.tensor([100])).values.shape, encoder.frame_rate
    (torch.Size([1, 6, 320]), 6.25)
    """

    input = "features"

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config, self.num_layers = config, config.num_layers
        self.grid = PatchGrid(config.input_dim, config.patch, config.stride)
        self.local_dim = self.grid.num_rows * self.grid.patch_dim
        self.dim = config.dim * (self.grid.num_rows if config.join == "concat" else 1)
        self.input_norm = BatchNorm(config.input_dim, momentum=0.01) if config.input_norm else None
        self.project = Linear(self.grid.patch_dim, config.dim)
        self.positions = PatchPositions(
            config.position, self.grid.num_rows, config.max_columns, config.dim, config.num_extra
        )
        self.stack = _stack(config)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.eps = config.norm_eps
        self.extra = nn.Parameter(0.02 * torch.randn(config.num_extra, config.dim)) if config.num_extra else None

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers."""
        return self.stack.blocks

    @property
    def frame_rate(self) -> float:
        """Columns of patches a second."""
        return self.config.input_frame_rate / self.config.stride[1]

    @property
    def receptive_field(self) -> int:
        """Input frames of a patch; attention sees the whole item."""
        return self.config.patch[1]

    def output_lengths(self, lengths: Count) -> Count:
        """Columns that come out; an incomplete last patch is left out."""
        return self.grid.output_lengths(lengths)

    def local(self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]) -> Features:
        """The patches as they are: of each column side by side, each of them band by band."""
        if self.input_norm is not None:
            values = self.input_norm(zero_padding(values, lengths), lengths)
        return Features(*self.grid.cut(values, lengths), self.frame_rate)

    def embed(self, local: Features) -> Features:
        """The patches projected, those of a column side by side `(batch, column, row · config.dim)`."""
        patches = local.values.unflatten(-1, (self.grid.num_rows, -1))
        values = zero_padding(self.project(patches).flatten(2), local.lengths)
        return Features(values, local.lengths, local.frame_rate)

    def context(
        self, embedded: Features, layers: bool = False, between: Between | None = None
    ) -> Features | list[Features]:
        """Positions and the layers.

        Args:
            embedded: of `embed`.
            layers: what enters the first layer and what comes out of each, as frames.
            between: as in `TransformerStack`; is given and gives columns of patches side by side, whatever `join` is.
        """
        apart = self._stretches(embedded)

        def hook(index: int, tokens: Features) -> Features:
            extra = tokens.values[:, : self.config.num_extra]
            whole = self._whole(self._columns(tokens), embedded)
            changed = self._stretches(cast(Between, between)(index, whole))
            return self._preceded(_tokens(changed, self.grid.num_rows), extra)

        outputs = self.stack(
            self._preceded(self.tokens(apart), self._extra(apart)), layers, None if between is None else hook
        )
        if isinstance(outputs, list):
            return [self._frames(output, embedded) for output in outputs]
        return self._frames(outputs, embedded)

    def forward(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"], layers: bool = False
    ) -> Features | list[Features]:
        """Encodes a padded batch; with `layers` what enters the first layer and what comes out of each."""
        return self.context(self.embed(self.local(values, lengths)), layers)

    def attention_maps(
        self, values: Float[Tensor, "batch frame dim"], lengths: Int[Tensor, " batch"]
    ) -> list[Float[Tensor, "stretch head query key"]]:
        """The attention's weights between tokens, one tensor a layer; one row a stretch where items are cut."""
        apart = self._stretches(self.embed(self.local(values, lengths)))
        return self.stack.attention_maps(self._preceded(self.tokens(apart), self._extra(apart)))

    def pooled(
        self, values: Float[Tensor, "batch frame band"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """One vector of `config.dim` an item: the mean of its extra tokens, of its patches where it has none."""
        embedded = self.embed(self.local(values, lengths))
        if self.extra is not None:
            tokens = self._preceded(self.tokens(embedded), self._extra(embedded))
            return cast(Features, self.stack(tokens)).values[:, : self.config.num_extra].mean(dim=1)
        frames = cast(Features, self.context(embedded))
        patches = frames.values.unflatten(-1, (-1, self.config.dim)).mean(dim=2)
        return patches.sum(dim=1) / frames.lengths.clamp(min=1)[:, None]

    # --- tokens, for objectives over patches ------------------------------------------------------------------------------

    def tokens(self, embedded: Features) -> Features:
        """The projected patches with their positions, as tokens column by column."""
        patches = embedded.values.unflatten(-1, (self.grid.num_rows, -1))
        placed = self.positions(patches, embedded.lengths)
        return token_features(placed, embedded.lengths, embedded.frame_rate)

    def encode_tokens(self, tokens: Features) -> Features:
        """Some tokens, in any number and order, through the layers; the extra tokens go with them and are taken off again."""
        through = cast(Features, self.stack(self._preceded(tokens, self._extra(tokens))))
        return self._following(through)

    def _extra(self, like: Features) -> Tensor | None:
        if self.extra is None:
            return None
        extra = self.positions.of_extra(self.extra)
        return extra.to(like.values.dtype).expand(like.values.shape[0], -1, -1)

    def _preceded(self, tokens: Features, extra: Tensor | None) -> Features:
        if extra is None or not self.config.num_extra:
            return tokens
        values = torch.cat([extra, tokens.values], dim=1)
        return Features(values, tokens.lengths + self.config.num_extra, tokens.frame_rate)

    def _following(self, tokens: Features) -> Features:
        """Without the extra tokens, zeros in the padding."""
        count = self.config.num_extra
        return Features(tokens.values[:, count:], tokens.lengths - count, tokens.frame_rate)

    def _columns(self, tokens: Features) -> Features:
        return column_features(self._following(tokens), self.grid.num_rows)

    def _frames(self, tokens: Features, embedded: Features) -> Features:
        return join_rows(self._whole(self._columns(tokens), embedded), self.grid.num_rows, self.config.join)

    # --- items that are too long --------------------------------------------------------------------------------------------

    def _stretches(self, columns: Features) -> Features:
        """Each item as stretches of `max_columns`, one row each, in order; an empty row for what an item lacks."""
        limit, num_columns = self.config.max_columns, columns.values.shape[1]
        # A graph that is exported has to serve longer items too, so it always cuts.
        if not self.config.cut_long or (num_columns <= limit and not torch.compiler.is_compiling()):
            return columns
        count = (num_columns + limit - 1) // limit
        padded = nn.functional.pad(columns.values, (0, 0, 0, limit))[:, : count * limit]
        starts = torch.arange(count, device=columns.lengths.device) * limit
        lengths = (columns.lengths[:, None] - starts).clamp(0, limit).flatten()
        values = padded.unflatten(1, (count, limit)).flatten(0, 1)
        return Features(values, lengths, columns.frame_rate)

    def _whole(self, columns: Features, like: Features) -> Features:
        """Undoes `_stretches`."""
        batch, num_columns = like.values.shape[:2]
        if not self.config.cut_long:
            return columns
        size = columns.values.shape[1]
        count = (num_columns + size - 1) // size  # told, for a batch of no items does not tell it
        values = columns.values.reshape(batch, count * size, columns.values.shape[2])[:, :num_columns]
        return Features(values, like.lengths, columns.frame_rate)


def _tokens(columns: Features, num_rows: int) -> Features:
    values = columns.values.unflatten(-1, (num_rows, -1))
    valid = valid_mask(columns.lengths, values.shape[1])[..., None, None]
    return token_features(torch.where(valid, values, 0), columns.lengths, columns.frame_rate)


def _stack(config: PatchConfig) -> TransformerStack:
    sizes = (config.dim, config.num_heads, config.ffn_dim, config.dropout)
    blocks = [
        TransformerLayer(*sizes, attention_dropout=config.attention_dropout, inner_dropout=config.dropout)
        for _ in range(config.num_layers)
    ]
    return TransformerStack(blocks, config.dim, norm_first=True, dropout=config.dropout, layer_drop=config.layer_drop)


def build(config: PatchConfig) -> PatchEncoder:
    """The module of a configuration, with random weights."""
    return PatchEncoder(config)


# --- sizes --------------------------------------------------------------------------------------------------------------


def ast_base(**changes: Any) -> PatchConfig:
    """87 M parameters, 10.24 s, patches that overlap (arXiv:2104.01778, section 2.1)."""
    return replace(PatchConfig(), **changes)


def ssast_base(**changes: Any) -> PatchConfig:
    """Pre-training by masked patches: no overlap, so that none gives another away (arXiv:2110.09784, section 2.1)."""
    return ast_base(**{"stride": (16, 16), "max_columns": 64, **changes})


def ssast_small(**changes: Any) -> PatchConfig:
    """23 M parameters (arXiv:2110.09784, section 2.1)."""
    return ssast_base(**{"dim": 384, "num_heads": 6, "ffn_dim": 1536, **changes})


def ssast_tiny(**changes: Any) -> PatchConfig:
    """6 M parameters (arXiv:2110.09784, section 2.1)."""
    return ssast_base(**{"dim": 192, "num_heads": 3, "ffn_dim": 768, **changes})


def ssast_frame_base(**changes: Any) -> PatchConfig:
    """Patches of all bands and two frames, better for speech (arXiv:2110.09784, section 3.3)."""
    return ssast_base(**{"patch": (128, 2), "stride": (128, 2), "max_columns": 512, **changes})


def audio_mae_base(**changes: Any) -> PatchConfig:
    """ViT-B: 86 M parameters, a class token, positions that are computed (arXiv:2207.06405, section 4.2)."""
    shape: dict[str, Any] = {"stride": (16, 16), "num_extra": 1, "position": "sinusoid"}
    return ast_base(**{**shape, **changes})


def msm_mae_base(**changes: Any) -> PatchConfig:
    """The same on 80 bands; the patches of a column side by side are its feature (arXiv:2204.12260, section 3.2)."""
    return audio_mae_base(**{"input_dim": 80, **changes})


def patch_tiny(**changes: Any) -> PatchConfig:
    """Two narrow layers on 80 bands, for tests and demonstrations; no published size."""
    size: dict[str, Any] = {"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128}
    return msm_mae_base(**{**size, **changes})
