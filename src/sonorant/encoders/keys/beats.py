"""BEATs' own checkpoints, {"cfg": …, "model": …} ↔ our `Beats`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sonorant.encoders.beats import BeatsConfig, beats_base
from sonorant.encoders.convert import Change, Converted, KeyTable, check_fixed
from sonorant.encoders.keys.wav2vec2 import PER_HEAD
from sonorant.encoders.pickled import plain
from sonorant.encoders.spectral import FrontConfig, beats_front

__all__ = ["beats_table", "front", "read", "read_beats", "with_shared_bias", "write_beats"]

_LAYER, _OURS = "encoder.layers.{}.", "stack.blocks.{}."


def beats_table(config: BeatsConfig) -> KeyTable:
    """Rows for a configuration.

    Their layers share one table of biases, which their files hold once a layer; the first is read, and `with_shared_bias`
    makes the others again.
    """
    height, width = config.patch
    # Their image stands upright in time.
    kernel = Change(
        lambda weight: weight[:, 0].mT.flatten(1),
        lambda weight: weight.unflatten(1, (height, width)).mT[:, None],
    )
    return KeyTable(
        [
            ("patch_embedding.weight", "patches.weight", kernel),
            ("layer_norm.{}", "local_norm.{}"),
            ("post_extract_proj.{}", "project.{}"),
            ("encoder.pos_conv.0.bias", "stack.position.conv.bias"),
            ("encoder.pos_conv.0.weight_g", "stack.position.conv.parametrizations.weight.original0"),
            ("encoder.pos_conv.0.weight_v", "stack.position.conv.parametrizations.weight.original1"),
            ("encoder.pos_conv.0.parametrizations.weight.{}", "stack.position.conv.parametrizations.weight.{}"),
            ("encoder.layer_norm.{}", "stack.norm.{}"),
            ("encoder.layers.0.self_attn.relative_attention_bias.weight", "stack.table.weight"),
            (_LAYER + "self_attn.q_proj.{}", _OURS + "attention.query_key_value.{}#0"),
            (_LAYER + "self_attn.k_proj.{}", _OURS + "attention.query_key_value.{}#1"),
            (_LAYER + "self_attn.v_proj.{}", _OURS + "attention.query_key_value.{}#2"),
            (_LAYER + "self_attn.out_proj.{}", _OURS + "attention.output.{}"),
            (_LAYER + "self_attn.grep_linear.{}", _OURS + "attention.gate.{}"),
            (_LAYER + "self_attn.grep_a", _OURS + "attention.gate_scale", PER_HEAD),
            (_LAYER + "self_attn_layer_norm.{}", _OURS + "attention_norm.{}"),
            (_LAYER + "fc1.{}", _OURS + "ffn.0.{}"),
            (_LAYER + "fc2.{}", _OURS + "ffn.3.{}"),
            (_LAYER + "final_layer_norm.{}", _OURS + "ffn_norm.{}"),
        ],
        dropped={
            "encoder.layers.{}.self_attn.relative_attention_bias.weight": "the first layer's, once more",
            "predictor.*": "head of a classifier of sounds",
        },
    )


_BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


def with_shared_bias(weights: Mapping[str, Tensor], config: BeatsConfig) -> dict[str, Tensor]:
    """Their weights as `beats_table` writes them, with the one table of biases in each layer, as their files have it."""
    bias = weights[_BIAS.format(0)]
    return {**weights, **{_BIAS.format(layer): bias.clone() for layer in range(1, config.num_layers)}}


_FIXED = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "conv_bias": False,
}
_FIELDS = {
    "embed_dim": "patch_dim",
    "encoder_embed_dim": "dim",
    "encoder_layers": "num_layers",
    "encoder_attention_heads": "num_heads",
    "encoder_ffn_embed_dim": "ffn_dim",
    "deep_norm": "deep_norm",
    "num_buckets": "num_buckets",
    "max_distance": "max_distance",
    "conv_pos": "position_kernel",
    "conv_pos_groups": "position_groups",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "inner_dropout",
    "encoder_layerdrop": "layer_drop",
}
"""Theirs → ours."""


def read_beats(values: Mapping[str, Any]) -> BeatsConfig:
    """The entry "cfg" → ours; fields it leaves out have the values of the published checkpoints.

    Raises:
        ConfigError: a variant that we do not have.
    """
    check_fixed(values, _FIXED, "BEATs")
    size = values.get("input_patch_size", 16)
    return beats_base(patch=(size, size), **{own: values[name] for name, own in _FIELDS.items() if name in values})


def write_beats(config: BeatsConfig) -> dict[str, Any]:
    """The inverse of `read_beats`."""
    own = {name: getattr(config, field) for name, field in _FIELDS.items()}
    return {"input_patch_size": config.patch[0], **_FIXED, **own}


def read(content: Any, where: str) -> tuple[BeatsConfig, Converted] | None:
    """Configuration and weights of a file's content; None if it is no BEATs.

    Raises:
        CheckpointError: a key that no row knows.
        ConfigError: a variant that we do not have.
    """
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or "patch_embedding.weight" not in weights or "cfg" not in content:
        return None
    config = read_beats(plain(content["cfg"]))
    return config, beats_table(config).to_ours(weights, where)


def front(config: BeatsConfig) -> FrontConfig:
    """The frames that it was trained on."""
    return beats_front()
