"""w2v-BERT 2.0 in transformers (`Wav2Vec2BertModel`) ↔ our `W2vBert`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.encoders.convert import Change, Foreign, KeyTable, check_fixed
from sonorant.encoders.keys.wav2vec2 import HEADS
from sonorant.encoders.keys.wav2vec2_conformer import block_rows
from sonorant.encoders.spectral import FrontConfig, seamless_front
from sonorant.encoders.w2v_bert import W2vBertConfig

__all__ = ["W2V_BERT"]


def _reversed(table: Tensor) -> Tensor:
    """Their rows count key − query, ours query − key."""
    return table.flip(0)


_LAYER, _OURS = "adapter.layers.{}.", "adaptor.layers.{}."
_POSITIONS = {"shaw": "relative_key", "relative": "relative", "rotary": "rotary", "none": None}


def _table(config: W2vBertConfig) -> KeyTable:
    distances = Change(_reversed, _reversed)
    return KeyTable(
        [
            ("feature_projection.layer_norm.{}", "local_norm.{}"),
            ("feature_projection.projection.{}", "project.{}"),
            *block_rows("encoder.layers.{}.", "stack.blocks.{}.", config.dim, "depthwise_layer_norm"),
            (
                "encoder.layers.{}.self_attn.distance_embedding.weight",
                "stack.blocks.{}.attention.shaw.table",
                distances,
            ),
            ("intermediate_ffn.intermediate_dense.{}", "adaptor.ffn.0.{}"),
            ("intermediate_ffn.output_dense.{}", "adaptor.ffn.2.{}"),
            ("adapter.proj.{}", "adaptor.project.0.{}"),
            ("adapter.proj_layer_norm.{}", "adaptor.project.1.{}"),
            (_LAYER + "residual_layer_norm.{}", _OURS + "residual_norm.{}"),
            (_LAYER + "residual_conv.{}", _OURS + "residual_conv.{}"),
            (_LAYER + "self_attn_layer_norm.{}", _OURS + "attention_norm.{}"),
            (_LAYER + "self_attn_conv.{}", _OURS + "attention_conv.{}"),
            (_LAYER + "self_attn.linear_q.{}", _OURS + "attention.query_key_value.{}#0"),
            (_LAYER + "self_attn.linear_k.{}", _OURS + "attention.query_key_value.{}#1"),
            (_LAYER + "self_attn.linear_v.{}", _OURS + "attention.query_key_value.{}#2"),
            (_LAYER + "self_attn.linear_out.{}", _OURS + "attention.output.{}"),
            (_LAYER + "ffn_layer_norm.{}", _OURS + "ffn_norm.{}"),
            (_LAYER + "ffn.intermediate_dense.{}", _OURS + "ffn.0.{}"),
            (_LAYER + "ffn.output_dense.{}", _OURS + "ffn.2.{}"),
        ],
        kept={"masked_spec_embed": "mask"},
    )


_FEATURES = {"sampling_rate": 16000}
_FIXED = {"hidden_act": "swish", "layer_norm_eps": 1e-5, "adapter_act": "relu", "rotary_embedding_base": 10000}


def _read(values: Mapping[str, Any], features: Mapping[str, Any]) -> W2vBertConfig:
    check_fixed(values, _FIXED, "wav2vec2-bert")
    check_fixed(features, _FEATURES, "wav2vec2-bert")
    stride = features.get("stride", 2)
    at_least("stride", stride, 1)
    dim = values.get("hidden_size", 1024)
    adapted = values.get("add_adapter", False)
    output = values.get("output_hidden_size") or dim
    position = values.get("position_embeddings_type", "relative_key")
    positions = {theirs: ours for ours, theirs in _POSITIONS.items()}
    if position not in positions:
        raise ConfigError(
            f"position_embeddings_type={position!r} is not known here, only {', '.join(map(str, positions))}"
        )
    return W2vBertConfig(
        input_dim=values.get("feature_projection_input_dim", 160),
        input_frame_rate=100.0 / stride,
        dim=dim,
        num_layers=values.get("num_hidden_layers", 24),
        num_heads=values.get("num_attention_heads", 16),
        ffn_dim=values.get("intermediate_size", 4096),
        kernel_size=values.get("conv_depthwise_kernel_size", 31),
        position=positions[position],
        max_distance=values.get("left_max_position_embeddings", 64),
        max_ahead=values.get("right_max_position_embeddings", 8),
        dropout=float(values.get("hidden_dropout", 0.0)),
        attention_dropout=float(values.get("attention_dropout", 0.0)),
        conv_dropout=float(values.get("conformer_conv_dropout", 0.1)),
        layer_drop=float(values.get("layerdrop", 0.1)),
        adapter_layers=values.get("num_adapter_layers", 1) if adapted else 0,
        adapter_dim=output if adapted and output != dim else 0,
        adapter_kernel=values.get("adapter_kernel_size", 3),
        adapter_stride=values.get("adapter_stride", 2),
        adapter_ffn=adapted and values.get("use_intermediate_ffn_before_adapter", False),
    )


def _write(config: W2vBertConfig) -> dict[str, Any]:
    return {
        "feature_projection_input_dim": config.input_dim,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "conv_depthwise_kernel_size": config.kernel_size,
        "position_embeddings_type": _POSITIONS[config.position],
        "left_max_position_embeddings": config.max_distance,
        "right_max_position_embeddings": config.max_ahead,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.dropout,
        "feat_proj_dropout": 0.0,
        "conformer_conv_dropout": config.conv_dropout,
        "layerdrop": config.layer_drop,
        "add_adapter": config.adapter_layers > 0,
        "num_adapter_layers": max(1, config.adapter_layers),
        "output_hidden_size": config.output_dim,
        "adapter_kernel_size": config.adapter_kernel,
        "adapter_stride": config.adapter_stride,
        "use_intermediate_ffn_before_adapter": config.adapter_ffn,
    }


def _front(config: W2vBertConfig) -> FrontConfig:
    stride = round(100.0 / config.input_frame_rate)
    return replace(seamless_front(config.input_dim // stride), stack=stride)


def _features(config: W2vBertConfig) -> dict[str, Any]:
    stride = round(100.0 / config.input_frame_rate)
    if config.input_dim % stride:
        raise ConfigError(f"input_dim={config.input_dim} is not {stride} frames of equal width side by side")
    return {
        "feature_extractor_type": "SeamlessM4TFeatureExtractor",
        "feature_size": config.input_dim // stride,
        "num_mel_bins": config.input_dim // stride,
        "padding_side": "right",
        "padding_value": 1,
        "return_attention_mask": True,
        "sampling_rate": 16000,
        "stride": stride,
    }


W2V_BERT = Foreign(
    name="wav2vec2-bert",
    prefixes=("wav2vec2_bert",),
    read=_read,
    write=_write,
    features=_features,
    table=_table,
    config=W2vBertConfig,
    architecture="Wav2Vec2BertModel",
    ctc="Wav2Vec2BertForCTC",
    heads=HEADS,
    front=lambda config, features: _front(config),
)
