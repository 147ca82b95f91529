"""SEW in transformers ↔ our `Sew`."""

from collections.abc import Mapping
from typing import Any

from sonorant.encoders.convert import Foreign, KeyTable, check_fixed
from sonorant.encoders.keys.wav2vec2 import HEADS
from sonorant.encoders.keys.waveform_front import CONV_ROWS, FEATURE_FIELDS, read_front, write_features, write_front
from sonorant.encoders.sew import COMPACT_LAYERS, SewConfig

__all__ = ["SEW"]

_BLOCK, _OURS = "encoder.layers.{}.", "stack.blocks.{}."
TABLE = KeyTable(
    [
        *CONV_ROWS,
        ("layer_norm.{}", "front.local_norm.{}"),
        ("feature_projection.{}", "front.project.{}"),
        ("encoder.pos_conv_embed.conv.bias", "squeeze.conv.bias"),
        ("encoder.pos_conv_embed.conv.parametrizations.weight.{}", "squeeze.conv.parametrizations.weight.{}"),
        # Weight norm's spelling in older files.
        ("encoder.pos_conv_embed.conv.weight_g", "squeeze.conv.parametrizations.weight.original0"),
        ("encoder.pos_conv_embed.conv.weight_v", "squeeze.conv.parametrizations.weight.original1"),
        ("encoder.layer_norm.{}", "stack.norm.{}"),
        (_BLOCK + "attention.q_proj.{}", _OURS + "attention.query_key_value.{}#0"),
        (_BLOCK + "attention.k_proj.{}", _OURS + "attention.query_key_value.{}#1"),
        (_BLOCK + "attention.v_proj.{}", _OURS + "attention.query_key_value.{}#2"),
        (_BLOCK + "attention.out_proj.{}", _OURS + "attention.output.{}"),
        (_BLOCK + "layer_norm.{}", _OURS + "attention_norm.{}"),
        (_BLOCK + "feed_forward.intermediate_dense.{}", _OURS + "ffn.0.{}"),
        (_BLOCK + "feed_forward.output_dense.{}", _OURS + "ffn.3.{}"),
        (_BLOCK + "final_layer_norm.{}", _OURS + "ffn_norm.{}"),
        ("encoder.upsample.projection.{}", "unsqueeze.project.{}"),
    ],
    kept={"masked_spec_embed": "mask"},
)

_FIXED = {"hidden_act": "gelu", "feat_extract_activation": "gelu", "layer_norm_eps": 1e-5}


def _read(values: Mapping[str, Any], features: Mapping[str, Any]) -> SewConfig:
    check_fixed(values, _FIXED, "sew")
    check_fixed(features, FEATURE_FIELDS, "sew")
    return SewConfig(
        **read_front(values, features, COMPACT_LAYERS),
        num_layers=values.get("num_hidden_layers", 12),
        squeeze=values.get("squeeze_factor", 2),
        position_kernel=values.get("num_conv_pos_embeddings", 128),
        position_groups=values.get("num_conv_pos_embedding_groups", 16),
        attention_dropout=float(values.get("attention_dropout", 0.1)),
        inner_dropout=float(values.get("activation_dropout", 0.1)),
    )


def _write(config: SewConfig) -> dict[str, Any]:
    return write_front(config, "sew") | {
        "num_hidden_layers": config.num_layers,
        "squeeze_factor": config.squeeze,
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.inner_dropout,
    }


SEW = Foreign(
    name="sew",
    prefixes=("sew",),
    read=_read,
    write=_write,
    features=write_features,
    table=lambda config: TABLE,
    config=SewConfig,
    architecture="SEWModel",
    ctc="SEWForCTC",
    heads=HEADS,
)
