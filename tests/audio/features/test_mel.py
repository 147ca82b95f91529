"""Mel spectrograms against librosa, Whisper's against its definition."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.features.mel import Mel, WhisperMel, hz_to_mel, mel, mel_to_hz, mel_weights
from sonorant.core.errors import ConfigError, DataError


def noise(count: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("sample_rate, n_fft, num_mels", [(16000, 512, 80), (22050, 1024, 80), (8000, 256, 40)])
def test_weights_equal_librosa(scale: str, norm: bool, sample_rate: int, n_fft: int, num_mels: int) -> None:
    reference = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=num_mels, fmin=60, htk=scale == "htk", norm="slaney" if norm else None,
        dtype=np.float64,
    )  # fmt: skip
    ours = mel_weights(num_mels, n_fft, sample_rate, 60.0, None, scale, norm)
    assert np.abs(ours.numpy().T - reference).max() < 1e-9


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("edges, mode", [("zero", "constant"), ("reflect", "reflect"), ("snip", None)])
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("win_length", [None, 400])
def test_spectrogram_equals_librosa(
    scale: str, edges: str, mode: str | None, power: float, win_length: int | None
) -> None:
    waveform = noise(7777)
    reference = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=512, hop_length=160, win_length=win_length, n_mels=64, fmin=20, fmax=7600,
        htk=scale == "htk", power=power, center=mode is not None, pad_mode=mode or "constant",
    )  # fmt: skip
    ours = mel(
        torch.from_numpy(waveform), num_mels=64, win_length=win_length, low_hz=20.0, high_hz=7600.0, mel_scale=scale,
        power=power, edges=edges,
    )  # fmt: skip
    assert ours.shape == reference.T.shape
    assert np.abs(ours.numpy() - reference.T).max() < 1e-4


def test_decibels_equal_librosa() -> None:
    waveform = noise(7777)
    reference = librosa.power_to_db(
        librosa.feature.melspectrogram(y=waveform, sr=16000, n_fft=512, hop_length=160), top_db=None
    )
    ours = mel(torch.from_numpy(waveform), num_mels=128, log_floor=1e-10) * (10 / np.log(10))
    assert np.abs(ours.numpy() - reference.T).max() < 1e-4 * 10


@given(st.floats(0, 20000), st.sampled_from(["slaney", "htk"]))
@settings(max_examples=50, deadline=None)
def test_scale_there_and_back(hz: float, scale: str) -> None:
    there = hz_to_mel(torch.tensor([hz], dtype=torch.float64), scale)
    assert abs(float(mel_to_hz(there, scale)) - hz) < 1e-6 * max(1.0, hz)


def test_whisper_equals_its_definition() -> None:
    """torch.stft of the item with 30 s of silence behind it, as in Whisper's own code."""
    waveform = torch.from_numpy(noise(20001))
    padded = torch.nn.functional.pad(waveform, (0, 480000 - len(waveform)))
    spectrum = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)[..., :-1].abs() ** 2
    weights = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80))
    log = (weights @ spectrum).clamp(min=1e-10).log10()
    reference = (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0
    ours = WhisperMel()(waveform[None]).values[0]
    assert len(ours) == 125
    assert (ours - reference[:, :125].T).abs().max() < 1e-4


@pytest.mark.parametrize("num_mels", [80, 128])
def test_whisper_equals_transformers(num_mels: int) -> None:
    """With silence up to 30 s all 3000 frames, without it those of the item."""
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels)
    items = [noise(size) for size in (20001, 48000, 33333)]
    expected = torch.from_numpy(extractor(items, sampling_rate=16000, return_tensors="np")["input_features"]).mT
    lengths = torch.tensor([len(item) for item in items])
    waveform = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(item) for item in items], batch_first=True)
    filled = WhisperMel(num_mels, seconds=30)(waveform, lengths)
    assert filled.lengths.tolist() == [3000] * 3
    assert (filled.values - expected).abs().max() < 1e-4
    own = WhisperMel(num_mels)(waveform, lengths)
    assert own.lengths.tolist() == [125, 300, 208]
    for item, count in enumerate(own.lengths.tolist()):
        assert (own.values[item, :count] - expected[item, :count]).abs().max() < 1e-4
    with pytest.raises(DataError, match="longer than the 2 s"):
        WhisperMel(num_mels, seconds=2)(waveform, lengths)


@pytest.mark.parametrize("options", [{"win_length": 600}, {"power": 0.0}, {"log_floor": 0.0}, {"high_hz": 9000.0}])
def test_nonsense_is_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Mel(**options)
