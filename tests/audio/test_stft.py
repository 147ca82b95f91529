"""STFT against torch's and librosa's, its inverse, and items in batches."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.stft import Stft, istft, magnitude, stft
from sonorant.core.errors import ConfigError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("edges, mode", [("zero", "constant"), ("reflect", "reflect"), ("snip", None)])
@pytest.mark.parametrize("win_length", [None, 300])
def test_equals_librosa(edges: str, mode: str | None, win_length: int | None) -> None:
    waveform = noise(3001)
    reference = librosa.stft(
        waveform.numpy(), n_fft=400, hop_length=100, win_length=win_length, center=mode is not None,
        pad_mode=mode or "constant",
    )  # fmt: skip
    ours = stft(waveform, 400, 100, win_length, edges=edges).numpy()
    assert ours.shape == reference.shape
    assert np.abs(ours - reference).max() < 1e-4


@given(
    n_fft=st.sampled_from([64, 100, 256]), overlap=st.sampled_from([2, 4]),
    counts=st.lists(st.integers(130, 900), min_size=1, max_size=4),
    edges=st.sampled_from(["zero", "reflect"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_there_and_back_in_a_batch(n_fft: int, overlap: int, counts: list[int], edges: str) -> None:
    waveform, lengths = noise(len(counts), max(counts)), torch.tensor(counts)
    transform = Stft(n_fft, n_fft // overlap, edges=edges)
    spectrum, frames = transform(waveform, lengths)
    back = transform.inverse(spectrum, lengths)
    for item, count in enumerate(counts):
        alone = stft(waveform[item, :count], n_fft, n_fft // overlap, edges=edges)
        assert int(frames[item]) == alone.shape[1]
        assert torch.equal(spectrum[item, :, : alone.shape[1]], alone)
        assert not spectrum[item, :, alone.shape[1] :].abs().any()
        # The last samples lie under one window's fading end when the hop does not divide the length.
        whole = (count // (n_fft // overlap)) * (n_fft // overlap)
        assert torch.allclose(back[item, :whole], waveform[item, :whole], atol=1e-4)
        assert not back[item, count:].any()


def test_channels_and_length() -> None:
    waveform = noise(2, 3, 1000)
    spectrum = stft(waveform, 256, 64)
    assert spectrum.shape == (2, 3, 129, 16)
    assert torch.allclose(istft(spectrum, 64, length=1000), waveform, atol=1e-5)
    assert istft(spectrum, 64, length=1200)[..., 1100:].abs().max() < 1e-6


def test_a_tone_stands_in_its_bin() -> None:
    tone = torch.cos(2 * torch.pi * 10 / 256 * torch.arange(2048))
    spectrum = stft(tone, 256, 64, edges="snip").abs()
    assert bool((spectrum.argmax(0) == 10).all())
    assert torch.allclose(spectrum[10], torch.tensor(64.0), atol=1e-3)  # half the window's sum


def test_parseval() -> None:
    waveform = noise(1, 4096)
    spectrum = stft(waveform, 256, 64, window_name="rectangular")[0].abs().square()
    total = (2 * spectrum.sum() - spectrum[0].sum() - spectrum[-1].sum()) / 256
    # Every sample lies under n_fft / hop = 4 windows, but for those near the ends.
    assert abs(float(total) / float(4 * waveform.square().sum()) - 1) < 0.03


def test_gradients() -> None:
    waveform = noise(2, 60).double().requires_grad_()
    lengths = torch.tensor([60, 41])

    def there(x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(stft(x, 16, 4, edges="reflect", lengths=lengths))

    def back(x: torch.Tensor) -> torch.Tensor:
        return istft(stft(x, 16, 4, lengths=lengths) * 2, 4, lengths=lengths)

    assert torch.autograd.gradcheck(there, (waveform,))
    assert torch.autograd.gradcheck(back, (waveform,))


def test_magnitude_of_silence_has_a_gradient() -> None:
    waveform = torch.zeros(300, requires_grad=True)
    magnitude(stft(waveform, 64, 16), floor=1e-5).sum().backward()
    assert bool(torch.isfinite(waveform.grad).all())


def test_empty_and_nonsense() -> None:
    assert stft(torch.zeros(2, 10), 64, 16, edges="snip").shape == (2, 33, 0)
    with pytest.raises(ConfigError, match="win_length=500"):
        stft(torch.zeros(1000), 400, 100, 500)
    with pytest.raises(ConfigError, match="one length an item"):
        stft(torch.zeros(2, 1000), 400, 100, lengths=torch.tensor([5]))
