"""SEW against transformers' SEWModel, built tiny and random."""

from typing import Any

import pytest
import torch
from tests.encoders.keys.waveform_parity import converted, same_hidden_states

from sonorant.core.errors import CheckpointError
from sonorant.encoders.keys.sew import SEW
from sonorant.encoders.sew import Sew

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer_norms": {"feat_extract_norm": "layer", "conv_bias": True},
    "wide": {"squeeze_factor": 3, "num_conv_pos_embeddings": 8, "hidden_size": 24, "num_attention_heads": 4},
}


def reference(**changes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    settings = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
        "conv_dim": [8, 16, 16, 24], "conv_kernel": [10, 3, 1, 3], "conv_stride": [5, 2, 1, 2],
        "num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 4, **changes,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.SEWModel(transformers.SEWConfig(**settings)).eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [2000, 2021])
def test_hidden_states_and_gradients_are_theirs(variant: str, size: int) -> None:
    theirs = reference(**VARIANTS[variant])
    same_hidden_states(converted(SEW, theirs, Sew), theirs, torch.randn(2, size))


def test_no_projection_where_the_convolutions_are_as_wide_as_the_layers() -> None:
    ours = converted(SEW, reference(hidden_size=24), Sew)
    assert not list(ours.front.project.parameters())


def test_a_key_left_over_is_an_error() -> None:
    theirs = reference()
    config = SEW.read(theirs.config.to_dict(), {})
    with pytest.raises(CheckpointError, match="no rule for 1 keys, such as encoder.more"):
        SEW.table(config).to_ours({**theirs.state_dict(), "encoder.more": torch.zeros(1)})
