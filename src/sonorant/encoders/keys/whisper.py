"""Whisper in transformers and in OpenAI's own checkpoints ↔ our `Whisper` and `WhisperEncoder`.

Keys have no bias there, and the encoder's sinusoids are stored there, which are computed here (`check_positions`).
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.convert import Converted, Foreign, KeyTable, Weights, check_fixed, under_prefix
from sonorant.encoders.spectral import FrontConfig, whisper_front
from sonorant.encoders.whisper import WhisperConfig, frame_positions

__all__ = [
    "WHISPER", "WHISPER_ENCODER", "WHISPER_MODEL", "WHISPER_OPENAI", "check_positions", "from_openai", "from_whisper",
    "front", "read", "read_openai_dims", "read_whisper", "to_openai", "to_whisper", "write_openai_dims", "write_whisper",
]  # fmt: skip

NUM_POSITIONS = 1500
"""Frames of 30 s, which is how many sinusoids they store."""

_ABSENT = "attention.query_key_value.bias#1"


def _attention(theirs: str, ours: str, names: tuple[str, str, str, str]) -> list[tuple[str, str]]:
    query, key, value, output = names
    return [
        (f"{theirs}.{query}.{{}}", f"{ours}.query_key_value.{{}}#0"),
        (f"{theirs}.{key}.{{}}", f"{ours}.query_key_value.{{}}#1"),
        (f"{theirs}.{value}.{{}}", f"{ours}.query_key_value.{{}}#2"),
        (f"{theirs}.{output}.{{}}", f"{ours}.output.{{}}"),
    ]


def _cross(theirs: str, ours: str, names: tuple[str, str, str, str]) -> list[tuple[str, str]]:
    query, key, value, output = names
    return [
        (f"{theirs}.{query}.{{}}", f"{ours}.query.{{}}"),
        (f"{theirs}.{key}.{{}}", f"{ours}.key_value.{{}}#0"),
        (f"{theirs}.{value}.{{}}", f"{ours}.key_value.{{}}#1"),
        (f"{theirs}.{output}.{{}}", f"{ours}.output.{{}}"),
    ]


_HUB = ("q_proj", "k_proj", "v_proj", "out_proj")
_OWN = ("query", "key", "value", "out")

ENCODER_ROWS = [
    ("conv1.{}", "convs.0.{}"),
    ("conv2.{}", "convs.1.{}"),
    *_attention("layers.{}.self_attn", "stack.blocks.{}.attention", _HUB),
    ("layers.{}.self_attn_layer_norm.{}", "stack.blocks.{}.attention_norm.{}"),
    ("layers.{}.fc1.{}", "stack.blocks.{}.ffn.0.{}"),
    ("layers.{}.fc2.{}", "stack.blocks.{}.ffn.3.{}"),
    ("layers.{}.final_layer_norm.{}", "stack.blocks.{}.ffn_norm.{}"),
    ("layer_norm.{}", "stack.norm.{}"),
]
DECODER_ROWS = [
    ("decoder.embed_tokens.weight", "decoder.tokens.weight"),
    ("decoder.embed_positions.weight", "decoder.positions"),
    *_attention("decoder.layers.{}.self_attn", "decoder.blocks.{}.attention", _HUB),
    ("decoder.layers.{}.self_attn_layer_norm.{}", "decoder.blocks.{}.attention_norm.{}"),
    *_cross("decoder.layers.{}.encoder_attn", "decoder.blocks.{}.cross_attention", _HUB),
    ("decoder.layers.{}.encoder_attn_layer_norm.{}", "decoder.blocks.{}.cross_norm.{}"),
    ("decoder.layers.{}.fc1.{}", "decoder.blocks.{}.ffn.0.{}"),
    ("decoder.layers.{}.fc2.{}", "decoder.blocks.{}.ffn.3.{}"),
    ("decoder.layers.{}.final_layer_norm.{}", "decoder.blocks.{}.ffn_norm.{}"),
    ("decoder.layer_norm.{}", "decoder.norm.{}"),
]
OPENAI_ROWS = [
    ("encoder.conv1.{}", "encoder.convs.0.{}"),
    ("encoder.conv2.{}", "encoder.convs.1.{}"),
    *_attention("encoder.blocks.{}.attn", "encoder.stack.blocks.{}.attention", _OWN),
    ("encoder.blocks.{}.attn_ln.{}", "encoder.stack.blocks.{}.attention_norm.{}"),
    ("encoder.blocks.{}.mlp.0.{}", "encoder.stack.blocks.{}.ffn.0.{}"),
    ("encoder.blocks.{}.mlp.2.{}", "encoder.stack.blocks.{}.ffn.3.{}"),
    ("encoder.blocks.{}.mlp_ln.{}", "encoder.stack.blocks.{}.ffn_norm.{}"),
    ("encoder.ln_post.{}", "encoder.stack.norm.{}"),
    ("decoder.token_embedding.weight", "decoder.tokens.weight"),
    ("decoder.positional_embedding", "decoder.positions"),
    *_attention("decoder.blocks.{}.attn", "decoder.blocks.{}.attention", _OWN),
    ("decoder.blocks.{}.attn_ln.{}", "decoder.blocks.{}.attention_norm.{}"),
    *_cross("decoder.blocks.{}.cross_attn", "decoder.blocks.{}.cross_attention", _OWN),
    ("decoder.blocks.{}.cross_attn_ln.{}", "decoder.blocks.{}.cross_norm.{}"),
    ("decoder.blocks.{}.mlp.0.{}", "decoder.blocks.{}.ffn.0.{}"),
    ("decoder.blocks.{}.mlp.2.{}", "decoder.blocks.{}.ffn.3.{}"),
    ("decoder.blocks.{}.mlp_ln.{}", "decoder.blocks.{}.ffn_norm.{}"),
    ("decoder.ln.{}", "decoder.norm.{}"),
]

WHISPER_ENCODER = KeyTable(
    ENCODER_ROWS, kept={"embed_positions.weight": "positions"}, absent=[f"stack.blocks.{{}}.{_ABSENT}"]
)
"""transformers' `WhisperEncoder` ↔ our encoder."""
_WHOLE = [
    f"encoder.stack.blocks.{{}}.{_ABSENT}",
    f"decoder.blocks.{{}}.{_ABSENT}",
    "decoder.blocks.{}.cross_attention.key_value.bias#0",
]
WHISPER_MODEL = KeyTable(
    [(f"encoder.{theirs}", f"encoder.{ours}") for theirs, ours in ENCODER_ROWS] + DECODER_ROWS,
    kept={"encoder.embed_positions.weight": "positions"},
    absent=_WHOLE,
)
"""transformers' `WhisperModel` ↔ our `Whisper`."""
WHISPER_OPENAI = KeyTable(OPENAI_ROWS, kept={"encoder.positional_embedding": "positions"}, absent=_WHOLE)
"""OpenAI's `model_state_dict` ↔ our `Whisper`."""


def check_positions(converted: Converted, where: str = "the checkpoint") -> Weights:
    """The weights, once it is sure that the positions they were trained with are the ones that are computed here.

    Raises:
        CheckpointError: they are others.
    """
    stored = converted.kept.get("positions")
    if stored is not None:
        # Half precision leaves 5e-4 of a sine, bfloat16 4e-3.
        worst = float((stored.float() - frame_positions(len(stored), stored.shape[1], stored.device)).abs().max())
        if worst > 1e-2:
            raise CheckpointError(
                f"{where}: the encoder's positions differ from Whisper's sinusoids by up to {worst:.2g}; such a model is not "
                "known here"
            )
    return converted.weights


def from_whisper(weights: Mapping[str, Shaped[Tensor, "..."]], where: str = "the checkpoint") -> Weights:
    """Weights of transformers' `WhisperModel` or `WhisperForConditionalGeneration` for our `Whisper`.

    Raises:
        CheckpointError: a key that no row knows, or positions that are not Whisper's.
    """
    bare = {name.removeprefix("model."): tensor for name, tensor in weights.items() if name != "proj_out.weight"}
    return check_positions(WHISPER_MODEL.to_ours(bare, where), where)


def to_whisper(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Weights:
    """Weights of our `Whisper` for transformers' `WhisperModel`; inverts `from_whisper`."""
    return WHISPER_MODEL.to_theirs(weights, _positions(weights))


def from_openai(weights: Mapping[str, Shaped[Tensor, "..."]], where: str = "the checkpoint") -> Weights:
    """The `model_state_dict` of OpenAI's checkpoints for our `Whisper`.

    Raises:
        CheckpointError: a key that no row knows, or positions that are not Whisper's.
    """
    return check_positions(WHISPER_OPENAI.to_ours(weights, where), where)


def to_openai(weights: Mapping[str, Shaped[Tensor, "..."]]) -> Weights:
    """The inverse of `from_openai`."""
    return WHISPER_OPENAI.to_theirs(weights, _positions(weights))


def _positions(weights: Mapping[str, Tensor]) -> Weights:
    tokens = weights["decoder.tokens.weight"]
    return {"positions": frame_positions(NUM_POSITIONS, tokens.shape[1], tokens.device).to(tokens.dtype)}


# --- configurations -----------------------------------------------------------------------------------------------------

_FIXED = {"activation_function": "gelu", "scale_embedding": False, "max_source_positions": NUM_POSITIONS}


def _alike(values: Mapping[str, Any], left: str, right: str, default: int) -> int:
    """A field that encoder and decoder have in common here."""
    if values.get(left, default) != values.get(right, default):
        raise ConfigError(
            f"a Whisper with {left}={values.get(left, default)} and {right}={values.get(right, default)} is not known here, "
            "only one with equal ones"
        )
    return int(values.get(left, default))


def read_whisper(values: Mapping[str, Any]) -> WhisperConfig:
    """transformers' `config.json` → ours (keys it leaves out: their defaults).

    Raises:
        ConfigError: a variant that we do not have.
    """
    check_fixed(values, _FIXED, "Whisper")
    return WhisperConfig(
        input_dim=values.get("num_mel_bins", 80),
        dim=values.get("d_model", 384),
        num_layers=values.get("encoder_layers", 4),
        num_heads=_alike(values, "encoder_attention_heads", "decoder_attention_heads", 6),
        ffn_dim=_alike(values, "encoder_ffn_dim", "decoder_ffn_dim", 1536),
        decoder_layers=values.get("decoder_layers", 4),
        vocab_size=values.get("vocab_size", 51865),
        max_tokens=values.get("max_target_positions", 448),
        dropout=float(values.get("dropout", 0.0)),
        attention_dropout=float(values.get("attention_dropout", 0.0)),
        inner_dropout=float(values.get("activation_dropout", 0.0)),
    )


def write_whisper(config: WhisperConfig) -> dict[str, Any]:
    """Keyword arguments of transformers' `WhisperConfig`; inverts `read_whisper`."""
    both = {"attention_heads": config.num_heads, "ffn_dim": config.ffn_dim}
    return {
        "num_mel_bins": config.input_dim,
        "d_model": config.dim,
        "encoder_layers": config.num_layers,
        "decoder_layers": config.decoder_layers,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()},
        "vocab_size": config.vocab_size,
        "max_target_positions": config.max_tokens,
        "max_source_positions": NUM_POSITIONS,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.inner_dropout,
    }


def read_openai_dims(dims: Mapping[str, int]) -> WhisperConfig:
    """The `dims` of OpenAI's checkpoints → ours.

    Raises:
        ConfigError: a variant that we do not have.
    """
    check_fixed(dims, {"n_audio_ctx": NUM_POSITIONS}, "Whisper")
    dim = _alike(dims, "n_audio_state", "n_text_state", 512)
    return WhisperConfig(
        input_dim=dims["n_mels"],
        dim=dim,
        num_layers=dims["n_audio_layer"],
        num_heads=_alike(dims, "n_audio_head", "n_text_head", 8),
        ffn_dim=4 * dim,
        decoder_layers=dims["n_text_layer"],
        vocab_size=dims["n_vocab"],
        max_tokens=dims["n_text_ctx"],
    )


def write_openai_dims(config: WhisperConfig) -> dict[str, int]:
    """The inverse of `read_openai_dims`.

    Raises:
        ConfigError: OpenAI's code has no such variant.
    """
    if config.ffn_dim != 4 * config.dim:
        raise ConfigError(f"OpenAI's Whisper has ffn_dim = 4 · dim only, got {config.ffn_dim} and dim={config.dim}")
    sides = {"state": config.dim, "head": config.num_heads}
    return {
        "n_mels": config.input_dim,
        "n_vocab": config.vocab_size,
        "n_audio_ctx": NUM_POSITIONS,
        "n_text_ctx": config.max_tokens,
        "n_audio_layer": config.num_layers,
        "n_text_layer": config.decoder_layers,
        **{f"n_{side}_{name}": value for side in ("audio", "text") for name, value in sides.items()},
    }


# --- the encoder alone --------------------------------------------------------------------------------------------------

_FEATURES = {"sampling_rate": 16000, "hop_length": 160, "n_fft": 400}
"""What `whisper_front` makes."""


def _read_folder(values: Mapping[str, Any], features: Mapping[str, Any]) -> WhisperConfig:
    check_fixed(features, _FEATURES, "Whisper")
    return read_whisper(values)


WHISPER = Foreign(
    name="whisper",
    prefixes=("model.encoder", "encoder"),
    read=_read_folder,
    write=write_whisper,
    features=lambda config: {
        **_FEATURES,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.input_dim,
        "chunk_length": 30,
        "padding_value": 0.0,
        "return_attention_mask": False,
    },
    table=lambda config: WHISPER_ENCODER,
    config=WhisperConfig,
    architecture="WhisperEncoder",
    front=lambda config, features: whisper_front(config.input_dim),
    heads={"model.decoder.*": "decoder", "decoder.*": "decoder", "proj_out.*": "decoder"},
    spare=lambda config: {"positions": frame_positions(NUM_POSITIONS, config.dim)},
    check=check_positions,
)
"""transformers' Whisper, of which the encoder is read, and written as a `WhisperEncoder`."""


def read(content: Any, where: str) -> tuple[WhisperConfig, Converted] | None:
    """Configuration and the encoder's weights of one of OpenAI's files; None if it is another toolkit's.

    Raises:
        CheckpointError: a key that no row knows, or positions that are not Whisper's.
        ConfigError: a variant that we lack.
    """
    if not isinstance(content, Mapping) or not {"dims", "model_state_dict"} <= set(content):
        return None
    inner, decoder = under_prefix(from_openai(content["model_state_dict"], where), "encoder")
    return read_openai_dims(content["dims"]), Converted(inner, {}, {"decoder": sorted(decoder)})


def front(config: WhisperConfig) -> FrontConfig:
    """The frames that it was trained on."""
    return whisper_front(config.input_dim)
