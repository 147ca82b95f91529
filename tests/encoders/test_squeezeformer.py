"""The Squeezeformer keeps the contract, small; its two rates meet again, its sizes are the published ones."""

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder, encoder_preset
from sonorant.encoders.squeezeformer import Squeezeformer
from sonorant.nn.squeezeformer import TimeRecovery, TimeReduction

SMALL = {"dim": 24, "num_layers": 4, "num_heads": 2, "ffn_dim": 32, "kernel_size": 5, "dropout": 0.1, "input_dim": 40}
CASES = {
    "squeezeformer_tiny": {**SMALL, "channels": 8},
    "squeezeformer_xsmall": {
        **SMALL,
        "channels": 8,
        "num_layers": 3,
        "reduce_after": 1,
        "norm": "batch",
        "position": "rotary",
    },
    "squeezeformer_small": {**SMALL, "channels": 8, "num_layers": 1},
    "squeezeformer_small_medium": {**SMALL, "channels": 8, "reduce_after": 0, "position": "none"},
    "squeezeformer_medium": {**SMALL, "channels": 8, "num_layers": 3, "norm": "rms"},
    "squeezeformer_medium_large": {**SMALL, "subsampling": "conv1d", "num_layers": 2},
    "squeezeformer_large": {**SMALL, "subsampling": "stack", "position": "shaw", "reduce_after": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=40, export=name == "squeezeformer_xsmall")


def test_a_layer_is_what_the_encoder_gives_when_cut_there() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("squeezeformer_tiny", **{**SMALL, "num_layers": 5}).eval()
    values, lengths = torch.randn(2, 90, 40), torch.tensor([90, 71])
    with torch.no_grad():
        outputs = encoder(values, lengths, layers=True)
        for keep in (4, 3, 2, 1, 0):
            encoder.blocks = encoder.blocks[:keep]
            assert torch.equal(encoder(values, lengths).values, outputs[keep].values)


def test_the_middle_runs_at_half_the_rate() -> None:
    encoder = build_encoder("squeezeformer_tiny", **{**SMALL, "num_layers": 6}).eval()
    seen: list[tuple[int, float, int]] = []

    def note(index: int, features: Features) -> Features:
        seen.append((index, features.frame_rate, int(features.lengths[0])))
        return features

    embedded = encoder.embed(encoder.local(torch.randn(1, 103, 40), torch.tensor([103])))
    encoder.context(embedded, between=note)
    assert seen == [(0, 25.0, 25), (1, 25.0, 25), (2, 25.0, 25), (3, 12.5, 13), (4, 12.5, 13), (5, 12.5, 13)]
    maps = encoder.attention_maps(torch.randn(1, 103, 40), torch.tensor([103]))
    assert [tuple(own.shape[2:]) for own in maps] == [(25, 25)] * 2 + [(13, 13)] * 3 + [(25, 25)]


@pytest.mark.parametrize("num_frames", [1, 2, 7, 8])
def test_reduced_and_recovered(num_frames: int) -> None:
    reduction, recovery = TimeReduction(4), TimeRecovery(4)
    values = torch.randn(1, num_frames, 4)
    slow, lengths = reduction(values, torch.tensor([num_frames]))
    assert int(lengths[0]) == slow.shape[1] == -(-num_frames // 2)
    torch.testing.assert_close(recovery(slow * 0, values), values + recovery.project.bias)
    moved = recovery(slow, values) - values
    torch.testing.assert_close(moved[:, 1::2], moved[:, : num_frames - 1 : 2][:, : num_frames // 2])


@pytest.mark.parametrize(
    "name, millions",
    [
        ("squeezeformer_xsmall", 9.0), ("squeezeformer_small", 18.6), ("squeezeformer_small_medium", 28.2),
        ("squeezeformer_medium", 55.6), ("squeezeformer_medium_large", 125.1), ("squeezeformer_large", 236.3),
    ],
)  # fmt: skip
def test_published_sizes(name: str, millions: float) -> None:
    """Table 2, whose figures include a CTC layer over 128 pieces."""
    with torch.device("meta"):
        encoder = Squeezeformer(encoder_preset(name))
    assert sum(parameter.numel() for parameter in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="reduce_after must lie in"):
        build_encoder("squeezeformer_tiny", reduce_after=9)
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        build_encoder("squeezeformer_tiny", num_heads=5)
