"""Original files of wav2vec 2.0, HuBERT, data2vec, wav2vec and vq-wav2vec (fairseq), of WavLM and UniSpeech-SAT ↔ ours.

All of them hold a state dict `model` and options: `cfg` (a dictionary with the parts `model` and `task`, or flat in WavLM's),
or `args` in older ones. A model fine-tuned by CTC holds the pre-trained one's options in `w2v_args`, and its weights under a
prefix.
"""

import ast
from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.convert import Converted, KeyTable, Weights, check_fixed, under_prefix
from sonorant.encoders.cpc import Wav2VecConfig
from sonorant.encoders.keys.cpc import WAV2VEC
from sonorant.encoders.keys.wav2vec2 import PER_HEAD
from sonorant.encoders.pickled import plain
from sonorant.encoders.wav2vec2 import Wav2Vec2Config

__all__ = ["TABLE", "conv_layers", "front", "inner_weights", "model_options", "read"]

_BLOCK, _OURS = "encoder.layers.{}.", "stack.blocks.{}."
_WEIGHT = "stack.position.conv.parametrizations.weight."
TABLE = KeyTable(
    [
        # A group norm stands bare, a layer norm between two transpositions.
        ("feature_extractor.conv_layers.{}.2.weight", "convs.convs.{}.scale"),
        ("feature_extractor.conv_layers.{}.2.bias", "convs.convs.{}.shift"),
        ("feature_extractor.conv_layers.{}.2.1.weight", "convs.convs.{}.scale"),
        ("feature_extractor.conv_layers.{}.2.1.bias", "convs.convs.{}.shift"),
        ("feature_extractor.conv_layers.{}.0.{}", "convs.convs.{}.{}"),
        ("layer_norm.{}", "local_norm.{}"),
        ("post_extract_proj.{}", "project.{}"),
        ("encoder.pos_conv.0.bias", "stack.position.conv.bias"),
        ("encoder.pos_conv.0.weight_g", _WEIGHT + "original0"),
        ("encoder.pos_conv.0.weight_v", _WEIGHT + "original1"),
        ("encoder.pos_conv.0.parametrizations.weight.{}", _WEIGHT + "{}"),
        ("encoder.pos_conv.{}.0.{}", "stack.position.convs.{}.{}"),
        ("encoder.layer_norm.{}", "stack.norm.{}"),
        (_BLOCK + "self_attn.q_proj.{}", _OURS + "attention.query_key_value.{}#0"),
        (_BLOCK + "self_attn.k_proj.{}", _OURS + "attention.query_key_value.{}#1"),
        (_BLOCK + "self_attn.v_proj.{}", _OURS + "attention.query_key_value.{}#2"),
        (_BLOCK + "self_attn.out_proj.{}", _OURS + "attention.output.{}"),
        (_BLOCK + "self_attn_layer_norm.{}", _OURS + "attention_norm.{}"),
        (_BLOCK + "fc1.{}", _OURS + "ffn.0.{}"),
        (_BLOCK + "fc2.{}", _OURS + "ffn.3.{}"),
        (_BLOCK + "final_layer_norm.{}", _OURS + "ffn_norm.{}"),
        ("encoder.layers.0.self_attn.relative_attention_bias.weight", "stack.table.weight"),
        (_BLOCK + "self_attn.grep_linear.{}", _OURS + "attention.gate.{}"),
        (_BLOCK + "self_attn.grep_a", _OURS + "attention.gate_scale", PER_HEAD),
    ],
    kept={"mask_emb": "mask"},
    dropped={
        "_ema.*": "the teacher's moving average",
        "quantizer.*": "quantiser of pre-training",
        "project_q.*": "projection of pre-training",
        "final_proj.*": "projection of pre-training",
        "target_glu.*": "projection of pre-training",
        "label_embs_concat": "units of pre-training",
        "proj.*": "head of fine-tuning",
        "spk_proj.*": "speakers of pre-training",
        "quantizer_spk.*": "speakers of pre-training",
        "final_proj_spk.*": "speakers of pre-training",
        "project_q_spk.*": "speakers of pre-training",
        "layer_norm_for_extract.*": "speakers of pre-training",
    },
)

_FIXED = {
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "quantize_input": False,
    "conv_pos_batch_norm": False,
}


def read(content: Any, where: str) -> tuple[Any, Converted] | None:
    """Configuration and weights of a file's content; None if it is another toolkit's.

    Raises:
        CheckpointError: keys that the tables do not know.
        ConfigError: a variant that we lack.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return None
    weights = inner_weights(dict(content["model"]))
    if not any(name.startswith("feature_extractor.conv_layers.0.0.") for name in weights):
        return None
    model, task = model_options(content)
    if any(name.startswith("feature_aggregator.") for name in weights):
        return _wav2vec(model), WAV2VEC.to_ours(weights, where)
    return _wav2vec2(model, task, weights), TABLE.to_ours(weights, where)


def front(config: Any) -> None:
    """They take waveforms."""


def inner_weights(weights: Weights) -> Weights:
    """The encoder's part of a fine-tuned model; the head's keys keep the prefix's first part off."""
    inner, heads = under_prefix(weights, "w2v_encoder.w2v_model")
    return {**inner, **under_prefix(heads, "w2v_encoder")[0]}


def model_options(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file says of the model and of the data, plain."""
    cfg, args = plain(content.get("cfg")), plain(content.get("args"))
    if isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        model, task = cfg["model"], cfg.get("task") or {}
    elif isinstance(cfg, dict) and cfg:
        model = task = cfg
    elif isinstance(args, dict) and args:
        model = task = args
    else:
        raise CheckpointError(
            "the file holds weights and no options (cfg or args), so that its architecture is not known"
        )
    inner = model.get("w2v_args")
    if isinstance(inner, dict):
        return model_options({"cfg": inner} if "model" in inner else {"args": inner})
    return model, task


def _wav2vec2(model: Mapping[str, Any], task: Mapping[str, Any], weights: Weights) -> Wav2Vec2Config:
    # What the weights show needs no option: they cannot be wrong about themselves.
    check_fixed(model, _FIXED, "fairseq")
    gated = "encoder.layers.0.self_attn.grep_a" in weights
    if model.get("relative_position_embedding", gated) != gated:
        raise ConfigError("a bias of distances without its gate is not known here (gru_rel_pos must be on)")
    convs = conv_layers(model.get("conv_feature_layers", "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"))
    position: dict[str, Any] = {"position_kernel": model.get("conv_pos", 128)}
    depth = model.get("pos_conv_depth", 1)
    if depth > 1:
        kernel = max(3, model.get("conv_pos", 95) // depth)
        position = {"position": "conv_stack", "position_depth": depth, "position_kernel": kernel}
    return Wav2Vec2Config(
        sample_rate=task.get("sample_rate", 16000),
        normalise=bool(task.get("normalize", False)),
        conv_layers=convs,
        conv_norm="group" if model.get("extractor_mode", "default") == "default" else "layer",
        conv_bias=model.get("conv_bias", False),
        local_norm="layer_norm.weight" in weights,
        dim=model.get("encoder_embed_dim", 768),
        num_layers=model.get("encoder_layers", 12),
        num_heads=model.get("encoder_attention_heads", 12),
        ffn_dim=model.get("encoder_ffn_embed_dim", 3072),
        norm_first=model.get("layer_norm_first", False),
        position_groups=model.get("conv_pos_groups", 16),
        dropout=model.get("dropout", 0.1),
        attention_dropout=model.get("attention_dropout", 0.1),
        inner_dropout=model.get("activation_dropout", 0.0),
        layer_drop=model.get("encoder_layerdrop", 0.0),
        **position,
        **(
            {
                "attention": "gated",
                "num_buckets": model.get("num_buckets", 320),
                "max_distance": model.get("max_distance", 1280),
            }
            if gated
            else {}
        ),
    )


def _wav2vec(model: Mapping[str, Any]) -> Wav2VecConfig:
    convs = conv_layers(model["conv_feature_layers"])
    aggregated = conv_layers(model["conv_aggregator_layers"])
    widths = {layer[0] for layer in (*convs, *aggregated)}
    check_fixed(model, {"aggregator": "cnn", "no_conv_bias": False, "agg_zero_pad": False}, "wav2vec")
    if len(widths) > 1 or any(stride != 1 for _, _, stride in aggregated):
        raise ConfigError("a wav2vec whose convolutions differ in width, or whose context strides, is not known here")
    return Wav2VecConfig(
        dim=widths.pop(),
        kernels=tuple(kernel for _, kernel, _ in convs),
        strides=tuple(stride for _, _, stride in convs),
        context_kernels=tuple(kernel for _, kernel, _ in aggregated),
        activation=model.get("activation", "relu"),
        log_compression=model.get("log_compression", True),
        skip=model.get("skip_connections_agg", False),
        residual_scale=model.get("residual_scale", 0.5),
    )


def conv_layers(text: str | list[Any]) -> tuple[tuple[int, int, int], ...]:
    """fairseq's convolutions, an expression of lists, tuples, + and *, without running it.

    >>> conv_layers("[(512, 10, 5)] + [(512, 3, 2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))

    Raises:
        CheckpointError: anything else in it.
    """
    try:
        value = _evaluated(ast.parse(text, mode="eval").body) if isinstance(text, str) else text
        return tuple((int(channels), int(kernel), int(stride)) for channels, kernel, stride in value)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise CheckpointError(
            f"conv_feature_layers must list (channels, kernel, stride), got {str(text)[:80]!r}"
        ) from None


_MOST_CONVS = 1000
"""What no model comes near."""


def _evaluated(node: ast.AST) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return [_evaluated(item) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _evaluated(node.left) + _evaluated(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _evaluated(node.left), _evaluated(node.right)
        listed, times = (left, right) if isinstance(left, list) else (right, left)
        # A product of products could fill the memory.
        if isinstance(listed, list) and isinstance(times, int) and len(listed) * times <= _MOST_CONVS:
            return listed * times
    raise ValueError(ast.dump(node))
