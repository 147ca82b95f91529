"""wav2vec 2.0 Conformers against transformers, built tiny and random."""

from typing import Any

import pytest
import torch
from tests.encoders.keys.waveform_parity import converted, same_hidden_states

from sonorant.core.errors import ConfigError
from sonorant.encoders.keys.wav2vec2_conformer import WAV2VEC2_CONFORMER
from sonorant.encoders.wav2vec2_conformer import Wav2Vec2Conformer

VARIANTS: dict[str, dict[str, Any]] = {
    "relative": {},
    "rotary": {"position_embeddings_type": "rotary"},
    "none": {"position_embeddings_type": None, "feat_extract_norm": "layer", "conv_bias": True},
}


def reference(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    settings = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "hidden_act": "swish",
        "conv_dim": [8, 16, 24], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2], "conv_depthwise_kernel_size": 5,
        "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "max_source_positions": 256,
        "initializer_range": 0.2, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ConformerModel(transformers.Wav2Vec2ConformerConfig(**settings)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_and_gradients_are_theirs(variant: str) -> None:
    theirs = reference(**VARIANTS[variant])
    same_hidden_states(converted(WAV2VEC2_CONFORMER, theirs, Wav2Vec2Conformer), theirs, torch.randn(2, 1200))


def test_what_they_lack_is_said() -> None:
    with pytest.raises(ConfigError, match="hidden_act='gelu' is not known here, only 'swish'"):
        WAV2VEC2_CONFORMER.read(reference(hidden_act="gelu").config.to_dict(), {})
    with pytest.raises(ConfigError, match="norm='batch' only, got 'layer'"):
        config = WAV2VEC2_CONFORMER.config(norm="layer")
        WAV2VEC2_CONFORMER.write(config)
