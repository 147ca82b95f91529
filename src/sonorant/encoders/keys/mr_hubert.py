"""fairseq's `multires_hubert` models ↔ our `MrHubert`, as far as its public code tells."""

import ast
from collections.abc import Mapping
from typing import Any

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.convert import Converted, KeyTable, Row, check_fixed
from sonorant.encoders.keys import fairseq
from sonorant.encoders.mr_hubert import MrHubertConfig

__all__ = ["front", "mr_hubert_table", "read"]

_BASE = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"


def mr_hubert_table(config: MrHubertConfig) -> KeyTable:
    """The rows for a configuration, whose number of stacks says which of theirs is which of ours."""
    depth = len(config.factors)
    theirs = [*(f"encoders.{i}" for i in range(depth)), "middle_encoder", *(f"decoders.{i}" for i in range(depth))]
    rows: list[Row] = [_moved(row, "", "front.") for row in fairseq.TABLE.rows if not row[0].startswith("encoder.")]
    for index, name in enumerate(theirs):
        own = [row for row in fairseq.TABLE.rows if row[0].startswith("encoder.")]
        rows += [_moved(row, name + row[0].removeprefix("encoder"), f"stacks.{index}", "stack") for row in own]
    for their, ours in (("downsample_modules.{}.", "downs.{}."), ("upsample_modules.{}.", "ups.{}.")):
        rows += [
            (their + "upsample_conv.0.weight", ours + "up_conv.weight"),
            (their + "upsample_conv.2.{}", ours + "up_norm.{}"),
            (their + "downsample_conv.0.weight", ours + "down_conv.weight"),
            (their + "downsample_conv.2.{}", ours + "down_norm.{}"),
        ]
    return KeyTable(
        rows,
        kept={"mask_emb": "mask"},
        dropped={
            "final_projs.*": "projection of pre-training",
            "final_proj.*": "projection of pre-training",
            "target_glus.*": "projection of pre-training",
            "label_embs_concat.*": "units of pre-training",
            "proj.*": "head of fine-tuning",
        },
    )


def _moved(row: Row, theirs: str, ours: str, instead: str = "") -> Row:
    """A row of a flat model under other names."""
    moved = (theirs or row[0], ours + row[1].removeprefix(instead))
    return (*moved, row[2]) if len(row) == 3 else moved


def read(content: Any, where: str) -> tuple[MrHubertConfig, Converted] | None:
    """Configuration and weights of a file's content; None if it is another kind of model.

    Raises:
        CheckpointError: keys that the table does not know.
        ConfigError: a variant that we lack.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return None
    weights = fairseq.inner_weights(dict(content["model"]))
    if not any(name.startswith("middle_encoder.") for name in weights):
        return None
    model, task = fairseq.model_options(content)
    config = _config(model, task, weights)
    return config, mr_hubert_table(config).to_ours(weights, where)


def _config(model: Mapping[str, Any], task: Mapping[str, Any], weights: Mapping[str, Any]) -> MrHubertConfig:
    check_fixed(model, {"activation_fn": "gelu", "layer_type": "transformer"}, "multires_hubert")
    ratios = [int(number) for number in _listed(model.get("label_rate_ratios"), "label_rate_ratios")]
    if not ratios or len(ratios) % 2 or any(ratio != 1 for ratio in ratios[::2]):
        raise ConfigError(f"label_rate_ratios must be pairs of 1 and a whole number, got {ratios}")
    factors = tuple(ratios[1::2])
    override = model.get("override_encoder_layers") or ""
    layers = _listed(override, "override_encoder_layers") if override else []
    # Their decoders are counted from the outermost and run from the innermost.
    layers = layers[: len(factors) + 1] + layers[: len(factors) : -1]
    return MrHubertConfig(
        sample_rate=task.get("sample_rate", 16000),
        normalise=bool(task.get("normalize", False)),
        conv_layers=fairseq.conv_layers(model.get("conv_feature_layers", _BASE)),
        conv_norm="group" if model.get("extractor_mode", "default") == "default" else "layer",
        conv_bias=model.get("conv_bias", False),
        local_norm="layer_norm.weight" in weights,
        dim=model.get("encoder_embed_dim", 768),
        layers=tuple(layers) or (int(model.get("encoder_layers", 2)),) * (2 * len(factors) + 1),
        factors=factors,
        plain_sampling=model.get("use_plain_updownsample", False),
        sampler_kernel=model.get("conv_adapator_kernal", 7),
        num_heads=model.get("encoder_attention_heads", 12),
        ffn_dim=model.get("encoder_ffn_embed_dim", 3072),
        norm_first=model.get("layer_norm_first", False),
        position_kernel=model.get("conv_pos", 128),
        position_groups=model.get("conv_pos_groups", 16),
        dropout=model.get("dropout", 0.1),
        attention_dropout=model.get("attention_dropout", 0.1),
        inner_dropout=model.get("activation_dropout", 0.0),
        layer_drop=model.get("encoder_layerdrop", 0.0),
    )


def _listed(value: Any, name: str) -> list[int]:
    """A list of whole numbers, or its text."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
        return [int(number) for number in found]
    except (SyntaxError, TypeError, ValueError):
        raise CheckpointError(f"{name} must list whole numbers, got {value!r}") from None


def front(config: MrHubertConfig) -> None:
    """These take waveforms."""
