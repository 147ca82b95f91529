"""MR-HuBERT keeps the contract, small; its layers have their own frame rates; its samplers are the published sums."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.mr_hubert import MrHubert, MrHubertConfig, Sampler, mr_hubert_tiny

NARROW: dict[str, Any] = {
    # Few convolutions: an exported program carries one length each.
    "conv_layers": ((8, 10, 5), (16, 4, 4), (16, 4, 4), (16, 4, 4)),
    "dim": 16,
    "num_heads": 2,
    "ffn_dim": 32,
    "layers": (1, 2, 1),
    "position_kernel": 8,
    "position_groups": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "mr_hubert_base": {**NARROW, "layers": (1, 1, 1)},
    "mr_hubert_large": {**NARROW, "dim": 24, "layers": (2, 1, 1, 1, 2), "factors": (2, 3), "sampler_kernel": 3},
    "mr_hubert_tiny": {"plain_sampling": True},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=0, export=name == "mr_hubert_base")


def test_each_layer_comes_out_at_its_own_frame_rate() -> None:
    torch.manual_seed(0)
    encoder = MrHubert(mr_hubert_tiny(layers=(2, 1, 1, 1, 2), factors=(2, 2))).eval()
    lengths = torch.tensor([16000, 9000])
    layers = encoder(torch.randn(2, 16000), lengths, layers=True)
    assert [layer.frame_rate for layer in layers] == [50, 50, 50, 25, 12.5, 25, 50, 50]
    assert [layer.lengths.tolist() for layer in layers[2:6]] == [[49, 27], [25, 14], [13, 7], [25, 14]]
    assert len(encoder.blocks) == encoder.num_layers == 7


def test_what_stands_between_layers_reaches_the_next_and_the_skip() -> None:
    torch.manual_seed(0)
    encoder = MrHubert(mr_hubert_tiny()).eval()
    embedded = encoder.embed(encoder.local(torch.randn(1, 8000), torch.tensor([8000])))
    plain = encoder.context(embedded, layers=True)
    seen: list[int] = []

    def between(index: int, features: Features) -> Features:
        seen.append(index)
        assert torch.equal(features.values, plain[index].values)
        return features

    assert isinstance(encoder.context(embedded, between=between), Features)
    assert seen == [0, 1, 2]
    changed = encoder.context(
        embedded,
        layers=True,
        between=lambda index, f: Features(f.values * (index != 1), f.lengths, f.frame_rate),
    )
    assert torch.equal(changed[1].values, plain[1].values)
    silent = encoder.context(Features(torch.zeros_like(embedded.values), embedded.lengths, 50.0), layers=True)
    assert (changed[2].values - plain[2].values).abs().max() > 0.1
    assert (changed[3].values - silent[3].values).abs().max() > 0.1


@pytest.mark.parametrize("size", [8000, 8320])  # 24 and 25 frames
def test_an_item_goes_down_and_up_as_published(size: int) -> None:
    torch.manual_seed(0)
    encoder = MrHubert(mr_hubert_tiny()).eval()
    embedded = encoder.embed(encoder.local(torch.randn(1, size), torch.tensor([size])))
    first = encoder.stacks[0](embedded)
    entering = encoder.downs[0](first)
    middle = encoder.stacks[1](entering).values + entering.values
    up = encoder.ups[0](Features(middle, entering.lengths, entering.frame_rate))
    assert up.values.shape[1] % 2 == 0  # of an odd item the last layers see a frame more
    expected = encoder.stacks[2](up).values[:, : first.values.shape[1]] + first.values
    torch.testing.assert_close(encoder.context(embedded).values, expected)


class Reference(nn.Module):
    """A sampler as its definition reads, on one item of channels before frames."""

    def __init__(self, dim: int, up: int, down: int) -> None:
        super().__init__()
        self.rates = up, down
        self.more = nn.Sequential(
            nn.ConvTranspose1d(dim, dim, 1, up, bias=False, output_padding=up - 1), nn.GroupNorm(1, dim), nn.GELU()
        )
        self.fewer = nn.Sequential(nn.Conv1d(dim, dim, 1, down, bias=False), nn.GroupNorm(1, dim), nn.GELU())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        up, down = self.rates
        repeated = values.repeat_interleave(up, dim=2)
        more = (self.more(values) + repeated) * 0.4**0.5
        fewer = (self.fewer(more) + more[..., ::down]) * 0.4**0.5
        return (fewer + repeated[..., ::down]) * 0.4**0.5


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("size", [11, 12])
def test_a_sampler_is_the_sum_of_its_parts(up: int, down: int, size: int) -> None:
    torch.manual_seed(0)
    reference = Reference(8, up, down)
    for norm in (reference.more[1], reference.fewer[1]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    sampler = Sampler(8, up, down)
    names = {"more.0": "up_conv", "more.1": "up_norm", "fewer.0": "down_conv", "fewer.1": "down_norm"}
    weights = {
        names[key.rpartition(".")[0]] + "." + key.rpartition(".")[2]: t for key, t in reference.state_dict().items()
    }
    sampler.load_state_dict(weights)
    values = torch.randn(1, size, 8)
    found = sampler(Features(values, torch.tensor([size]), 50.0))
    expected = reference(values.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found.values, expected)
    assert int(found.lengths[0]) == expected.shape[1]
    assert found.frame_rate == 50 * up / down


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="one for each step down"):
        MrHubertConfig(layers=(4, 4))
    with pytest.raises(ConfigError, match="odd"):
        MrHubertConfig(sampler_kernel=2)
