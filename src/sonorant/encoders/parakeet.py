"""Fast Conformers as transformers stores them (`ParakeetEncoder`) ↔ our Conformer: configuration and weights, both ways.

What differs beside names: queries, keys and values are three matrices there and one here; kernels of size 1 are
convolutions there and matrices here; sines and cosines of distances alternate there and stand in halves here; the front
end's last projection reads channel by channel there and band by band here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from sonorant.core.checkpoint import rename_keys
from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.conformer import ConformerConfig, fastconformer_large

__all__ = ["PARAKEET_KEYS", "from_parakeet", "from_parakeet_config", "to_parakeet", "to_parakeet_config"]

Weights = dict[str, Shaped[Tensor, "..."]]

PARAKEET_KEYS: list[tuple[str, str]] = [
    ("subsampling.layers.0.{}", "subsampling.convs.0.0.{}"),
    ("subsampling.layers.2.{}", "subsampling.convs.1.0.{}"),
    ("subsampling.layers.3.{}", "subsampling.convs.1.1.{}"),
    ("subsampling.layers.5.{}", "subsampling.convs.2.0.{}"),
    ("subsampling.layers.6.{}", "subsampling.convs.2.1.{}"),
    ("subsampling.linear.{}", "subsampling.project.{}"),
    ("layers.{}.norm_feed_forward1.{}", "blocks.{}.first_ffn.0.{}"),
    ("layers.{}.feed_forward1.linear1.{}", "blocks.{}.first_ffn.1.{}"),
    ("layers.{}.feed_forward1.linear2.{}", "blocks.{}.first_ffn.4.{}"),
    ("layers.{}.norm_self_att.{}", "blocks.{}.attention_norm.{}"),
    ("layers.{}.self_attn.q_proj.{}", "blocks.{}.attention.query_key_value.{}#0"),
    ("layers.{}.self_attn.k_proj.{}", "blocks.{}.attention.query_key_value.{}#1"),
    ("layers.{}.self_attn.v_proj.{}", "blocks.{}.attention.query_key_value.{}#2"),
    ("layers.{}.self_attn.o_proj.{}", "blocks.{}.attention.output.{}"),
    ("layers.{}.self_attn.relative_k_proj.weight", "blocks.{}.attention.relative.project.weight"),
    ("layers.{}.self_attn.bias_u", "blocks.{}.attention.relative.content_bias"),
    ("layers.{}.self_attn.bias_v", "blocks.{}.attention.relative.position_bias"),
    ("layers.{}.norm_conv.{}", "blocks.{}.convolution.norm.{}"),
    ("layers.{}.conv.pointwise_conv1.{}", "blocks.{}.convolution.expand.{}"),
    ("layers.{}.conv.depthwise_conv.{}", "blocks.{}.convolution.depthwise.{}"),
    ("layers.{}.conv.norm.{}", "blocks.{}.convolution.inner_norm.{}"),
    ("layers.{}.conv.pointwise_conv2.{}", "blocks.{}.convolution.contract.{}"),
    ("layers.{}.norm_feed_forward2.{}", "blocks.{}.second_ffn.0.{}"),
    ("layers.{}.feed_forward2.linear1.{}", "blocks.{}.second_ffn.1.{}"),
    ("layers.{}.feed_forward2.linear2.{}", "blocks.{}.second_ffn.4.{}"),
    ("layers.{}.norm_out.{}", "blocks.{}.norm.{}"),
]
"""(theirs, ours); `{}` is one part of a name, the same on both sides, and `#i` the i-th part of a joined matrix."""

_POINTWISE = re.compile(r".*\.convolution\.(expand|contract)\.weight")
_POSITION_BIAS = re.compile(r".*\.relative\.(content|position)_bias")
_JOINED = re.compile(r"(.*\.query_key_value\.\w+)#(\d)")


def from_parakeet_config(values: Mapping[str, Any]) -> ConformerConfig:
    """Our configuration for the encoder's part of a `config.json` of transformers (keys it leaves out: their defaults).

    Raises:
        ConfigError: a variant that we do not have.
    """
    fixed = {"hidden_act": "silu", "subsampling_conv_kernel_size": 3, "subsampling_conv_stride": 2}
    for name, ours in fixed.items():
        if values.get(name, ours) != ours:
            raise ConfigError(f"a Parakeet encoder with {name}={values[name]!r} is not known here, only {ours!r}")
    bias = values.get("attention_bias", True)
    if values.get("convolution_bias", True) != bias:
        raise ConfigError("attention_bias and convolution_bias must be the same, or there is no name for it here")
    return fastconformer_large(
        input_dim=values.get("num_mel_bins", 80),
        factor=values.get("subsampling_factor", 8),
        channels=values.get("subsampling_conv_channels", 256),
        dim=values.get("hidden_size", 1024),
        num_layers=values.get("num_hidden_layers", 24),
        num_heads=values.get("num_attention_heads", 8),
        ffn_dim=values.get("intermediate_size", 4096),
        kernel_size=values.get("conv_kernel_size", 9),
        dropout=float(values.get("dropout", 0.1)),
        scale_input=values.get("scale_input", True),
        bias=bias,
        norm="batch",
    )


def to_parakeet_config(config: ConformerConfig) -> dict[str, Any]:
    """Keyword arguments of transformers' `ParakeetEncoderConfig` for one of our configurations.

    Raises:
        ConfigError: transformers has no such variant.
    """
    needed = {"subsampling": "depthwise", "position": "relative", "norm": "batch", "causal": False}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise ConfigError(
                f"transformers has this encoder with {name}={value!r} only, got {getattr(config, name)!r}"
            )
    return {
        "num_mel_bins": config.input_dim,
        "subsampling_factor": config.factor,
        "subsampling_conv_channels": config.channels or min(config.dim, 256),
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_dim,
        "conv_kernel_size": config.kernel_size,
        "scale_input": config.scale_input,
        "attention_bias": config.bias,
        "convolution_bias": config.bias,
        **dict.fromkeys(("dropout", "activation_dropout", "attention_dropout"), config.dropout),
    }


def from_parakeet(weights: Mapping[str, Tensor], config: ConformerConfig, where: str = "the checkpoint") -> Weights:
    """A `ParakeetEncoder`'s state dict under our names and in our shapes.

    Raises:
        CheckpointError: a key that the table does not know, or a matrix without its companions.
    """
    renamed = rename_keys(weights, _rules(PARAKEET_KEYS), where)
    ours: Weights = {}
    for name, tensor in renamed.items():
        joined = _JOINED.fullmatch(name)
        if not joined:
            ours[name] = _to_ours(name, tensor, config)
        elif joined[2] == "0":
            parts = [renamed.get(f"{joined[1]}#{index}") for index in range(3)]
            if any(part is None for part in parts):
                raise CheckpointError(f"{where}: '{joined[1]}' needs queries, keys and values, and one is missing")
            ours[joined[1]] = torch.cat(parts)  # type: ignore[arg-type]
    return ours


def to_parakeet(weights: Mapping[str, Tensor], config: ConformerConfig) -> Weights:
    """The state dict of one of our Conformers under the names and in the shapes of transformers; inverts `from_parakeet`."""
    parts: Weights = {}
    for name, tensor in weights.items():
        if ".query_key_value." in name:
            parts |= {f"{name}#{index}": part.clone() for index, part in enumerate(tensor.chunk(3))}
        else:
            parts[name] = _to_theirs(name, tensor, config)
    return rename_keys(parts, _rules([(ours, theirs) for theirs, ours in PARAKEET_KEYS]), "this Conformer")


def _rules(table: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Regular expressions and replacements of a table of `{}` names."""
    rules = []
    for old, new in table:
        pattern = re.escape(old).replace(r"\{\}", r"([^.#]+)")
        for number in range(1, new.count("{}") + 1):
            new = new.replace("{}", f"\\g<{number}>", 1)
        rules.append((pattern, new))
    return rules


def _to_ours(name: str, tensor: Tensor, config: ConformerConfig) -> Tensor:
    if name == "subsampling.project.weight":
        return _turned(tensor, config.channels or min(config.dim, 256))
    if name.endswith("relative.project.weight"):
        return _turned(tensor, config.dim // 2)
    if _POINTWISE.fullmatch(name):
        return tensor.squeeze(-1)
    return tensor.unsqueeze(1) if _POSITION_BIAS.fullmatch(name) else tensor


def _to_theirs(name: str, tensor: Tensor, config: ConformerConfig) -> Tensor:
    if name == "subsampling.project.weight":
        return _turned(tensor, tensor.shape[1] // (config.channels or min(config.dim, 256)))
    if name.endswith("relative.project.weight"):
        return _turned(tensor, 2)
    if _POINTWISE.fullmatch(name):
        return tensor.unsqueeze(-1)
    return tensor.squeeze(1) if _POSITION_BIAS.fullmatch(name) else tensor


def _turned(matrix: Tensor, rows: int) -> Tensor:
    """Columns that count (row, column) of a table, counted by column first."""
    return matrix.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1)
