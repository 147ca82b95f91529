"""SEW keeps the contract, small; an odd item ends in zeros, alone and in a batch."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.sew import Sew, SewConfig, sew_toy

NARROW: dict[str, Any] = {
    # Few convolutions: an exported program carries one length each.
    "conv_layers": ((8, 10, 5), (16, 4, 4), (16, 1, 1), (16, 4, 4), (24, 4, 4)),
    "dim": 16,
    "num_heads": 2,
    "ffn_dim": 32,
    "num_layers": 2,
    "position_groups": 2,
    "position_kernel": 5,
}
CASES: dict[str, dict[str, Any]] = {
    "sew_tiny": {**NARROW, "dim": 24},
    "sew_small": NARROW,
    "sew_mid": {**NARROW, "num_layers": 1, "squeeze": 3, "position_kernel": 4, "conv_norm": "layer"},
    "sew_toy": {},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    export = name == "sew_mid"  # an odd factor, an even kernel
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=0, export=export)


def test_an_odd_item_ends_in_a_frame_of_zeros() -> None:
    torch.manual_seed(0)
    encoder = Sew(sew_toy()).eval()
    lengths = torch.tensor([400 + 320 * 12, 400 + 320 * 9, 400 + 320 * 8])
    out = encoder(torch.randn(3, 5000), lengths)
    assert out.lengths.tolist() == [13, 10, 9]
    last = [out.values[item, size - 1].abs().max().item() for item, size in enumerate(out.lengths.tolist())]
    assert last[0] == last[2] == 0
    assert last[1] > 0


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="position_groups must divide dim"):
        SewConfig(dim=60, num_heads=6, position_groups=16)
    with pytest.raises(ConfigError, match="squeeze must be at least 1"):
        sew_toy(squeeze=0)
