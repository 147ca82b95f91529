"""NPC's last layer is blind to the frames in its middle, and sees all others within its reach."""

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.npc import npc

CASES = {
    "npc": {"dim": 24, "input_dim": 20},
    "npc_tiny": {"dim": 24, "input_dim": 20, "norm": "batch", "residual": False},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20)


@pytest.mark.parametrize("mask_size", [1, 3, 5])
@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
def test_output_ignores_inputs_within_its_mask(mask_size: int, norm: str) -> None:
    """Finite differences: each input frame is moved, one after another."""
    torch.manual_seed(0)
    encoder = build_encoder("npc", dim=16, input_dim=5, mask_size=mask_size, norm=norm).eval().double()
    lengths, middle = torch.tensor([41]), 20
    values = torch.randn(1, 41, 5, dtype=torch.float64)
    moved = values + torch.eye(41)[:, :, None] * torch.randn(5)  # item i: frame i is another
    outputs = encoder(moved, lengths.expand(41), layers=True)
    whole = encoder(values, lengths, layers=True)
    changes = (outputs[-1].values[:, middle] - whole[-1].values[:, middle]).abs().amax(1)
    reach = encoder.receptive_field // 2
    unseen = range(middle - mask_size // 2, middle + mask_size // 2 + 1)
    for frame, change in enumerate(changes.tolist()):
        if frame in unseen or abs(frame - middle) > reach:
            assert change < 1e-13, f"frame {frame} reaches the output at {middle}"
        else:
            assert change > 1e-9, f"frame {frame} should be seen"
    # The block before sees its own frame: the features for what follows.
    assert (outputs[-2].values[middle, middle] - whole[-2].values[0, middle]).abs().max() > 0


def test_blind_while_training_too() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("npc_tiny", dim=16, input_dim=5).train()
    values = torch.randn(1, 41, 5, requires_grad=True)
    encoder(values, torch.tensor([41])).values[0, 20].square().sum().backward()
    gradient = values.grad[0].abs().sum(1)
    assert not gradient[18:23].any()
    assert gradient[[17, 23]].all()


def test_reach_is_the_papers() -> None:
    assert build_encoder("npc", dim=8).receptive_field == 23


def test_norms_over_time_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm"):
        npc(norm="group")
    with pytest.raises(ConfigError, match="kernel_size must exceed"):
        build_encoder("npc", num_blocks=6)
