"""Fast Conformer against transformers' ParakeetEncoder, built tiny and random: both ways, padded batches, gradients."""

from typing import Any

import pytest
import torch

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.conformer import Conformer, conformer_tiny, fastconformer_tiny
from sonorant.encoders.keys.parakeet import PARAKEET, PARAKEET_CTC, parakeet_table

VARIANTS = {
    "plain": {},
    "without_biases": {"attention_bias": False, "convolution_bias": False, "scale_input": False},
    "quarter": {"subsampling_factor": 4, "conv_kernel_size": 5, "num_mel_bins": 24, "subsampling_conv_channels": 6},
}


def reference(**changes: Any) -> tuple[Any, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    settings = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "num_mel_bins": 40,
        "subsampling_conv_channels": 8, "initializer_range": 0.3, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ParakeetEncoder(transformers.ParakeetEncoderConfig(**settings)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model, settings


def batch(input_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([150, 97, 41])
    values = torch.randn(3, 150, input_dim)
    for item, length in enumerate(lengths.tolist()):
        values[item, length:] = 0
    return values, lengths


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_and_gradients_are_theirs(variant: str) -> None:
    theirs, settings = reference(**VARIANTS[variant])
    config = PARAKEET.read(settings, {})
    ours = Conformer(config).eval()
    ours.load_state_dict(parakeet_table(config).to_ours(theirs.state_dict()).weights)
    values, lengths = batch(config.input_dim)
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    mask = torch.arange(150)[None] < lengths[:, None]
    expected = theirs(left, attention_mask=mask, output_hidden_states=True)
    outputs = ours(right, lengths, layers=True)
    assert torch.equal(outputs[-1].lengths, expected.attention_mask.sum(-1))
    assert len(outputs) == len(expected.hidden_states)
    valid = torch.arange(outputs[0].values.shape[1])[None] < outputs[0].lengths[:, None]
    for own, other in zip(outputs, expected.hidden_states, strict=True):
        torch.testing.assert_close(own.values[valid], other[valid], atol=1e-4, rtol=0)
    weights = torch.randn_like(outputs[-1].values) * valid[..., None]
    (outputs[-1].values * weights).sum().backward()
    (expected.last_hidden_state * weights).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert float(left.grad.abs().max()) > 1e-3
    torch.testing.assert_close(right.grad[mask], left.grad[mask], atol=1e-4, rtol=1e-4)
    assert not right.grad[~mask].any()  # theirs looks one frame into the padding


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back(variant: str) -> None:
    theirs, settings = reference(**VARIANTS[variant])
    config = PARAKEET.read(settings, {})
    state = theirs.state_dict()
    table = parakeet_table(config)
    back = table.to_theirs(table.to_ours(state).weights)
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name
    again = type(theirs)(type(theirs.config)(**PARAKEET.write(config)))
    again.load_state_dict(back)
    assert PARAKEET.read(again.config.to_dict(), {}) == config


def test_ours_in_theirs() -> None:
    transformers = pytest.importorskip("transformers")
    config = fastconformer_tiny(norm="batch", input_dim=40)
    torch.manual_seed(0)
    ours = Conformer(config).eval()
    theirs = transformers.ParakeetEncoder(transformers.ParakeetEncoderConfig(**PARAKEET.write(config))).eval()
    theirs.load_state_dict(parakeet_table(config).to_theirs(ours.state_dict()))
    values = torch.randn(2, 90, 40)
    with torch.no_grad():
        own, other = ours(values, torch.tensor([90, 90])).values, theirs(values).last_hidden_state
    torch.testing.assert_close(own, other, atol=1e-4, rtol=0)


def test_what_does_not_fit_is_refused() -> None:
    theirs, settings = reference()
    config = PARAKEET.read(settings, {})
    state, table = dict(theirs.state_dict()), parakeet_table(config)
    with pytest.raises(CheckpointError, match="no rule for 1 keys, such as layers.0.adapter.weight"):
        table.to_ours({**state, "layers.0.adapter.weight": torch.zeros(1)})
    del state["layers.1.self_attn.k_proj.weight"]
    with pytest.raises(CheckpointError, match="needs queries, keys and values"):
        table.to_ours(state)
    with pytest.raises(ConfigError, match="hidden_act='gelu'"):
        PARAKEET.read({"hidden_act": "gelu"}, {})
    with pytest.raises(ConfigError, match="subsampling='depthwise' only, got 'conv2d'"):
        PARAKEET.write(conformer_tiny())
    with pytest.raises(ConfigError, match="model_type='parakeet_encoder'"):
        PARAKEET_CTC.write(config)
