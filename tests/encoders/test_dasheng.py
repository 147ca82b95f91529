"""Dasheng keeps the contract, reads its authors' names, and cuts long items."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.dasheng import build, dasheng_tiny
from sonorant.encoders.keys.dasheng import dasheng_table, read_dasheng

NARROW: dict[str, Any] = {
    "input_dim": 20,
    "patch": (20, 4),
    "stride": (20, 4),
    "dim": 16,
    "num_layers": 2,
    "num_heads": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "dasheng_tiny": {**NARROW, "ffn_dim": 24, "max_columns": 8},
    "dasheng_base": {**NARROW, "ffn_dim": 24},
    "dasheng_06b": {**NARROW, "ffn_dim": 24, "max_columns": 20},
    "dasheng_12b": {**NARROW, "ffn_dim": 24, "num_heads": 4, "max_columns": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20, export=name == "dasheng_tiny")


def test_published_sizes() -> None:
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in build_encoder(f"dasheng_{size}").parameters()) for size in ("base", "06b", "12b")
        ]
    assert [round(size / 1e6) for size in sizes] == [85, 630, 1134]
    assert build_encoder("dasheng_tiny").frame_rate == 25.0


def their_weights(dim: int = 16, rows: int = 2, columns: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes: dict[str, tuple[int, ...]] = {
        "init_bn.1.weight": (20,), "init_bn.1.bias": (20,), "init_bn.1.running_mean": (20,), "patch_embed.proj.bias": (dim,),
        "patch_embed.proj.weight": (dim, 1, 10, 4), "time_pos_embed": (1, dim, 1, columns),
        "freq_pos_embed": (1, dim, rows, 1), "norm.weight": (dim,), "norm.bias": (dim,), "front_end.0.mel_scale.fb": (3,),
    }  # fmt: skip
    for i in range(2):
        linear = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (24, dim), "mlp.fc2": (dim, 24)}
        for name, size in linear.items():
            sizes |= {f"blocks.{i}.{name}.weight": size, f"blocks.{i}.{name}.bias": size[:1]}
        for name in ("norm1", "norm2"):
            sizes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    weights = {name: 0.3 * torch.randn(size) for name, size in sizes.items()}
    return weights | {"init_bn.1.running_var": torch.rand(20) + 0.5, "init_bn.1.num_batches_tracked": torch.tensor(7)}


def their_frames(weights: dict[str, Tensor], mel: Tensor) -> Tensor:
    """Their encoder as the paper has it (section 2), step by step, on `mel (batch, band, frame)`; tokens row by row."""
    functional = torch.nn.functional
    w = weights
    norm = [w[f"init_bn.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    image = functional.conv2d(
        functional.batch_norm(mel, *norm)[:, None], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], (10, 4)
    )
    x = (image + w["time_pos_embed"][..., : image.shape[-1]] + w["freq_pos_embed"]).flatten(2).mT
    for i in range(2):
        block = {name.removeprefix(f"blocks.{i}."): tensor for name, tensor in w.items()}

        def layer(name: str, x: Tensor, block: dict[str, Tensor] = block) -> Tensor:
            return functional.linear(x, block[f"{name}.weight"], block[f"{name}.bias"])

        def normed(name: str, x: Tensor, block: dict[str, Tensor] = block) -> Tensor:
            return functional.layer_norm(x, (16,), block[f"{name}.weight"], block[f"{name}.bias"], 1e-6)

        query, key, value = layer("attn.qkv", normed("norm1", x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + layer("attn.proj", seen)
        x = x + layer("mlp.fc2", functional.gelu(layer("mlp.fc1", normed("norm2", x))))
    return functional.layer_norm(x, (16,), w["norm.weight"], w["norm.bias"], 1e-6)


def test_the_authors_weights() -> None:
    told = {
        "patch_size": [10, 4], "patch_stride": [10, 4], "embed_dim": 16, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5,
        "n_mels": 20, "target_length": 24, "pooling": "mean",
    }  # fmt: skip
    config = read_dasheng(told)
    weights = their_weights()
    found = dasheng_table(config).to_ours(weights)
    assert found.dropped == {"windows and mel bands, which are computed": ["front_end.0.mel_scale.fb"]}
    encoder = build(config).eval()
    encoder.load_state_dict(found.weights)
    mel = torch.randn(2, 20, 56)
    # Longer than 24 frames: stretches of their own.
    expected = torch.cat([
        their_frames(weights, part).unflatten(1, (2, -1)).transpose(1, 2).flatten(2) for part in mel.split(24, dim=-1)
    ], dim=1)  # fmt: skip
    own = encoder(mel.mT, torch.tensor([56, 56]))
    torch.testing.assert_close(own.values, expected, atol=1e-4, rtol=0)
    back = dasheng_table(config).to_theirs(encoder.state_dict())
    assert set(back) == set(weights) - {"front_end.0.mel_scale.fb"}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())


def test_a_batch_of_no_items() -> None:
    encoder = build(dasheng_tiny()).eval()
    assert encoder(torch.zeros(0, 1100, 64), torch.zeros(0, dtype=torch.long)).values.shape == (0, 275, 64)


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="pooling='token'"):
        read_dasheng({"pooling": "token"})
    with pytest.raises(ConfigError, match="overlap"):
        read_dasheng({"patch_stride": (64, 2)})
    assert dasheng_tiny().cut_long
