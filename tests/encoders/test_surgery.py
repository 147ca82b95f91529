"""Surgery: what is frozen stays, what is cut is gone, what is renewed is new and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.adapt import LoraConfig, adapt
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.checkpoint import load_trained_encoder, save_trained_encoder
from sonorant.encoders.spectral import SpectralFront, mfcc_front
from sonorant.encoders.surgery import average_layers, freeze_all, freeze_front, freeze_layers, reinitialise, truncate

TINY = ("wav2vec2_tiny", "wavlm_tiny", "conformer_tiny", "tera_tiny", "cpc_tiny")


def built(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return build_encoder(name, **changes).eval()


def given(encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    shape = (1, 6000) if encoder.input == "waveform" else (1, 60, encoder.config.input_dim)
    return torch.randn(shape), torch.tensor([shape[1]])


@pytest.mark.parametrize("name", TINY)
def test_frozen_layers_give_the_same_after_training(name: str) -> None:
    encoder = built(name)
    before = encoder(*given(encoder), layers=True)
    names = freeze_layers(encoder, 1)
    assert all(not dict(encoder.named_parameters())[key].requires_grad for key in names)
    free = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert free or encoder.num_layers == 1
    with torch.no_grad():
        for parameter in free:
            parameter.add_(1.0)
    after = encoder(*given(encoder), layers=True)
    if encoder.num_layers > 1:
        # Without a gradient other kernels run.
        torch.testing.assert_close(before[1].values, after[1].values, atol=1e-5, rtol=1e-5)
        assert (before[-1].values - after[-1].values).abs().max() > 0.1


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "conformer_tiny", "cpc_tiny"])
def test_a_frozen_front_end_gives_the_same_and_the_blocks_train(name: str) -> None:
    encoder = built(name).train()
    names = freeze_front(encoder)
    assert encoder.training
    own = dict(encoder.named_parameters())
    assert names == [key for key, parameter in own.items() if not parameter.requires_grad]
    assert all(parameter.requires_grad for parameter in encoder.blocks.parameters())
    with pytest.raises(ConfigError, match=r"no weights; it holds .*stack"):
        freeze_front(built("tera_tiny"))
    with pytest.raises(ConfigError, match="SpectralFront has no weights; it holds front_end"):
        freeze_front(SpectralFront(mfcc_front()))


def test_the_convolutions_are_the_front_end() -> None:
    encoder = built("wav2vec2_tiny")
    assert freeze_front(encoder) == [f"convs.{name}" for name, _ in encoder.convs.named_parameters()]
    assert "project.weight" in freeze_layers(encoder, 0)
    assert len(freeze_all(encoder)) == len(list(encoder.parameters()))
    assert freeze_layers(encoder, 2) == freeze_all(encoder)


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "wavlm_tiny", "conformer_tiny"])
def test_a_truncated_encoder_gives_the_lower_layers_and_can_be_stored(name: str, tmp_path: Path) -> None:
    encoder = built(name, num_layers=3)
    below = encoder(*given(encoder), layers=True)[2].values
    assert truncate(encoder, 2) is encoder
    assert encoder.num_layers == encoder.config.num_layers == len(encoder.blocks) == 2
    torch.testing.assert_close(encoder(*given(encoder)).values, below)
    loaded = load_trained_encoder(save_trained_encoder(encoder, tmp_path / "cut"))
    torch.testing.assert_close(loaded(*given(encoder)).values, below)
    with pytest.raises(ConfigError, match="has 2 blocks, got 3"):
        truncate(encoder, 3)


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(ConfigError, match="Npc has no num_layers .* build it with other options: .*num_blocks"):
        truncate(built("npc_tiny"), 1)


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "conformer_tiny"])
def test_only_the_upper_blocks_are_renewed(name: str) -> None:
    encoder = built(name)
    before = encoder(*given(encoder), layers=True)
    reinitialise(encoder, top=1, seed=7)
    after = encoder(*given(encoder), layers=True)
    torch.testing.assert_close(before[1].values, after[1].values)
    assert (before[2].values - after[2].values).abs().max() > 0.1
    again = reinitialise(built(name), top=1, seed=7)
    torch.testing.assert_close(again(*given(encoder)).values, after[2].values)
    with pytest.raises(ConfigError, match="has 2 blocks, got 3"):
        reinitialise(encoder, top=3)
    adapt(encoder, LoraConfig())
    with pytest.raises(ConfigError, match="before adapting"):
        reinitialise(encoder, top=1)


def test_layers_are_averaged() -> None:
    encoder = built("wav2vec2_tiny")
    layers = encoder(*given(encoder), layers=True)
    torch.testing.assert_close(average_layers(layers).values, (layers[1].values + layers[2].values) / 2)
    assert torch.equal(average_layers(layers, [0]).values, layers[0].values)
    slow = Features(torch.ones(1, 9, encoder.dim), torch.tensor([9]), 25.0)
    mixed = average_layers([slow, layers[2]], [0, 1])
    torch.testing.assert_close(mixed.values[:, :18], (1 + layers[2].values[:, :18]) / 2)
    with pytest.raises(ConfigError, match="layers 0 to 2, got 3"):
        average_layers(layers, [3])
