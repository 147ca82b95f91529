"""What transformers' families with wav2vec 2.0's front end have in common ↔ our `WaveformFront`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError
from sonorant.encoders.convert import Row
from sonorant.encoders.wav2vec2 import Wav2Vec2Config
from sonorant.encoders.waveform_front import WaveformFrontConfig

__all__ = ["CONV_ROWS", "FEATURE_FIELDS", "read_convs", "read_front", "write_convs", "write_features", "write_front"]

CONV_ROWS: list[Row] = [
    ("feature_extractor.conv_layers.{}.layer_norm.weight", "front.convs.convs.{}.scale"),
    ("feature_extractor.conv_layers.{}.layer_norm.bias", "front.convs.convs.{}.shift"),
    ("feature_extractor.conv_layers.{}.conv.{}", "front.convs.convs.{}.{}"),
]
FEATURE_FIELDS: dict[str, Any] = {"feature_size": 1, "padding_value": 0.0}
"""What their `preprocessor_config.json` must say."""
_CONVS = ("conv_dim", "conv_kernel", "conv_stride")


def read_convs(values: Mapping[str, Any], defaults: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Their three lists as (channels, kernel, stride) of each convolution.

    Raises:
        ConfigError: the lists are not equally long, or a number in them is below 1.
    """
    columns = [values.get(name, column) for name, column in zip(_CONVS, zip(*defaults, strict=True), strict=True)]
    if len({len(column) for column in columns}) > 1:
        raise ConfigError(f"{', '.join(_CONVS)} must be equally long, got {[len(column) for column in columns]}")
    for name, column in zip(_CONVS, columns, strict=True):
        at_least(f"{name}'s smallest", min(column, default=1), 1)
    return tuple(zip(*columns, strict=True))


def write_convs(layers: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """The inverse of `read_convs`."""
    columns = zip(*layers, strict=True)
    return {name: list(column) for name, column in zip(_CONVS, columns, strict=True)} | {
        "num_feat_extract_layers": len(layers)
    }


def read_front(
    values: Mapping[str, Any], features: Mapping[str, Any], defaults: Sequence[tuple[int, int, int]]
) -> dict[str, Any]:
    """Fields of `WaveformFrontConfig` from their `config.json` and `preprocessor_config.json`."""
    return {
        "sample_rate": features.get("sampling_rate", 16000),
        # Their class normalises unless it is told not to; a folder without the file says nothing.
        "normalise": bool(features) and features.get("do_normalize", True),
        "conv_layers": read_convs(values, defaults),
        "conv_norm": values.get("feat_extract_norm", "group"),
        "conv_bias": values.get("conv_bias", False),
        "dim": values.get("hidden_size", 768),
        "num_heads": values.get("num_attention_heads", 12),
        "ffn_dim": values.get("intermediate_size", 3072),
        "dropout": float(values.get("hidden_dropout", 0.1)),
        "layer_drop": float(values.get("layerdrop", 0.1)),
    }


def write_front(config: WaveformFrontConfig, kind: str) -> dict[str, Any]:
    """The same fields in their words.

    Raises:
        ConfigError: they lack the variant.
    """
    if config.conv_norm == "none" or not config.local_norm:
        raise ConfigError(f"transformers' {kind} has conv_norm='group' or 'layer' and local_norm=True only")
    return write_convs(config.conv_layers) | {
        "feat_extract_norm": config.conv_norm,
        "conv_bias": config.conv_bias,
        "hidden_size": config.dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "hidden_dropout": config.dropout,
        "layerdrop": config.layer_drop,
    }


def write_features(config: WaveformFrontConfig | Wav2Vec2Config) -> dict[str, Any]:
    """Their `preprocessor_config.json`."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": config.normalise,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # Their group norm runs over the padding whatever the mask says, and such models were trained without one.
        "return_attention_mask": config.conv_norm == "layer",
        "sampling_rate": config.sample_rate,
    }
