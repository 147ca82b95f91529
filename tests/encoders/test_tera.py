"""Mockingjay and TERA keep the contract and read s3prl's checkpoints."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.checkpoint import load_weights
from sonorant.core.errors import ConfigError, DataError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.tera import read
from sonorant.encoders.tera import tera

SMALL: dict[str, Any] = {"input_dim": 20, "num_layers": 2, "dim": 16, "num_heads": 2, "ffn_dim": 24}
CASES: dict[str, dict[str, Any]] = {
    "tera": SMALL,
    "tera_medium": {**SMALL, "norm_first": True},
    "tera_large": {**SMALL, "position": "learned", "max_frames": 100},
    "tera_tiny": {"input_dim": 20, "dim": 16, "causal": True},
    "mockingjay": SMALL,
    "mockingjay_large": {**SMALL, "factor": 2},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(
        lambda: build_encoder(name, **CASES[name]),
        input_dim=20,
        # Positions that were learned for so many frames make a branch on the length.
        dynamic=CASES[name].get("position") != "learned",
    )


def test_published_sizes() -> None:
    # 21.3 M and 21.4 M: the papers' counts without the head that is thrown away.
    assert sum(p.numel() for p in build_encoder("tera").parameters()) == 80 * 768 + 768 + 2 * 768 + 3 * 7087872
    assert build_encoder("mockingjay", **SMALL).frame_rate == pytest.approx(100 / 3)


def test_learned_positions_end() -> None:
    encoder = build_encoder("tera_tiny", input_dim=5, position="learned", max_frames=10)
    encoder(torch.zeros(1, 10, 5), torch.tensor([10]))
    with pytest.raises(DataError, match="11 frames and position='learned' knows 10"):
        encoder(torch.zeros(1, 11, 5), torch.tensor([11]))


@pytest.mark.parametrize("last", (9, 7))
def test_causal_frames_know_nothing_of_what_comes(last: int) -> None:
    encoder: Any = build_encoder("tera_tiny", input_dim=5, causal=True)
    values, lengths = torch.randn(2, 9, 5), torch.tensor([9, last])
    changed = values.clone()
    changed[:, 5:] += 1
    before, after = encoder(values, lengths).values, encoder(changed, lengths).values
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5], after[:, 5], atol=1e-3)
    for weights in encoder.attention_maps(values, lengths):
        assert weights.triu(1).abs().max() == 0
    free: Any = build_encoder("tera_tiny", input_dim=5)
    assert not torch.allclose(free(values, lengths).values[:, :5], free(changed, lengths).values[:, :5], atol=1e-3)


def test_s3prl_checkpoints() -> None:
    """Against transformers' BERT, whose layers s3prl's are, under s3prl's names."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        attn_implementation="eager",
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    )
    bert = transformers.models.bert.modeling_bert.BertEncoder(config).eval()
    project, norm = torch.nn.Linear(20, 16), torch.nn.LayerNorm(16, eps=1e-12)
    for module in (bert, project, norm):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    weights = {f"encoder.{name}": tensor for name, tensor in bert.state_dict().items()}
    weights |= {f"input_representations.spec_transform.{n}": t for n, t in project.state_dict().items()}
    weights |= {f"input_representations.LayerNorm.{n}": t for n, t in norm.state_dict().items()}
    encoder = build_encoder("tera", **SMALL).eval()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    found = read({"Transformer": weights, "Upstream_Config": {"transformer": sizes}}, "reference")
    assert found is not None
    assert found[0] == encoder.config
    load_weights(encoder, found[1].weights)

    values = torch.randn(1, 30, 20)
    place = torch.arange(30.0)[:, None] / 10000 ** (2 * (torch.arange(16) // 2) / 16)
    table = torch.where(torch.arange(16) % 2 == 0, place.sin(), place.cos())
    hidden = norm(project(values) + table)
    for own, layer in zip(encoder(values, torch.tensor([30]), layers=True)[1:], bert.layer, strict=True):
        hidden = layer(hidden)
        torch.testing.assert_close(own.values, hidden, atol=1e-4, rtol=1e-4)


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        tera(num_heads=5)
