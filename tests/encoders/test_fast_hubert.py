"""Fast-HuBERT's network keeps the contract, small."""

import pytest
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder, encoder_preset

CASES = {
    "fast_hubert_tiny": {},
    "fast_hubert_base": {
        "input_dim": 80, "local_dim": 16, "dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8,
        "position_groups": 4, "norm_first": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=80)


def test_forty_milliseconds_a_frame() -> None:
    encoder = build_encoder("fast_hubert_tiny")
    assert encoder.frame_rate == 25.0
    assert encoder.output_lengths(1003) == 248


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="as many"):
        encoder_preset("fast_hubert_tiny", kernels=(5,))
    with pytest.raises(ConfigError, match="must divide dim"):
        encoder_preset("fast_hubert_tiny", num_heads=5)
