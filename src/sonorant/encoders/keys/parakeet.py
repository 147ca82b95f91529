"""Fast Conformers as transformers stores them (`ParakeetEncoder`) ↔ our Conformer: configuration and weights, both ways.

What differs beside names: queries, keys and values are three matrices there and one here; kernels of size 1 are
convolutions there and matrices here; sines and cosines of distances alternate there and stand in halves here; the front
end's last projection reads channel by channel there and band by band here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sonorant.core.errors import ConfigError
from sonorant.encoders.conformer import ConformerConfig, fastconformer_large
from sonorant.encoders.convert import Change, Foreign, KeyTable, Row, check_fixed, columns_turned
from sonorant.encoders.spectral import nemo_front

__all__ = ["PARAKEET", "PARAKEET_CTC", "parakeet_table"]

PER_HEAD = Change(lambda bias: bias.unsqueeze(1), lambda bias: bias.squeeze(1))
POINTWISE = Change(lambda kernel: kernel.squeeze(-1), lambda matrix: matrix.unsqueeze(-1))


def parakeet_table(config: ConformerConfig) -> KeyTable:
    """The rows for a configuration, whose sizes the front end's projection and the distances depend on."""
    channels = config.channels or min(config.dim, 256)
    by_band, halves = columns_turned(channels), columns_turned(config.dim // 2)
    rows: list[Row] = [
        ("subsampling.layers.0.{}", "subsampling.convs.0.0.{}"),
        ("subsampling.layers.2.{}", "subsampling.convs.1.0.{}"),
        ("subsampling.layers.3.{}", "subsampling.convs.1.1.{}"),
        ("subsampling.layers.5.{}", "subsampling.convs.2.0.{}"),
        ("subsampling.layers.6.{}", "subsampling.convs.2.1.{}"),
        ("subsampling.linear.weight", "subsampling.project.weight", by_band),
        ("subsampling.linear.bias", "subsampling.project.bias"),
        ("layers.{}.norm_feed_forward1.{}", "blocks.{}.first_ffn.0.{}"),
        ("layers.{}.feed_forward1.linear1.{}", "blocks.{}.first_ffn.1.{}"),
        ("layers.{}.feed_forward1.linear2.{}", "blocks.{}.first_ffn.4.{}"),
        ("layers.{}.norm_self_att.{}", "blocks.{}.attention_norm.{}"),
        ("layers.{}.self_attn.q_proj.{}", "blocks.{}.attention.query_key_value.{}#0"),
        ("layers.{}.self_attn.k_proj.{}", "blocks.{}.attention.query_key_value.{}#1"),
        ("layers.{}.self_attn.v_proj.{}", "blocks.{}.attention.query_key_value.{}#2"),
        ("layers.{}.self_attn.o_proj.{}", "blocks.{}.attention.output.{}"),
        ("layers.{}.self_attn.relative_k_proj.weight", "blocks.{}.attention.relative.project.weight", halves),
        ("layers.{}.self_attn.bias_u", "blocks.{}.attention.relative.content_bias", PER_HEAD),
        ("layers.{}.self_attn.bias_v", "blocks.{}.attention.relative.position_bias", PER_HEAD),
        ("layers.{}.norm_conv.{}", "blocks.{}.convolution.norm.{}"),
        ("layers.{}.conv.pointwise_conv1.weight", "blocks.{}.convolution.expand.weight", POINTWISE),
        ("layers.{}.conv.pointwise_conv1.bias", "blocks.{}.convolution.expand.bias"),
        ("layers.{}.conv.depthwise_conv.{}", "blocks.{}.convolution.depthwise.{}"),
        ("layers.{}.conv.norm.{}", "blocks.{}.convolution.inner_norm.{}"),
        ("layers.{}.conv.pointwise_conv2.weight", "blocks.{}.convolution.contract.weight", POINTWISE),
        ("layers.{}.conv.pointwise_conv2.bias", "blocks.{}.convolution.contract.bias"),
        ("layers.{}.norm_feed_forward2.{}", "blocks.{}.second_ffn.0.{}"),
        ("layers.{}.feed_forward2.linear1.{}", "blocks.{}.second_ffn.1.{}"),
        ("layers.{}.feed_forward2.linear2.{}", "blocks.{}.second_ffn.4.{}"),
        ("layers.{}.norm_out.{}", "blocks.{}.norm.{}"),
    ]
    return KeyTable(rows)


_FEATURES = {"sampling_rate": 16000, "hop_length": 160, "n_fft": 512, "win_length": 400, "preemphasis": 0.97}
"""What `nemo_front` makes."""


def _read(values: Mapping[str, Any], features: Mapping[str, Any]) -> ConformerConfig:
    check_fixed(features, _FEATURES, "Parakeet")
    values = values.get("encoder_config", values)
    check_fixed(
        values, {"hidden_act": "silu", "subsampling_conv_kernel_size": 3, "subsampling_conv_stride": 2}, "Parakeet"
    )
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


def _write(config: ConformerConfig) -> dict[str, Any]:
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


def _refuse(config: ConformerConfig) -> dict[str, Any]:
    raise ConfigError("an encoder without a head is written as model_type='parakeet_encoder'")


def _foreign(
    name: str, prefixes: tuple[str, ...], architecture: str, write: Callable[[ConformerConfig], dict[str, Any]]
) -> Foreign:
    return Foreign(
        name=name,
        prefixes=prefixes,
        read=_read,
        write=write,
        features=lambda config: {},
        table=parakeet_table,
        config=ConformerConfig,
        architecture=architecture,
        front=lambda config, features: nemo_front(config.input_dim),
        heads={"ctc_head.*": "CTC head: see load_recogniser"},
        ctc="ParakeetForCTC",
        head="ctc_head",
        spare=lambda config: {},
    )


PARAKEET = _foreign("parakeet_encoder", (), "ParakeetEncoder", _write)
PARAKEET_CTC = _foreign("parakeet_ctc", ("encoder",), "ParakeetForCTC", _refuse)
