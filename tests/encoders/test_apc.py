"""APC looks back only, streams, and equals a plain stack of GRUs."""

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import nn

from sonorant.core.checkpoint import load_weights
from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.apc import ApcConfig, apc
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.keys.apc import APC

CASES = {
    "apc": {"dim": 24, "input_dim": 20},
    "apc_tiny": {"dim": 24, "input_dim": 20, "kind": "lstm", "residual": False},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # torch.export unrolls a recurrence over the frames it saw, so the program keeps its length.
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=20, dynamic=False, streaming=True)


def test_equals_a_stack_of_grus() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("apc", dim=12, input_dim=6).eval()
    values = torch.randn(1, 30, 6)
    hidden = values
    for index, block in enumerate(encoder.blocks):
        gru = nn.GRU(hidden.shape[-1], 12, batch_first=True)
        gru.load_state_dict(block.recurrent.forwards.state_dict())
        hidden = gru(hidden)[0] + (hidden if index else 0)
    torch.testing.assert_close(encoder(values, torch.tensor([30])).values, hidden)


def test_foreign_checkpoints() -> None:
    """A stack of GRUs and a linear layer under the authors' names."""
    torch.manual_seed(0)
    reference = nn.Module()
    reference.rnn_layers = nn.ModuleList(nn.GRU(width, 12, batch_first=True) for width in (6, 12))
    reference.postnet = nn.Linear(12, 6)
    encoder = build_encoder("apc", dim=12, input_dim=6, num_layers=2).eval()
    load_weights(encoder, APC.to_ours(reference.state_dict()).weights)
    values = torch.randn(1, 20, 6)
    first = reference.rnn_layers[0](values)[0]
    expected = reference.rnn_layers[1](first)[0] + first
    torch.testing.assert_close(encoder(values, torch.tensor([20])).values, expected)


def test_looks_back_only() -> None:
    encoder = build_encoder("apc_tiny", dim=12, input_dim=6).eval()
    values, lengths = torch.randn(1, 30, 6), torch.tensor([30])
    changed = values.clone()
    changed[:, 17:] += 1
    before, after = encoder(values, lengths).values, encoder(changed, lengths).values
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.allclose(before[:, 17:], after[:, 17:])


def test_what_stands_between_layers_goes_on() -> None:
    encoder = build_encoder("apc", dim=12, input_dim=6).eval()
    local = encoder.local(torch.randn(1, 9, 6), torch.tensor([9]))
    seen = []

    def between(index: int, features: Features) -> Features:
        seen.append(index)
        return Features(0 * features.values, features.lengths, features.frame_rate) if index == 2 else features

    outputs = encoder.context(local, layers=True, between=between)
    assert seen == [0, 1, 2]
    assert outputs[2].values.any()
    expected = encoder.blocks[2](torch.zeros(1, 9, 12), torch.tensor([9]))
    torch.testing.assert_close(outputs[3].values, expected)


def test_published_size() -> None:
    """Three GRUs of 512 on 80 bands: 3 · 512 · (inputs + 512 + 2) weights each."""
    expected = 3 * 512 * ((80 + 512 + 2) + 2 * (512 + 512 + 2))
    assert sum(p.numel() for p in build_encoder("apc").parameters()) == expected


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="dropout must lie"):
        apc(dropout=1.5)
    with pytest.raises(ConfigError, match="num_layers must be at least 1"):
        ApcConfig(num_layers=0)
