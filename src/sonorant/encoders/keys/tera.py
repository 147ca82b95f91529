"""s3prl's Mockingjay and TERA ↔ our `Tera`."""

from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import CheckpointError
from sonorant.encoders.convert import Converted, KeyTable, check_fixed
from sonorant.encoders.pickled import plain
from sonorant.encoders.tera import TeraConfig

__all__ = ["S3PRL", "front", "read"]

_THEIRS, _OURS = "encoder.layer.{}.", "stack.blocks.{}."
S3PRL = KeyTable(
    [
        ("input_representations.spec_transform.{}", "project.{}"),
        ("input_representations.LayerNorm.{}", "stack.norm.{}"),
        (_THEIRS + "attention.self.query.{}", _OURS + "attention.query_key_value.{}#0"),
        (_THEIRS + "attention.self.key.{}", _OURS + "attention.query_key_value.{}#1"),
        (_THEIRS + "attention.self.value.{}", _OURS + "attention.query_key_value.{}#2"),
        (_THEIRS + "attention.output.dense.{}", _OURS + "attention.output.{}"),
        (_THEIRS + "attention.output.LayerNorm.{}", _OURS + "attention_norm.{}"),
        (_THEIRS + "intermediate.dense.{}", _OURS + "ffn.0.{}"),
        (_THEIRS + "output.dense.{}", _OURS + "ffn.3.{}"),
        (_THEIRS + "output.LayerNorm.{}", _OURS + "ffn_norm.{}"),
    ]
)
"""The entry "Transformer" of their files (norm behind each part)."""


def read(content: Any, where: str) -> tuple[TeraConfig, Converted] | None:
    """Configuration and weights of one of their files; None if it is another toolkit's.

    Raises:
        CheckpointError: the file does not say how large its model is.
        ConfigError: a variant that we lack.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("Transformer"), Mapping):
        return None
    told = plain(content.get("Upstream_Config")) or (plain(content.get("Settings")) or {}).get("Config") or {}
    values = told.get("transformer") or told.get("mockingjay")
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} holds a Transformer without its configuration (Upstream_Config or Settings)")
    check_fixed(values, {"hidden_act": "gelu", "pre_layer_norm": False, "share_layer": False}, "s3prl")
    factor = values.get("downsample_rate", 1)
    width = content["Transformer"]["input_representations.spec_transform.weight"].shape[1]
    config = TeraConfig(
        input_dim=width // factor,
        factor=factor,
        dim=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        ffn_dim=values["intermediate_size"],
        dropout=values.get("hidden_dropout_prob", 0.1),
    )
    return config, S3PRL.to_ours(content["Transformer"], where)


def front(config: TeraConfig) -> None:
    """s3prl's log mel, whose statistics its files do not hold, is not known here."""
