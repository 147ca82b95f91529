"""NPC's last layer is blind to the frames in its middle, and sees all others within its reach."""

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import Tensor, nn

from sonorant.core.checkpoint import load_weights
from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.npc import from_npc
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


class _Reference(nn.Module):
    """The authors' network under their names, from the paper's figure 1 and section 2.2."""

    def __init__(self, input_dim: int, dim: int, num_blocks: int, kernel_size: int, mask_size: int) -> None:
        super().__init__()
        self.blocks, self.masked_convs = nn.ModuleList(), nn.ModuleList()
        for index in range(num_blocks):
            block, masked = nn.Module(), nn.Module()
            block.conv = nn.Conv1d(dim if index else input_dim, dim, 3, padding=1)
            block.bn1, block.bn2, block.linear = nn.BatchNorm1d(dim), nn.BatchNorm1d(dim), nn.Conv1d(dim, dim, 1)
            masked.conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2)
            hidden = mask_size + 2 * (index + 1)
            mask = torch.ones_like(masked.conv.weight)
            mask[..., (kernel_size - hidden) // 2 : (kernel_size + hidden) // 2] = 0
            masked.register_buffer("conv_mask", mask)
            self.blocks.append(block)
            self.masked_convs.append(masked)
        self.postnet = nn.Linear(dim, input_dim)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        hidden, summed = values.transpose(1, 2), torch.zeros(())
        for index, (block, masked) in enumerate(zip(self.blocks, self.masked_convs)):
            inner = block.bn2(block.linear(torch.relu(block.bn1(block.conv(hidden)))))
            hidden = torch.relu(inner + hidden if index else inner)
            weight, reach = masked.conv.weight * masked.conv_mask, masked.conv.kernel_size[0] // 2
            summed = summed + torch.tanh(nn.functional.conv1d(hidden, weight, masked.conv.bias, padding=reach))
        return hidden.transpose(1, 2), summed.transpose(1, 2)


def test_foreign_checkpoints() -> None:
    torch.manual_seed(0)
    reference = _Reference(6, 8, 3, 15, 5)
    reference.train()(torch.randn(4, 30, 6))  # batch statistics that are not 0 and 1
    reference.eval()
    encoder = build_encoder("npc", input_dim=6, dim=8, num_blocks=3, norm="batch").eval()
    load_weights(encoder, from_npc(reference.state_dict()))
    values = torch.randn(1, 40, 6)
    outputs = encoder(values, torch.tensor([40]), layers=True)
    last_block, masked = reference(values)
    torch.testing.assert_close(outputs[-2].values, last_block, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs[-1].values, masked, atol=1e-5, rtol=1e-5)


def test_reach_is_the_papers() -> None:
    assert build_encoder("npc", dim=8).receptive_field == 23


def test_norms_over_time_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm"):
        npc(norm="group")
    with pytest.raises(ConfigError, match="kernel_size must exceed"):
        build_encoder("npc", num_blocks=6)
