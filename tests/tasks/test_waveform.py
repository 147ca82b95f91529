"""What rests in fine-tuning: what lies before the blocks, or all; never what stands between blocks or behind them."""

from typing import Any

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import encoder_preset
from sonorant.encoders.checkpoint import describe_config
from sonorant.tasks.asr.waveform import WaveformEncoder, WaveformEncoderConfig, freeze


def built(name: str) -> WaveformEncoder:
    torch.manual_seed(0)
    return WaveformEncoder(WaveformEncoderConfig(encoder=describe_config(encoder_preset(name))))


def at_rest(encoder: WaveformEncoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "wav2vec2_conformer_tiny", "mr_hubert_tiny", "sew_toy"])
def test_what_makes_the_input_of_the_blocks_rests(name: str) -> None:
    encoder = built(name)
    freeze(encoder, "front")
    resting = at_rest(encoder)
    assert any(".convs." in key for key in resting)
    inner: Any = encoder.inner
    blocks = {id(parameter) for parameter in inner.blocks.parameters()}
    values, lengths = torch.randn(1, 8000), torch.tensor([8000])
    entering = inner.eval()(values, lengths, layers=True)[0].values
    assert not entering.requires_grad  # nothing before the blocks learns
    inner(values, lengths).values.square().sum().backward()
    learning = {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learning == {key for key, _ in encoder.named_parameters()} - resting
    behind = {key for key, parameter in encoder.named_parameters() if id(parameter) not in blocks} & learning
    assert bool(behind) == (name != "wav2vec2_tiny")  # a last norm, samplers between the stacks, the way back


def test_all_or_nothing_rests() -> None:
    encoder = built("sew_toy")
    freeze(encoder, "")
    assert not at_rest(encoder)
    freeze(encoder, "encoder")
    assert at_rest(encoder) == {name for name, _ in encoder.named_parameters()}
    with pytest.raises(ConfigError, match="freeze"):
        freeze(encoder, "blocks")
