"""BEATs keeps the contract and says with its authors' weights what its definition says."""

import math
from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import Tensor

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.core.types import Features
from sonorant.encoders.beats import Beats, BeatsConfig, beats_tiny, build
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.beats import beats_table, read_beats, with_shared_bias, write_beats

NARROW: dict[str, Any] = {
    "input_dim": 20, "patch": (8, 8), "patch_dim": 12, "dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24,
    "position_kernel": 8, "position_groups": 2, "num_buckets": 16, "max_distance": 10,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {"beats_tiny": {**NARROW, "join": "mean"}, "beats_base": NARROW}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20, export=name == "beats_base")


def test_published_size() -> None:
    with torch.device("meta"):
        encoder = build_encoder("beats_base")
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e5) == 903  # 90 M (table 1)
    assert (encoder.frame_rate, encoder.dim, encoder.output_lengths(998)) == (6.25, 8 * 768, 62)


CONFIG = {
    "input_patch_size": 4, "embed_dim": 12, "encoder_embed_dim": 16, "encoder_layers": 3, "encoder_attention_heads": 4,
    "encoder_ffn_embed_dim": 24, "deep_norm": True, "num_buckets": 16, "max_distance": 12, "conv_pos": 6,
    "conv_pos_groups": 4, "relative_position_embedding": True, "gru_rel_pos": True, "layer_norm_first": False,
    "dropout": 0.0, "attention_dropout": 0.0, "encoder_layerdrop": 0.0, "layer_wise_gradient_decay_ratio": 0.6,
    "finetuned_model": False,
}  # fmt: skip


def their_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (12, 1, 4, 4), "layer_norm.weight": (12,), "layer_norm.bias": (12,),
        "post_extract_proj.weight": (16, 12), "post_extract_proj.bias": (16,), "encoder.pos_conv.0.bias": (16,),
        "encoder.pos_conv.0.weight_g": (1, 1, 6), "encoder.pos_conv.0.weight_v": (16, 4, 6),
        "encoder.layer_norm.weight": (16,), "encoder.layer_norm.bias": (16,),
    }  # fmt: skip
    for i in range(3):
        layer = f"encoder.layers.{i}"
        linear = {f"self_attn.{part}_proj": (16, 16) for part in ("q", "k", "v", "out")}
        linear |= {"fc1": (24, 16), "fc2": (16, 24), "self_attn.grep_linear": (8, 4)}
        for name, size in linear.items():
            sizes |= {f"{layer}.{name}.weight": size, f"{layer}.{name}.bias": size[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            sizes |= {f"{layer}.{name}.weight": (16,), f"{layer}.{name}.bias": (16,)}
        sizes[f"{layer}.self_attn.grep_a"] = (1, 4, 1, 1)
        sizes[f"{layer}.self_attn.relative_attention_bias.weight"] = (16, 4)
    weights = {name: 0.4 * torch.randn(size) for name, size in sizes.items()}
    return with_shared_bias(weights, read_beats(CONFIG))


def bucket(distance: int) -> int:
    """Of key − query: 8 on each side, the near 4 apart, the far ones by their logarithm up to 12."""
    side, size = (8 if distance > 0 else 0), abs(distance)
    far = min(7, 4 + int(math.log(max(size, 1) / 4) / math.log(12 / 4) * 4))
    return side + (size if size < 4 else far)


def their_tokens(w: dict[str, Tensor], mel: Tensor) -> list[Tensor]:
    """Their encoder as paper and code define it, one item `(frame, band)`, with every distance's bias written out."""
    functional = torch.nn.functional

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    patches = functional.conv2d(mel[None, None], w["patch_embedding.weight"], stride=4).flatten(2).mT
    x = linear("post_extract_proj", norm("layer_norm", patches))
    direction = w["encoder.pos_conv.0.weight_v"]
    kernel = w["encoder.pos_conv.0.weight_g"] * direction / direction.norm(dim=(0, 1), keepdim=True)
    placed = functional.conv1d(x.mT, kernel, w["encoder.pos_conv.0.bias"], padding=3, groups=4).mT[:, :-1]
    x = norm("encoder.layer_norm", x + functional.gelu(placed))
    count, results = x.shape[1], [x]
    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    bias = torch.stack([torch.stack([table[bucket(key - query)] for key in range(count)]) for query in range(count)])
    for i in range(3):
        layer = f"encoder.layers.{i}"
        query, key, value = (
            linear(f"{layer}.self_attn.{part}_proj", x).unflatten(-1, (4, 4)).transpose(1, 2) for part in "qkv"
        )
        gates = linear(f"{layer}.self_attn.grep_linear", query).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        gate = gates[..., :1] * (gates[..., 1:] * w[f"{layer}.self_attn.grep_a"] - 1) + 2
        scores = query @ key.mT / 2 + gate * bias.permute(2, 0, 1)
        seen = linear(f"{layer}.self_attn.out_proj", (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        x = norm(f"{layer}.self_attn_layer_norm", x * 6**0.25 + seen)
        fed = linear(f"{layer}.fc2", functional.gelu(linear(f"{layer}.fc1", x)))
        x = norm(f"{layer}.final_layer_norm", x * 6**0.25 + fed)
        results.append(x)
    return results


def test_the_authors_weights() -> None:
    config = read_beats(CONFIG)
    weights = their_weights()
    found = beats_table(config).to_ours(weights | {"predictor.weight": torch.zeros(1)})
    assert sorted(found.dropped) == ["head of a classifier of sounds", "the first layer's, once more"]
    encoder = build(BeatsConfig(**{**vars(config), "input_dim": 20})).eval()
    encoder.load_state_dict(found.weights)
    mel, lengths = torch.randn(2, 43, 20), torch.tensor([43, 30])
    outputs = encoder(mel, lengths, layers=True)
    assert outputs[-1].lengths.tolist() == [10, 7]
    for item, length in enumerate(lengths.tolist()):
        for own, expected in zip(outputs, their_tokens(weights, mel[item, :length]), strict=True):
            columns = length // 4
            tokens = own.values[item, :columns].reshape(-1, 16)
            torch.testing.assert_close(tokens, expected[0], atol=1e-4, rtol=0)


def test_there_and_back() -> None:
    config, weights = read_beats(CONFIG), their_weights()
    table = beats_table(config)
    back = with_shared_bias(table.to_theirs(table.to_ours(weights).weights), config)
    assert set(back) == set(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())
    assert read_beats(write_beats(config)) == config
    with pytest.raises(CheckpointError, match=r"no rule for 1 keys, such as encoder.layers.0.fc3.weight"):
        table.to_ours(weights | {"encoder.layers.0.fc3.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match="layer_norm_first=True"):
        read_beats({"layer_norm_first": True})


def test_deep_norm_begins_small() -> None:
    torch.manual_seed(0)
    block = Beats(beats_tiny(num_layers=8, dim=128)).blocks[0]
    query, key, value = block.attention.query_key_value.weight.detach().chunk(3)
    deviation = (2 / 256) ** 0.5
    assert abs(float(query.std()) / deviation - 1) < 0.05
    assert abs(float(key.std()) / deviation - 1) < 0.05
    assert abs(float(value.std()) / (deviation * 64**-0.25) - 1) < 0.05
    assert block.residual_scale == 2.0


def test_what_stands_between_blocks_sees_columns() -> None:
    torch.manual_seed(0)
    encoder = Beats(beats_tiny(input_dim=48)).eval()
    values, lengths = torch.randn(2, 100, 48), torch.tensor([100, 60])
    embedded = encoder.embed(encoder.local(values, lengths))
    seen = []

    def look(index: int, features: Features) -> Features:
        seen.append((index, features.values.shape, features.lengths.tolist()))
        return features

    plain = encoder.context(embedded)
    torch.testing.assert_close(encoder.context(embedded, between=look).values, plain.values, atol=1e-6, rtol=0)
    assert seen == [(0, (2, 6, 192), [6, 3]), (1, (2, 6, 192), [6, 3])]


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        beats_tiny(num_heads=5)
