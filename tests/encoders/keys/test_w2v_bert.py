"""w2v-BERT 2.0 against transformers' Wav2Vec2BertModel, built tiny and random; padded batches too."""

from typing import Any

import pytest
import torch
from tests.encoders.keys.waveform_parity import converted, same_hidden_states

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.keys.w2v_bert import W2V_BERT
from sonorant.encoders.spectral import SpectralFront, seamless_front
from sonorant.encoders.w2v_bert import W2vBert

VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "relative": {"position_embeddings_type": "relative"},
    "rotary": {"position_embeddings_type": "rotary"},
    "none": {"position_embeddings_type": None},
}
ADAPTED: dict[str, dict[str, Any]] = {
    "one": {"add_adapter": True},
    "narrow": {"add_adapter": True, "output_hidden_size": 16, "num_adapter_layers": 2},
    "ffn": {"add_adapter": True, "use_intermediate_ffn_before_adapter": True},
}


def reference(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    settings = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
        "feature_projection_input_dim": 12, "conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 6,
        "right_max_position_embeddings": 2, "max_source_positions": 128, "initializer_range": 0.2, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**settings)).eval()


@pytest.mark.parametrize("variant", {**VARIANTS, **ADAPTED})
def test_hidden_states_and_gradients_are_theirs(variant: str) -> None:
    theirs = reference(**{**VARIANTS, **ADAPTED}[variant])
    same_hidden_states(converted(W2V_BERT, theirs, W2vBert), theirs, torch.randn(2, 41, 12))


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_batches_are_theirs(variant: str) -> None:
    theirs = reference(**VARIANTS[variant])
    ours = converted(W2V_BERT, theirs, W2vBert)
    lengths = torch.tensor([30, 41, 9])
    values = torch.randn(3, 41, 12)
    valid = torch.arange(41)[None] < lengths[:, None]
    values = values.masked_fill(~valid[..., None], 0)
    expected = theirs(values, attention_mask=valid, output_hidden_states=True)
    outputs = ours(values, lengths, layers=True)
    for own, other in zip(outputs, [*expected.hidden_states[:3], expected.last_hidden_state], strict=True):
        torch.testing.assert_close(own.values[valid], other[valid], atol=1e-4, rtol=0)


def test_what_we_lack_is_said() -> None:
    with pytest.raises(ConfigError, match="hidden_act='gelu'"):
        W2V_BERT.read({**reference().config.to_dict(), "hidden_act": "gelu"}, {})


def test_the_features_are_theirs() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    waveform = torch.randn(1, 16000) * 0.1
    theirs = transformers.SeamlessM4TFeatureExtractor()(waveform[0].numpy(), sampling_rate=16000, return_tensors="pt")
    expected = theirs["input_features"][0, : int(theirs["attention_mask"].sum())]
    ours = SpectralFront(seamless_front())(waveform, torch.tensor([16000]))
    assert isinstance(ours, Features)
    assert (ours.frame_rate, ours.values.shape[1:]) == (50.0, expected.shape)
    torch.testing.assert_close(ours.values[0], expected, atol=2e-3, rtol=1e-3)
