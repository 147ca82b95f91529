"""wav2vec 2.0, HuBERT, WavLM, UniSpeech-SAT and data2vec audio in transformers ↔ our `Wav2Vec2`."""

from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import ConfigError
from sonorant.encoders.convert import Change, Foreign, KeyTable, Row, check_fixed
from sonorant.encoders.keys.waveform_front import FEATURE_FIELDS, read_convs, write_convs, write_features
from sonorant.encoders.wav2vec2 import Wav2Vec2Config
from sonorant.nn.waveform import WAV2VEC2_LAYERS

__all__ = ["DATA2VEC_AUDIO", "HEADS", "HUBERT", "PER_HEAD", "UNISPEECH_SAT", "WAV2VEC2", "WAVLM"]

PER_HEAD = Change(lambda tensor: tensor.flatten(), lambda tensor: tensor[None, :, None, None])
"""A number a head, there with axes for batch, query and key."""

HEADS = {
    "lm_head.*": "CTC head: see load_recogniser",
    "quantizer.*": "quantiser of pre-training",
    "project_hid.*": "projection of pre-training",
    "project_q.*": "projection of pre-training",
    "dropout_features.*": "nothing that is learnt",
    "final_proj.*": "projection of pre-training",
    "label_embeddings_concat": "units of pre-training",
    "speaker_proj.*": "projection of pre-training",
    "projector.*": "head of a classifier",
    "classifier.*": "head of a classifier",
    "layer_weights": "head of a classifier",
    "feature_extractor.*": "head of a classifier",
    "tdnn.*": "head of a speaker model",
    "objective.*": "head of a speaker model",
}
"""What transformers puts on top of these encoders → why it is no part of one."""

_BLOCK, _OURS = "encoder.layers.{}.", "stack.blocks.{}."
ROWS: list[Row] = [
    ("feature_extractor.conv_layers.{}.layer_norm.weight", "convs.convs.{}.scale"),
    ("feature_extractor.conv_layers.{}.layer_norm.bias", "convs.convs.{}.shift"),
    ("feature_extractor.conv_layers.{}.conv.{}", "convs.convs.{}.{}"),
    ("feature_projection.layer_norm.{}", "local_norm.{}"),
    ("feature_projection.projection.{}", "project.{}"),
    ("encoder.pos_conv_embed.conv.bias", "stack.position.conv.bias"),
    # Weight norm has two spellings in torch; the second is that of older files.
    ("encoder.pos_conv_embed.conv.parametrizations.weight.{}", "stack.position.conv.parametrizations.weight.{}"),
    ("encoder.pos_conv_embed.conv.weight_g", "stack.position.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv_embed.conv.weight_v", "stack.position.conv.parametrizations.weight.original1"),
    ("encoder.pos_conv_embed.layers.{}.conv.{}", "stack.position.convs.{}.{}"),
    ("encoder.layer_norm.{}", "stack.norm.{}"),
    (_BLOCK + "attention.q_proj.{}", _OURS + "attention.query_key_value.{}#0"),
    (_BLOCK + "attention.k_proj.{}", _OURS + "attention.query_key_value.{}#1"),
    (_BLOCK + "attention.v_proj.{}", _OURS + "attention.query_key_value.{}#2"),
    (_BLOCK + "attention.out_proj.{}", _OURS + "attention.output.{}"),
    (_BLOCK + "layer_norm.{}", _OURS + "attention_norm.{}"),
    (_BLOCK + "feed_forward.intermediate_dense.{}", _OURS + "ffn.0.{}"),
    (_BLOCK + "feed_forward.output_dense.{}", _OURS + "ffn.3.{}"),
    (_BLOCK + "final_layer_norm.{}", _OURS + "ffn_norm.{}"),
    # WavLM's gated bias of distances; the table stands in the first layer there.
    ("encoder.layers.0.attention.rel_attn_embed.weight", "stack.table.weight"),
    (_BLOCK + "attention.gru_rel_pos_linear.{}", _OURS + "attention.gate.{}"),
    (_BLOCK + "attention.gru_rel_pos_const", _OURS + "attention.gate_scale", PER_HEAD),
]  # fmt: skip
TABLE = KeyTable(ROWS, kept={"masked_spec_embed": "mask"})

_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "adapter_attn_dim": None,
    "conv_pos_batch_norm": False,
}


def _read(values: Mapping[str, Any], features: Mapping[str, Any]) -> Wav2Vec2Config:
    kind = values["model_type"]
    check_fixed(values, _FIXED, kind)
    check_fixed(features, FEATURE_FIELDS, kind)
    stacked = kind == "data2vec-audio"
    position = (
        {
            "position": "conv_stack",
            "position_kernel": values.get("conv_pos_kernel_size", 19),
            "position_depth": values.get("num_conv_pos_embeddings", 5),
        }
        if stacked
        else {"position_kernel": values.get("num_conv_pos_embeddings", 128)}
    )
    gated = {"num_buckets": values.get("num_buckets", 320), "max_distance": values.get("max_bucket_distance", 800)}
    return Wav2Vec2Config(
        sample_rate=features.get("sampling_rate", 16000),
        # Their class normalises unless it is told not to; a folder without the file says nothing.
        normalise=bool(features) and features.get("do_normalize", True),
        conv_layers=read_convs(values, WAV2VEC2_LAYERS),
        conv_norm="layer" if stacked else values.get("feat_extract_norm", "group"),
        conv_bias=values.get("conv_bias", False),
        local_norm=values.get("feat_proj_layer_norm", True),
        dim=values.get("hidden_size", 768),
        num_layers=values.get("num_hidden_layers", 12),
        num_heads=values.get("num_attention_heads", 12),
        ffn_dim=values.get("intermediate_size", 3072),
        norm_first=values.get("do_stable_layer_norm", False) and not stacked,
        position_groups=values.get("num_conv_pos_embedding_groups", 16),
        dropout=float(values.get("hidden_dropout", 0.1)),
        attention_dropout=float(values.get("attention_dropout", 0.1)),
        inner_dropout=float(values.get("activation_dropout", 0.1)),
        layer_drop=float(values.get("layerdrop", 0.1)),
        **position,
        **({"attention": "gated", **gated} if kind == "wavlm" else {}),
    )


def _write(config: Wav2Vec2Config, kind: str) -> dict[str, Any]:
    stacked, gated = kind == "data2vec-audio", kind == "wavlm"
    needed: dict[str, Any] = {
        "position": "conv_stack" if stacked else "conv",
        "attention": "gated" if gated else "plain",
    }
    needed |= {"conv_norm": "layer", "norm_first": False} if stacked else {}
    needed |= {} if kind == "hubert" else {"local_norm": True}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ConfigError(f"transformers' {kind} has {name}={value!r} only, got {getattr(config, name)!r}")
    if config.conv_norm == "none":
        raise ConfigError(f"transformers' {kind} has conv_norm='group' or 'layer' only, got 'none'")
    values: dict[str, Any] = write_convs(config.conv_layers) | {
        "conv_bias": config.conv_bias,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "num_conv_pos_embeddings": config.position_depth if stacked else config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.inner_dropout,
        "layerdrop": config.layer_drop,
    }
    if stacked:
        return values | {"conv_pos_kernel_size": config.position_kernel}
    values |= {"feat_extract_norm": config.conv_norm, "do_stable_layer_norm": config.norm_first}
    if kind == "hubert":
        values["feat_proj_layer_norm"] = config.local_norm
    return values | ({"num_buckets": config.num_buckets, "max_bucket_distance": config.max_distance} if gated else {})


def _foreign(name: str, cls: str, prefix: str) -> Foreign:
    return Foreign(
        name=name,
        prefixes=(prefix,),
        read=_read,
        write=lambda config: _write(config, name),
        features=write_features,
        table=lambda config: TABLE,
        config=Wav2Vec2Config,
        architecture=f"{cls}Model",
        ctc=f"{cls}ForCTC",
        heads=HEADS,
    )


WAV2VEC2 = _foreign("wav2vec2", "Wav2Vec2", "wav2vec2")
HUBERT = _foreign("hubert", "Hubert", "hubert")
WAVLM = _foreign("wavlm", "WavLM", "wavlm")
UNISPEECH_SAT = _foreign("unispeech-sat", "UniSpeechSat", "unispeech_sat")
DATA2VEC_AUDIO = _foreign("data2vec-audio", "Data2VecAudio", "data2vec_audio")
