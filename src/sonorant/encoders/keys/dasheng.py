"""Dasheng's own checkpoints (entry "model") ↔ our `PatchEncoder`."""

from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import ConfigError
from sonorant.encoders.convert import Change, Converted, KeyTable, check_fixed
from sonorant.encoders.dasheng import dasheng_base
from sonorant.encoders.keys.patch import VIT_LAYERS
from sonorant.encoders.patch import PatchConfig
from sonorant.encoders.pickled import plain
from sonorant.encoders.spectral import FrontConfig, dasheng_front

__all__ = ["dasheng_table", "front", "read", "read_dasheng"]

COLUMNS = Change(lambda tensor: tensor[0, :, 0].mT, lambda tensor: tensor.mT[None, :, None])
"""(1, dim, 1, column) there, (column, dim) here."""
ROWS = Change(lambda tensor: tensor[0, :, :, 0].mT, lambda tensor: tensor.mT[None, ..., None])
"""(1, dim, row, 1) there, (row, dim) here."""


def dasheng_table(config: PatchConfig) -> KeyTable:
    """Rows for a configuration; what their front end stores is computed in `DashengMel`."""
    height, width = config.patch
    kernel = Change(lambda weight: weight.flatten(1), lambda weight: weight.unflatten(1, (1, height, width)))
    return KeyTable(
        [
            ("init_bn.1.{}", "input_norm.{}"),
            ("patch_embed.proj.weight", "project.weight", kernel),
            ("patch_embed.proj.bias", "project.bias"),
            ("time_pos_embed", "positions.columns", COLUMNS),
            ("freq_pos_embed", "positions.rows", ROWS),
            *VIT_LAYERS,
        ],
        dropped={"front_end.*": "windows and mel bands, which are computed"},
    )


def read_dasheng(values: Mapping[str, Any]) -> PatchConfig:
    """The entry "config" of their checkpoints → ours; fields it leaves out have the defaults of their code.

    Raises:
        ConfigError: a variant that we do not have.
    """
    check_fixed(values, {"pooling": "mean", "qkv_bias": True, "init_values": None}, "Dasheng")
    patch, stride = (tuple(values.get(name, (64, 4))) for name in ("patch_size", "patch_stride"))
    if patch != stride:
        raise ConfigError(f"a Dasheng with patches that overlap is not known here, got {patch} and {stride}")
    dim = values.get("embed_dim", 768)
    return dasheng_base(
        input_dim=values.get("n_mels", 64),
        patch=patch,
        stride=stride,
        dim=dim,
        num_layers=values.get("depth", 12),
        num_heads=values.get("num_heads", 8),
        ffn_dim=round(dim * values.get("mlp_ratio", 4)),
        max_columns=values.get("target_length", 1008) // stride[1],
    )


def read(content: Any, where: str) -> tuple[PatchConfig, Converted] | None:
    """Configuration and weights of a file's content; None if it is no Dasheng.

    Raises:
        CheckpointError: a key that no row knows.
        ConfigError: a variant that we do not have.
    """
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or "time_pos_embed" not in weights:
        return None
    config = read_dasheng(plain(content.get("config") or {}))
    return config, dasheng_table(config).to_ours(weights, where)


def front(config: PatchConfig) -> FrontConfig:
    """The frames that it was trained on."""
    return dasheng_front()
