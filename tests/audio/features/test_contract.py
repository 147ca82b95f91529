"""The battery over every features module; kinds and edges that matter for padding each in one configuration."""

import jaxtyping
import pytest
import torch
from tests.contracts.features import check_batch_equals_single, check_features, check_lengths

from sonorant.audio.features.decibel import DecibelMel
from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.gammatone import Gammatone
from sonorant.audio.features.mel import Mel, WhisperMel
from sonorant.audio.features.mfcc import Mfcc
from sonorant.core.types import Features

MODULES = {
    "fbank": lambda: Fbank(),
    "fbank, mirrored edges, raw energy": lambda: Fbank(num_mels=40, snip_edges=False, energy="raw", window="hamming"),
    "fbank, 8 kHz, windowed energy, 16-bit scale": lambda: Fbank(8000, 23, energy="windowed", scale=32768.0),
    "fbank, no pre-emphasis, DC kept": lambda: Fbank(preemphasis=0.0, remove_dc=False, window="rectangular"),
    "fbank, hop that does not divide": lambda: Fbank(11025, 30, frame_length=0.0231, hop=0.0077, snip_edges=False),
    "mfcc": lambda: Mfcc(),
    "mfcc, mirrored edges, c0": lambda: Mfcc(energy="none", snip_edges=False),
    "mel, linear": lambda: Mel(),
    "mel, log, reflected": lambda: Mel(log_floor=1e-10, edges="reflect", mel_scale="htk", norm=False),
    "mel, magnitude, short window": lambda: Mel(power=1.0, win_length=320, log_floor=1e-5, hop_length=200),
    "whisper": lambda: WhisperMel(),
    "decibel": lambda: DecibelMel(),
    "gammatone": lambda: Gammatone(),
    "gammatone, mirrored, linear": lambda: Gammatone(num_bands=20, snip_edges=False, log_floor=None),
}


@pytest.mark.parametrize("name", MODULES)
def test_contract(name: str) -> None:
    # Whisper's floor hangs on the item's own peak, which a shift may move out.
    check_features(MODULES[name]())


class _Leaky(torch.nn.Module):
    """A module that sees its neighbours: normalised by the peak of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Fbank()
        self.sample_rate, self.dim, self.geometry = 16000, 80, self.inner.geometry

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> Features:
        return self.inner(waveform / waveform.abs().max().clamp(min=1e-5) if waveform.numel() else waveform, lengths)


def test_battery_catches_a_leak() -> None:
    with pytest.raises(AssertionError, match="differs by"):
        check_batch_equals_single(_Leaky(), 4800)


def test_battery_catches_wrong_lengths() -> None:
    module = Fbank()
    module.output_lengths = lambda lengths: lengths // 160  # type: ignore[method-assign]
    with pytest.raises((AssertionError, RuntimeError)):
        check_lengths(module, 4800)


@pytest.mark.parametrize(
    "name", ["fbank", "fbank, mirrored edges, raw energy", "mfcc", "mel, log, reflected", "gammatone"]
)
@pytest.mark.filterwarnings("ignore")
def test_exported_equals_eager(name: str) -> None:
    """Traced once, for any batch and any length; the graph computes the padding too and gives the same."""
    auto = torch.export.Dim.AUTO
    module = MODULES[name]()
    example = (torch.randn(2, 6000), torch.tensor([6000, 4000]))
    jaxtyping.config.update("jaxtyping_disable", True)  # symbolic sizes are no ints to a type checker
    try:
        exported = torch.export.export(
            _Values(module), example, dynamic_shapes=({0: auto, 1: auto}, {0: auto}), strict=False
        )
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    program = exported.module()
    waveform, lengths = torch.randn(3, 9999), torch.tensor([9999, 3000, 40])
    assert torch.equal(program(waveform, lengths), module(waveform, lengths).values)


class _Values(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.module(waveform, lengths).values


@pytest.mark.parametrize("name", MODULES)
def test_dense_path_equals_packed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerators compute, on this processor."""
    module = MODULES[name]()
    waveform, lengths = torch.randn(4, 6000), torch.tensor([6000, 3000, 40, 0])
    waveform[1, 3000:] = float("nan")
    packed, whole = module(waveform, lengths), module(waveform[:1])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(module(waveform, lengths).values, packed.values)
    assert torch.equal(module(waveform[:1]).values, whole.values)
