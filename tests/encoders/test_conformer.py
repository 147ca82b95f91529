"""The Conformer and the recurrent encoders keep the contract, small; a stream sees no further than it may."""

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import build_encoder

SMALL = {"dim": 32, "num_layers": 2, "ffn_dim": 48, "kernel_size": 5, "dropout": 0.1, "input_dim": 40}
CASES = {
    "conformer_tiny": SMALL,
    "conformer_small": {**SMALL, "position": "rotary", "norm": "batch"},
    "conformer_medium": {**SMALL, "position": "shaw", "subsampling": "depthwise", "factor": 8, "norm": "rms"},
    "conformer_large": {**SMALL, "num_heads": 2, "position": "none", "subsampling": "conv1d", "norm": "group"},
    "fastconformer_tiny": {**SMALL, "channels": 8},
    "fastconformer_medium": {**SMALL, "channels": 8, "norm": "batch", "bias": False, "scale_input": True},
    "fastconformer_large": {**SMALL, "num_heads": 4, "channels": 8, "position": "rotary"},
    "fastconformer_xlarge": {**SMALL, "channels": 8, "position": "none"},
    "fastconformer_streaming": {**SMALL, "channels": 8, "chunk_size": 2},
    "nest_large": {**SMALL, "channels": 8, "norm": "rms"},
    "deepspeech": {"dim": 32, "context": 3, "input_dim": 40},
    "deepspeech_paper": {"dim": 32, "context": 3, "input_dim": 40},
    "bigru": {"dim": 24, "num_layers": 2, "input_dim": 40},
    "bilstm": {"dim": 24, "num_layers": 2, "input_dim": 40, "subsampling": "conv2d"},
}
SAME_PROGRAM = ("conformer_large", "fastconformer_tiny", "fastconformer_large", "fastconformer_xlarge", "nest_large")
"""Their parts are exported with others."""
STREAMING = {
    "relative": {**SMALL, "causal": True, "chunk_size": 3, "left_chunks": 2},
    "rotary": {**SMALL, "causal": True, "chunk_size": 4, "position": "rotary", "norm": "batch"},
    "shaw": {**SMALL, "causal": True, "chunk_size": 2, "left_chunks": 0, "position": "shaw", "subsampling": "stack"},
    "none": {**SMALL, "causal": True, "chunk_size": 5, "left_chunks": 1, "position": "none", "subsampling": "conv1d"},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # torch.export unrolls a recurrence over the frames it saw, so those programs keep their length.
    dynamic = "conformer" in name or "nest" in name
    streaming = name in ("deepspeech", "fastconformer_streaming")
    export = name not in SAME_PROGRAM
    check_encoder(
        lambda: build_encoder(name, **CASES[name]), input_dim=40, dynamic=dynamic, streaming=streaming, export=export
    )


@pytest.mark.parametrize("name", STREAMING)
def test_chunks_equal_the_whole(name: str) -> None:
    options = {"streaming": True, "export": False}
    check_encoder(lambda: build_encoder("conformer_tiny", **STREAMING[name]), input_dim=40, **options)


def test_what_cannot_stream_is_said() -> None:
    with pytest.raises(ConfigError, match="sees the whole item"):
        build_encoder("conformer_tiny").stream()
    with pytest.raises(ConfigError, match="subsampling='depthwise' pads in time"):
        build_encoder("fastconformer_tiny", causal=True, chunk_size=2).stream()


def test_chunks_do_not_see_ahead() -> None:
    """A change in the input moves no frame whose chunk was over before it."""
    torch.manual_seed(0)
    encoder = build_encoder("conformer_tiny", **STREAMING["relative"]).eval()
    values, lengths = torch.randn(1, 100, 40), torch.tensor([100])
    changed = values.clone()
    changed[:, 52:] += 1  # encoder frame 12 (input 48…54) is the first that sees it; its chunk is 12…14
    before, after = encoder(values, lengths).values, encoder(changed, lengths).values
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])
