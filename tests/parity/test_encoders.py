"""Encoders against transformers': built tiny and random there, converted by our tables, equal in float32.

All hidden states, the last state and the gradient of the input; single items, padded batches of unequal length where theirs
is right, and the switch that reproduces theirs where it leaks. Both directions through folders, bit for bit.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sonorant.encoders.checkpoint import describe_config, described_module
from sonorant.encoders.load import HUGGING_FACE, foreign_of, load_encoder, read_encoder, save_pretrained
from sonorant.encoders.spectral import whisper_front

transformers = pytest.importorskip("transformers")
# WavLM there hands masks of two types to torch.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")

SPEECH: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "initializer_range": 0.3,
}  # fmt: skip
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
DATA2VEC = {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}
WHISPER: dict[str, Any] = {
    "d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 20,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "init_std": 0.3,
}  # fmt: skip
SEW: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8, 8, 16),
    "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 7,
    "num_conv_pos_embedding_groups": 2, "initializer_range": 0.3,
}  # fmt: skip
UNUSED = ("encoder.pos_conv_embed",)
CONFORMER = {**SPEECH, "conv_depthwise_kernel_size": 5, "hidden_act": "swish"}
BERT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "feature_projection_input_dim": 12, "conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 2, "initializer_range": 0.2,
}  # fmt: skip
AST: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 6,
    "frequency_stride": 4, "time_stride": 5, "max_length": 61, "num_mel_bins": 20, "initializer_range": 0.3,
}  # fmt: skip
PARAKEET: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "num_mel_bins": 40,
    "subsampling_conv_channels": 8, "initializer_range": 0.3,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One variant of one kind of model."""

    kind: str
    """model_type."""
    settings: dict[str, Any] = field(default_factory=dict)
    padded: str = "right"
    """What theirs does with padded batches: right; leaks (a group norm, stacked positions); none, there are no lengths."""
    width: int = 0
    """Of features; 0 for waveforms."""
    lengths: tuple[int, ...] = (1200, 931, 400)
    turned: bool = False
    """Whether theirs takes bands before frames, and no mask."""
    unused: tuple[str, ...] = ()
    """Beginnings of keys that theirs stores and never uses."""
    states: bool = True
    """Whether states lie frame by frame there; patches are compared in tests/encoders/test_patch.py."""


CASES = {
    "wav2vec2": Case("wav2vec2", SPEECH, "leaks"),
    "wav2vec2_stable": Case("wav2vec2", {**SPEECH, **STABLE, "conv_bias": True}),
    "hubert": Case("hubert", {**SPEECH, "feat_proj_layer_norm": False}, "leaks"),
    "hubert_stable": Case("hubert", {**SPEECH, **STABLE, "conv_bias": True}),
    "wavlm": Case("wavlm", {**SPEECH, "num_buckets": 16, "max_bucket_distance": 20}, "leaks"),
    "wavlm_stable": Case("wavlm", {**SPEECH, **STABLE, "num_buckets": 16, "max_bucket_distance": 20}),
    "unispeech_sat": Case("unispeech-sat", SPEECH, "leaks"),
    "unispeech_sat_stable": Case("unispeech-sat", {**SPEECH, **STABLE}),
    "data2vec_audio": Case("data2vec-audio", {**SPEECH, **DATA2VEC}, "leaks"),
    "sew": Case("sew", SEW, "none", lengths=(1200, 1200, 1200)),
    "wav2vec2_conformer": Case("wav2vec2-conformer", CONFORMER, "none", lengths=(1200,) * 3, unused=UNUSED),
    "w2v_bert": Case("wav2vec2-bert", BERT, width=12, lengths=(41, 30, 9)),
    "ast": Case("audio-spectrogram-transformer", AST, width=20, states=False),
    "whisper": Case("whisper", WHISPER, "none", width=20, lengths=(3000, 3000, 3000), turned=True),
    "parakeet": Case("parakeet_encoder", PARAKEET, width=40, lengths=(150, 97, 41)),
}
STATES = [name for name, case in CASES.items() if case.states]
LEAKING = [name for name, case in CASES.items() if case.padded == "leaks"]


def class_of(name: str) -> Any:
    """Of transformers; an encoder without its model stands below the top."""
    return getattr(transformers, name, None) or getattr(transformers.models.whisper.modeling_whisper, name)


@cache
def pair(name: str) -> tuple[Any, Any]:
    """Their model and ours with its weights."""
    case = CASES[name]
    foreign = foreign_of(case.kind)
    model = class_of(foreign.architecture)
    torch.manual_seed(0)
    theirs = model(model.config_class(**case.settings)).eval()
    for buffer_name, buffer in theirs.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    config = foreign.read(theirs.config.to_dict(), {})
    ours = described_module(describe_config(config)).eval()
    ours.load_state_dict(foreign.table(config).to_ours(theirs.state_dict()).weights)
    return theirs, ours


def batch(case: Case, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Values with zeros in the padding, lengths, and the mask that transformers takes."""
    lengths = torch.tensor(case.lengths)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    generator = torch.Generator().manual_seed(seed)
    shape = (*mask.shape, case.width) if case.width else mask.shape
    values = torch.randn(shape, generator=generator)
    values[~mask] = 0
    return values, lengths, mask


def check_equal(name: str, values: Tensor, lengths: Tensor, mask: Tensor | None, ours: Any = None) -> None:
    """Hidden states and gradients of valid frames."""
    theirs, own = pair(name)
    own = ours or own
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = theirs(left.mT if CASES[name].turned else left, attention_mask=mask, output_hidden_states=True)
    found = own(right, lengths, layers=True)
    assert len(found) == len(expected.hidden_states)
    # In transformers the last one is taken before the norm behind the layers, if there is one.
    for one, other in zip(found, [*expected.hidden_states[:-1], expected.last_hidden_state], strict=True):
        valid = torch.arange(one.values.shape[1]) < one.lengths[:, None]
        torch.testing.assert_close(one.values[valid], other[valid], atol=1e-4, rtol=0)
    weights = torch.randn(found[-1].values.shape, generator=torch.Generator().manual_seed(2)) * valid[..., None]
    (found[-1].values * weights).sum().backward()
    (expected.last_hidden_state * weights).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert float(left.grad.abs().max()) > 1e-3
    inside = torch.arange(values.shape[1]) < lengths[:, None]
    scale = float(left.grad.abs().max())
    torch.testing.assert_close(right.grad[inside] / scale, left.grad[inside] / scale, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", STATES)
def test_single_items(name: str) -> None:
    values, lengths, _ = batch(CASES[name])
    for item in (0, 2):
        check_equal(name, values[item : item + 1, : int(lengths[item])], lengths[item : item + 1], None)


@pytest.mark.parametrize("name", [name for name in STATES if CASES[name].padded == "right"])
def test_padded_batches(name: str) -> None:
    check_equal(name, *batch(CASES[name]))


@pytest.mark.parametrize("name", LEAKING)
def test_padded_batches_by_the_switch_where_theirs_leaks(name: str) -> None:
    _, ours = pair(name)
    leaking = type(ours)(replace(ours.config, over_padding=True)).eval()
    leaking.load_state_dict(ours.state_dict())
    values, lengths, mask = batch(CASES[name])
    check_equal(name, values, lengths, mask, leaking)
    # Without a mask, as these models were trained, padding counts as audio there.
    check_equal(name, values, torch.full_like(lengths, values.shape[1]), None, leaking)


@pytest.mark.parametrize("name", STATES)
def test_an_item_is_itself_in_any_batch(name: str) -> None:
    theirs, ours = pair(name)
    values, lengths, mask = batch(CASES[name])
    with torch.no_grad():
        found = ours(values, lengths)
        for item, length in enumerate(lengths.tolist()):
            alone = ours(values[item : item + 1, :length], lengths[item : item + 1])
            own = found.values[item, : int(alone.lengths[0])]
            torch.testing.assert_close(own, alone.values[0], atol=1e-5, rtol=0)
        if CASES[name].padded == "leaks":  # which is why there is a switch
            other = theirs(values, attention_mask=mask).last_hidden_state[2, : int(found.lengths[2])]
            assert float((other - found.values[2, : int(found.lengths[2])]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_folders_both_ways(name: str, tmp_path: Path) -> None:
    theirs, ours = pair(name)
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = read_encoder(tmp_path / "theirs")
    assert loaded.encoder.config == ours.config  # type: ignore[comparison-overlap]
    # What is stored there and never used has no place here, and is made anew there.
    unused = {key for keys in loaded.dropped.values() for key in keys}
    assert all(key.startswith(CASES[name].unused) for key in unused)
    save_pretrained(loaded.encoder, tmp_path / "back", "huggingface", model_type=CASES[name].kind, kept=loaded.kept)
    again, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert set(report.pop("missing_keys")) == unused
    assert not any(report.values()), report
    state = again.state_dict()
    assert set(state) == set(theirs.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in theirs.state_dict().items() if key not in unused)
    save_pretrained(loaded.encoder, tmp_path / "ours")
    for folder in ("back", "ours"):
        final = load_encoder(tmp_path / folder)
        assert final.config == ours.config  # type: ignore[comparison-overlap]
        assert all(torch.equal(final.state_dict()[key], tensor) for key, tensor in ours.state_dict().items())


def test_every_kind_has_a_case() -> None:
    covered = {case.kind for case in CASES.values()}
    # A model with a head is the same encoder under a prefix; test_recognisers.py has those.
    assert covered == set(HUGGING_FACE) - {"parakeet_ctc"}


@pytest.mark.parametrize("normalise", [True, False])
def test_normalisation_comes_along(normalise: bool, tmp_path: Path) -> None:
    theirs, _ = pair("wav2vec2_stable")
    theirs.save_pretrained(tmp_path / "model")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    extractor.save_pretrained(tmp_path / "model")
    values, lengths, _ = batch(CASES["wav2vec2_stable"])
    waveforms = [3 * row[:length].numpy() + 0.5 for row, length in zip(values, lengths.tolist(), strict=True)]
    inputs = extractor(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")
    encoder: Any = load_encoder(tmp_path / "model")
    assert encoder.config.normalise is normalise
    with torch.no_grad():
        expected = theirs(inputs.input_values, attention_mask=inputs.attention_mask).last_hidden_state
        found = encoder((3 * values + 0.5), lengths)
    valid = torch.arange(found.values.shape[1]) < found.lengths[:, None]
    torch.testing.assert_close(found.values[valid], expected[valid], atol=1e-4, rtol=0)
    save_pretrained(encoder, tmp_path / "again", "huggingface")
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "again").do_normalize is normalise


def test_waveforms_through_the_features_that_an_encoder_was_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("librosa")
    theirs, _ = pair("parakeet")
    theirs.save_pretrained(tmp_path / "parakeet")
    encoder: Any = load_encoder(tmp_path / "parakeet", front=True)
    assert encoder.input == "waveform"
    lengths = torch.tensor([16000, 9000])
    waveforms = [
        0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths.tolist()
    ]
    extractor = transformers.ParakeetFeatureExtractor(feature_size=40)
    inputs = extractor([waveform.numpy() for waveform in waveforms], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(inputs.input_features, attention_mask=inputs.attention_mask)
        found = encoder(torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True), lengths)
    assert found.lengths.tolist() == expected.attention_mask.sum(-1).tolist()
    for item, size in enumerate(found.lengths.tolist()):
        difference = (found.values[item, :size] - expected.last_hidden_state[item, :size]).abs()
        assert float(difference.max()) < 1e-3
    save_pretrained(encoder, tmp_path / "whole")
    again: Any = load_encoder(tmp_path / "whole", layers=2)
    assert again.num_layers == 2
    pair("whisper")[0].save_pretrained(tmp_path / "whisper")
    whisper: Any = load_encoder(tmp_path / "whisper", front=True)
    assert whisper.front.config == whisper_front(20)
