"""wav2vec 2.0 Conformers in transformers ↔ our `Wav2Vec2Conformer`."""

import math
from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import ConfigError
from sonorant.encoders.convert import Foreign, KeyTable, Row, check_fixed, columns_turned
from sonorant.encoders.keys.parakeet import PER_HEAD, POINTWISE
from sonorant.encoders.keys.wav2vec2 import HEADS
from sonorant.encoders.keys.waveform_front import CONV_ROWS, FEATURE_FIELDS, read_front, write_features, write_front
from sonorant.encoders.wav2vec2_conformer import Wav2Vec2ConformerConfig
from sonorant.nn.waveform import WAV2VEC2_LAYERS

__all__ = ["WAV2VEC2_CONFORMER", "block_rows"]


def block_rows(theirs: str, ours: str, dim: int, inner_norm: str = "batch_norm") -> list[Row]:
    """Rows of one Conformer block, as this family and w2v-BERT 2.0 write it.

    Args:
        theirs: prefix of their names, with `{}` for the block's number.
        ours: prefix of ours.
        dim: width of the blocks. Sines and cosines of distances alternate there and stand in halves here.
        inner_norm: their name of the norm inside the convolution module.
    """
    attention, convolution = ours + "attention.", ours + "convolution."
    return [
        (theirs + "ffn1_layer_norm.{}", ours + "first_ffn.0.{}"),
        (theirs + "ffn1.intermediate_dense.{}", ours + "first_ffn.1.{}"),
        (theirs + "ffn1.output_dense.{}", ours + "first_ffn.4.{}"),
        (theirs + "self_attn_layer_norm.{}", ours + "attention_norm.{}"),
        (theirs + "self_attn.linear_q.{}", attention + "query_key_value.{}#0"),
        (theirs + "self_attn.linear_k.{}", attention + "query_key_value.{}#1"),
        (theirs + "self_attn.linear_v.{}", attention + "query_key_value.{}#2"),
        (theirs + "self_attn.linear_out.{}", attention + "output.{}"),
        (theirs + "self_attn.linear_pos.weight", attention + "relative.project.weight", columns_turned(dim // 2)),
        (theirs + "self_attn.pos_bias_u", attention + "relative.content_bias", PER_HEAD),
        (theirs + "self_attn.pos_bias_v", attention + "relative.position_bias", PER_HEAD),
        (theirs + "conv_module.layer_norm.{}", convolution + "norm.{}"),
        (theirs + "conv_module.pointwise_conv1.weight", convolution + "expand.weight", POINTWISE),
        (theirs + "conv_module.depthwise_conv.weight", convolution + "depthwise.weight"),
        (theirs + f"conv_module.{inner_norm}." + "{}", convolution + "inner_norm.{}"),
        (theirs + "conv_module.pointwise_conv2.weight", convolution + "contract.weight", POINTWISE),
        (theirs + "ffn2_layer_norm.{}", ours + "second_ffn.0.{}"),
        (theirs + "ffn2.intermediate_dense.{}", ours + "second_ffn.1.{}"),
        (theirs + "ffn2.output_dense.{}", ours + "second_ffn.4.{}"),
        (theirs + "final_layer_norm.{}", ours + "norm.{}"),
    ]


def _table(config: Wav2Vec2ConformerConfig) -> KeyTable:
    return KeyTable(
        [
            *CONV_ROWS,
            ("feature_projection.layer_norm.{}", "front.local_norm.{}"),
            ("feature_projection.projection.{}", "front.project.{}"),
            ("encoder.layer_norm.{}", "stack.norm.{}"),
            *block_rows("encoder.layers.{}.", "stack.blocks.{}.", config.dim),
        ],
        kept={"masked_spec_embed": "mask"},
        dropped={
            "encoder.pos_conv_embed.*": "positions by convolution, which these encoders store and never use",
            "encoder.embed_positions.inv_freq": "angles that are computed",
        },
    )


_FIXED = {
    "hidden_act": "swish",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "rotary_embedding_base": 10000,
}


def _read(values: Mapping[str, Any], features: Mapping[str, Any]) -> Wav2Vec2ConformerConfig:
    check_fixed({"hidden_act": "gelu", **values}, _FIXED, "wav2vec2-conformer")
    check_fixed(features, FEATURE_FIELDS, "wav2vec2-conformer")
    return Wav2Vec2ConformerConfig(
        **read_front(values, features, WAV2VEC2_LAYERS),
        num_layers=values.get("num_hidden_layers", 12),
        kernel_size=values.get("conv_depthwise_kernel_size", 31),
        position=values.get("position_embeddings_type", "relative") or "none",
        attention_dropout=float(values.get("attention_dropout", 0.1)),
    )


def _write(config: Wav2Vec2ConformerConfig) -> dict[str, Any]:
    if config.norm != "batch":
        raise ConfigError(f"transformers' wav2vec2-conformer has norm='batch' only, got {config.norm!r}")
    dropouts = ("activation_dropout", "conformer_conv_dropout")
    return write_front(config, "wav2vec2-conformer") | {
        "hidden_act": "swish",
        "num_hidden_layers": config.num_layers,
        "conv_depthwise_kernel_size": config.kernel_size,
        "position_embeddings_type": None if config.position == "none" else config.position,
        "attention_dropout": config.attention_dropout,
        # Of the convolution that is never used, whose groups must divide its width all the same.
        "num_conv_pos_embedding_groups": math.gcd(config.dim, 16),
        **dict.fromkeys(dropouts, config.dropout),
    }


WAV2VEC2_CONFORMER = Foreign(
    name="wav2vec2-conformer",
    prefixes=("wav2vec2_conformer",),
    read=_read,
    write=_write,
    features=write_features,
    table=_table,
    config=Wav2Vec2ConformerConfig,
    architecture="Wav2Vec2ConformerModel",
    ctc="Wav2Vec2ConformerForCTC",
    heads=HEADS,
)
