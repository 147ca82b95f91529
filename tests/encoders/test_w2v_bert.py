"""w2v-BERT 2.0 keeps the contract, small, with and without its length adaptor."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.w2v_bert import W2vBert, w2v_bert_tiny

NARROW: dict[str, Any] = {"input_dim": 12, "dim": 16, "num_heads": 2, "ffn_dim": 24, "num_layers": 2, "kernel_size": 5}
CASES: dict[str, dict[str, Any]] = {
    "w2v_bert_600m": {**NARROW, "max_distance": 6, "max_ahead": 2},
    "w2v_bert_base": {**NARROW, "adapter_layers": 2, "adapter_ffn": True, "adapter_dim": 12, "position": "relative"},
    "w2v_bert_tiny": {"input_dim": 12, "position": "rotary", "adapter_layers": 1},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    export = name != "w2v_bert_base"
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=12, export=export)


def test_the_length_adaptor_thins_out_the_last_frames_alone() -> None:
    encoder = W2vBert(w2v_bert_tiny(adapter_layers=2, adapter_dim=32)).eval()
    layers = encoder(torch.randn(1, 50, 160), torch.tensor([50]), layers=True)
    assert [layer.values.shape[1:] for layer in layers] == [(50, 64), (50, 64), (13, 32)]
    assert layers[-1].frame_rate == encoder.frame_rate == 12.5


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="need adapter_layers"):
        w2v_bert_tiny(adapter_ffn=True)
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        w2v_bert_tiny(adapter_layers=1, adapter_dim=33)
