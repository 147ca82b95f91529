"""PASE+ keeps the contract, has the published shape, and its skips are what they say."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.pase import pase_plus

CASES: dict[str, dict[str, Any]] = {
    "pase_plus": {"num_filters": 8, "filter_size": 51, "channels": (8, 8, 8, 16, 16, 16, 16), "recurrent_dim": 16, "dim": 8},
    "pase_tiny": {"num_filters": 8, "channels": (8, 8, 8, 16), "skips": False, "norm": "instance"},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # The depth of the parallel scan is the logarithm of the number of frames, so an exported program keeps its length.
    check_encoder(
        lambda: build_encoder(name, **CASES[name]),
        input_dim=0,
        dynamic=False,
        lengths=(4100, 5333, 2900, 3700),
        tried=(1, 2, 159, 160, 161, 320, 321, 1000, 2222),
    )


def test_batch_norm_counts_valid_frames_only() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("pase_tiny", norm="batch").train()
    waveform = torch.randn(2, 3000)
    lengths = torch.tensor([3000, 2000])
    first = encoder(waveform, lengths).values
    padded = nn.functional.pad(waveform, (0, 1500), value=7.0)
    torch.testing.assert_close(encoder(padded, lengths).values[:, : first.shape[1]], first, atol=1e-4, rtol=1e-4)


def test_published_shape() -> None:
    encoder = build_encoder("pase_plus")
    assert encoder.frame_rate == 100
    assert encoder.output_lengths(16000) == 100
    assert encoder.dim == 256
    # A frame sees 251 taps, then 20 and 11 steps at ever larger strides.
    assert encoder.receptive_field == 251 + 19 + 10 * (10 + 20 + 20 + 40 + 40 + 80) + 160
    # 8 million in the paper, nearly all in the last convolutions.
    assert 6e6 < sum(parameter.numel() for parameter in encoder.parameters()) < 9e6


def test_skips_are_means_of_what_was_before() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("pase_tiny").eval()
    waveform, lengths = torch.randn(1, 1600), torch.tensor([1600])
    local = encoder.local(waveform, lengths).values
    hidden, counts, expected = waveform[:, None], lengths, torch.zeros(1, 10, 32)
    for front, skip in zip(encoder.fronts, encoder.skips):
        hidden, counts = front(hidden, counts)
        expected = expected + skip(hidden.unflatten(2, (10, -1)).mean(3).transpose(1, 2))
    torch.testing.assert_close(local[..., 32:], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_frame_stands_where_it_says() -> None:
    """A click moves the frames around its own place most."""
    torch.manual_seed(0)
    encoder = build_encoder("pase_plus", **CASES["pase_plus"], norm="batch").eval()
    click = torch.zeros(1, 8000)
    click[0, 160 * 25] = 1
    length = torch.tensor([8000])
    moved = (encoder.local(click, length).values - encoder.local(0 * click, length).values)[0].abs().sum(1)
    center = float((moved * torch.arange(len(moved))).sum() / moved.sum())
    assert abs(center - 25) < 1


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="one number a block, got 1, 7 and 7"):
        pase_plus(kernels=(5,))
    with pytest.raises(ConfigError, match="norm"):
        pase_plus(norm="layer")
