"""AST in transformers, and Audio-MAE's own checkpoints ↔ our `PatchEncoder`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.convert import Change, Converted, Foreign, KeyTable, check_fixed
from sonorant.encoders.patch import PatchConfig, ast_base, audio_mae_base
from sonorant.encoders.spectral import FrontConfig, ast_front
from sonorant.nn.patches import patch_sinusoids

__all__ = ["AST", "ast_table", "audio_mae_table", "check_mae_positions", "front", "read", "read_ast", "write_ast"]

TOKEN = Change(lambda tensor: tensor.flatten(0, 1), lambda tensor: tensor[None])
"""(1, token, dim) there, (token, dim) here."""

_LAYER, _OURS = "layers.{}.", "stack.blocks.{}."
_OLD = "encoder.layer.{}."
_AST_LAYERS: list[tuple[str, str]] = [
    (_LAYER + "attention.q_proj.{}", _OURS + "attention.query_key_value.{}#0"),
    (_LAYER + "attention.k_proj.{}", _OURS + "attention.query_key_value.{}#1"),
    (_LAYER + "attention.v_proj.{}", _OURS + "attention.query_key_value.{}#2"),
    (_LAYER + "attention.o_proj.{}", _OURS + "attention.output.{}"),
    (_LAYER + "layernorm_before.{}", _OURS + "attention_norm.{}"),
    (_LAYER + "mlp.fc1.{}", _OURS + "ffn.0.{}"),
    (_LAYER + "mlp.fc2.{}", _OURS + "ffn.3.{}"),
    (_LAYER + "layernorm_after.{}", _OURS + "ffn_norm.{}"),
    # As they were called before version 5.
    (_OLD + "attention.attention.query.{}", _OURS + "attention.query_key_value.{}#0"),
    (_OLD + "attention.attention.key.{}", _OURS + "attention.query_key_value.{}#1"),
    (_OLD + "attention.attention.value.{}", _OURS + "attention.query_key_value.{}#2"),
    (_OLD + "attention.output.dense.{}", _OURS + "attention.output.{}"),
    (_OLD + "layernorm_before.{}", _OURS + "attention_norm.{}"),
    (_OLD + "intermediate.dense.{}", _OURS + "ffn.0.{}"),
    (_OLD + "output.dense.{}", _OURS + "ffn.3.{}"),
    (_OLD + "layernorm_after.{}", _OURS + "ffn_norm.{}"),
]


def ast_table(config: PatchConfig) -> KeyTable:
    """transformers' `ASTModel` ↔ ours."""
    height, width = config.patch
    kernel = Change(lambda weight: weight.flatten(1), lambda weight: weight.unflatten(1, (1, height, width)))
    return KeyTable(
        [
            ("embeddings.cls_token", "extra#0", TOKEN),
            ("embeddings.distillation_token", "extra#1", TOKEN),
            ("embeddings.position_embeddings", "positions.table", TOKEN),
            ("embeddings.patch_embeddings.projection.weight", "project.weight", kernel),
            ("embeddings.patch_embeddings.projection.bias", "project.bias"),
            *_AST_LAYERS,
            ("layernorm.{}", "stack.norm.{}"),
        ]
    )


_FIXED = {"hidden_act": "gelu", "qkv_bias": True}


def read_ast(values: Mapping[str, Any]) -> PatchConfig:
    """transformers' `config.json` → ours (keys it leaves out: their defaults).

    Raises:
        ConfigError: a variant that we do not have.
    """
    check_fixed(values, _FIXED, "AST")
    size, stride = values.get("patch_size", 16), values.get("time_stride", 10)
    return ast_base(
        input_dim=values.get("num_mel_bins", 128),
        patch=(size, size),
        stride=(values.get("frequency_stride", 10), stride),
        max_columns=(values.get("max_length", 1024) - size) // stride + 1,
        dim=values.get("hidden_size", 768),
        num_layers=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        ffn_dim=values.get("intermediate_size", 3072),
        norm_eps=float(values.get("layer_norm_eps", 1e-12)),
        dropout=float(values.get("hidden_dropout_prob", 0.0)),
        attention_dropout=float(values.get("attention_probs_dropout_prob", 0.0)),
    )


def write_ast(config: PatchConfig) -> dict[str, Any]:
    """Keyword arguments of transformers' `ASTConfig`; inverts `read_ast`.

    Raises:
        ConfigError: transformers has no such variant.
    """
    needed = {"position": "learned", "num_extra": 2, "input_norm": False, "cut_long": False}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ConfigError(f"transformers' AST has {name}={value!r} only, got {getattr(config, name)!r}")
    if config.patch[0] != config.patch[1]:
        raise ConfigError(f"transformers' AST has square patches only, got {config.patch}")
    return {
        "num_mel_bins": config.input_dim,
        "patch_size": config.patch[0],
        "frequency_stride": config.stride[0],
        "time_stride": config.stride[1],
        "max_length": (config.max_columns - 1) * config.stride[1] + config.patch[1],
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


def _read_folder(values: Mapping[str, Any], features: Mapping[str, Any]) -> PatchConfig:
    check_fixed(features, {"sampling_rate": 16000}, "AST")
    return read_ast(values)


def _front(features: Mapping[str, Any]) -> FrontConfig:
    """AudioSet's statistics, or those of what else a model was trained on; twice the deviation, as theirs divides by."""
    base = ast_front()
    if not features.get("do_normalize", True):
        return replace(base, mean=0.0, std=1.0)
    mean, std = features.get("mean", base.mean), features.get("std", base.std / 2)
    return replace(base, mean=float(mean), std=2 * float(std))


AST = Foreign(
    name="audio-spectrogram-transformer",
    prefixes=("audio_spectrogram_transformer",),
    read=_read_folder,
    write=write_ast,
    features=lambda config: {},
    table=ast_table,
    config=PatchConfig,
    architecture="ASTModel",
    front=lambda config, features: _front(features),
    heads={"classifier.*": "head of a classifier"},
    spare=lambda config: {},
)

VIT_LAYERS: list[tuple[str, str]] = [
    ("blocks.{}.norm1.{}", "stack.blocks.{}.attention_norm.{}"),
    ("blocks.{}.attn.qkv.{}", "stack.blocks.{}.attention.query_key_value.{}"),
    ("blocks.{}.attn.proj.{}", "stack.blocks.{}.attention.output.{}"),
    ("blocks.{}.norm2.{}", "stack.blocks.{}.ffn_norm.{}"),
    ("blocks.{}.mlp.fc1.{}", "stack.blocks.{}.ffn.0.{}"),
    ("blocks.{}.mlp.fc2.{}", "stack.blocks.{}.ffn.3.{}"),
    ("norm.{}", "stack.norm.{}"),
]
"""Layers as timm's ViT calls them, and those who started from it."""


def audio_mae_table(config: PatchConfig) -> KeyTable:
    """The entry "model" of Audio-MAE's pre-trained checkpoints ↔ ours; their images stand upright in time."""
    height, width = config.patch
    kernel = Change(
        lambda weight: weight[:, 0].mT.flatten(1),
        lambda weight: weight.unflatten(1, (height, width)).mT[:, None],
    )
    decoder = "decoder of pre-training: see objectives.masked_patches"
    return KeyTable(
        [
            ("cls_token", "extra", TOKEN),
            ("patch_embed.proj.weight", "project.weight", kernel),
            ("patch_embed.proj.bias", "project.bias"),
            *VIT_LAYERS,
        ],
        kept={"pos_embed": "positions"},
        dropped={"decoder_*": decoder, "mask_token": decoder},
    )


def check_mae_positions(converted: Converted, config: PatchConfig, where: str = "the checkpoint") -> None:
    """Makes sure that the positions which are stored there are the ones that are computed here.

    Raises:
        CheckpointError: they are others, such as those of an autoencoder whose images lie (MSM-MAE).
    """
    stored = converted.kept.get("positions")
    if stored is None:
        return
    rows = (config.input_dim - config.patch[0]) // config.stride[0] + 1
    table: Tensor = stored[0, config.num_extra :].float()
    expected = patch_sinusoids(len(table) // rows, rows, config.dim, table.device).flatten(0, 1)
    if table.shape != expected.shape or float((table - expected).abs().max()) > 1e-2:
        raise CheckpointError(
            f"{where}: its positions differ from the sinusoids of rows and columns that are known here"
        )


def read(content: Any, where: str) -> tuple[PatchConfig, Converted] | None:
    """Configuration and weights of one of Audio-MAE's pre-trained files; None if it is another toolkit's.

    The sizes are those of the weights; what they do not tell, 128 bands and heads of 64, is as in all published ones.

    Raises:
        CheckpointError: a key that no row knows, or positions that are not those of Audio-MAE.
    """
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(weights):
        return None
    dim, _, width, height = weights["patch_embed.proj.weight"].shape
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    config = audio_mae_base(
        patch=(height, width),
        stride=(height, width),
        dim=dim,
        num_layers=len(layers),
        num_heads=max(1, dim // 64),
        ffn_dim=len(weights["blocks.0.mlp.fc1.bias"]),
    )
    found = audio_mae_table(config).to_ours(weights, where)
    check_mae_positions(found, config, where)
    return config, found


def front(config: PatchConfig) -> FrontConfig:
    """The frames that it was trained on."""
    return ast_front()
