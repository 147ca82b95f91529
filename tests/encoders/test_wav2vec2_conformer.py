"""wav2vec 2.0 Conformers keep the contract, small."""

from typing import Any

import pytest
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.wav2vec2_conformer import wav2vec2_conformer_tiny

NARROW: dict[str, Any] = {
    # Few convolutions: an exported program carries one length each.
    "conv_layers": ((8, 10, 5), (16, 4, 4), (16, 4, 4), (16, 4, 4)),
    "dim": 16,
    "num_heads": 2,
    "ffn_dim": 32,
    "num_layers": 1,
    "kernel_size": 5,
}
CASES: dict[str, dict[str, Any]] = {
    "wav2vec2_conformer_large_rel_pos": NARROW,
    "wav2vec2_conformer_large_rope": {**NARROW, "num_layers": 2, "conv_norm": "group", "conv_bias": False},
    "wav2vec2_conformer_tiny": {"position": "none", "norm": "layer"},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    export = name == "wav2vec2_conformer_large_rel_pos"
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=0, export=export)


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="heads of an even width"):
        wav2vec2_conformer_tiny(dim=30, num_heads=2, position="rotary")
    with pytest.raises(ConfigError, match="position"):
        wav2vec2_conformer_tiny(position="shaw")
