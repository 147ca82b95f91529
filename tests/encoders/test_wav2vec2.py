"""wav2vec 2.0 and its relatives keep the contract, small."""

from typing import Any

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.encoders.catalogue import build_encoder, encoder_preset
from sonorant.encoders.wav2vec2 import Wav2Vec2, wav2vec2_tiny

NARROW: dict[str, Any] = {
    "conv_layers": ((16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (16, 2, 2)),
    "dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_dim": 32,
    "position_kernel": 8,
    "position_groups": 2,
}
GATED: dict[str, Any] = {**NARROW, "num_buckets": 16, "max_distance": 10}
STACKED: dict[str, Any] = {**NARROW, "position_kernel": 5, "position_depth": 2}
CASES: dict[str, dict[str, Any]] = {
    "wav2vec2_tiny": {},
    "wav2vec2_base": NARROW,
    "wav2vec2_large": NARROW,
    "wav2vec2_large_lv60": NARROW,
    "xlsr_53": {**NARROW, "num_heads": 3},
    "xls_r_300m": {**NARROW, "num_layers": 3},
    "xls_r_1b": NARROW,
    "xls_r_2b": NARROW,
    "hubert_base": {**NARROW, "local_norm": False},
    "hubert_large": NARROW,
    "hubert_xlarge": NARROW,
    "wavlm_tiny": {},
    "wavlm_base": GATED,
    "wavlm_large": GATED,
    "unispeech_sat_base": NARROW,
    "unispeech_sat_large": NARROW,
    "data2vec_audio_base": STACKED,
    "dinosr_base": STACKED,
    "data2vec_audio_large": {**STACKED, "conv_norm": "none"},
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    # Sizes that differ in numbers alone trace to the same program.
    export = name in ("wav2vec2_tiny", "wav2vec2_large_lv60", "wavlm_tiny", "wavlm_large", "data2vec_audio_base")
    check_encoder(lambda: build_encoder(name, **CASES[name]), input_dim=0, export=export)


@pytest.mark.parametrize("preset, normalise, conv_bias", [
    ("wav2vec2_base", False, False), ("wav2vec2_large", False, False), ("wav2vec2_large_lv60", True, True),
    ("hubert_base", False, False), ("hubert_large", True, False), ("hubert_xlarge", True, False),
    ("data2vec_audio_base", True, False), ("wavlm_large", True, False), ("wavlm_base", False, False),
])  # fmt: skip
def test_large_models_are_as_their_authors_trained_them(preset: str, normalise: bool, conv_bias: bool) -> None:
    """By task.normalize and model.conv_bias of fairseq's configurations, or the checkpoint's own (WavLM)."""
    config = encoder_preset(preset)
    assert (config.normalise, config.conv_bias) == (normalise, conv_bias)


def test_the_group_norm_over_padding_depends_on_the_padding_and_only_there() -> None:
    torch.manual_seed(0)
    leaking = Wav2Vec2(wav2vec2_tiny(over_padding=True)).eval()
    exact = Wav2Vec2(wav2vec2_tiny()).eval()
    exact.load_state_dict(leaking.state_dict())
    waveform = torch.zeros(1, 9000)
    waveform[:, :4000] = torch.randn(4000)
    lengths = torch.tensor([4000])
    with torch.no_grad():
        alone = exact(waveform[:, :4000], lengths).values
        torch.testing.assert_close(exact(waveform, lengths).values[:, : alone.shape[1]], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(leaking(waveform[:, :4000], lengths).values, alone)
        assert (leaking(waveform, lengths).values[:, : alone.shape[1]] - alone).abs().max() > 0.1


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "data2vec_audio_base", "wavlm_base"])
def test_a_batch_of_no_items(name: str) -> None:
    encoder = build_encoder(name, **CASES[name]).eval()
    layers = encoder(torch.zeros(0, 8000), torch.zeros(0, dtype=torch.long), layers=True)
    assert [layer.values.shape for layer in layers] == [(0, 24, encoder.dim)] * 3
