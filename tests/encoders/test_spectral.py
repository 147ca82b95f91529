"""Spectral fronts as encoders without layers, encoders of features on top of them, and their checkpoints."""

from pathlib import Path

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.audio.features.deltas import add_deltas
from sonorant.audio.features.fbank import Fbank
from sonorant.audio.features.mfcc import Mfcc
from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.core.types import Features
from sonorant.encoders.checkpoint import describe_config, described_module, load_trained_encoder, save_trained_encoder
from sonorant.encoders.conformer import Conformer, conformer_tiny
from sonorant.encoders.spectral import (
    FrontConfig,
    OnSpectrum,
    SpectralFront,
    ast_front,
    beats_front,
    build,
    dasheng_front,
    log_mel_front,
    mfcc_front,
    on_spectrum,
    whisper_front,
)

WAVES = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([8000, 5000, 450])


@pytest.mark.parametrize("rate", [100, 50, 25])
@pytest.mark.parametrize("make", [mfcc_front, log_mel_front])
def test_an_item_alone_is_as_in_a_batch_and_padding_does_not_matter(make: object, rate: int) -> None:
    front = SpectralFront(make(rate))  # type: ignore[operator]
    front.normalise.fit([front.local(WAVES, LENGTHS)])
    waves = WAVES.clone()
    waves[1, 5000:] = torch.nan
    together = front(waves, LENGTHS)
    assert together.frame_rate == front.frame_rate == rate
    assert together.lengths.tolist() == front.output_lengths(LENGTHS).tolist()
    for row, length in enumerate(LENGTHS.tolist()):
        alone = front(WAVES[row : row + 1, :length], LENGTHS[row : row + 1])
        assert alone.values.shape[1] == front.output_lengths(length)
        assert torch.allclose(together.values[row, : alone.values.shape[1]], alone.values[0], atol=1e-5)
        assert not together.values[row, alone.values.shape[1] :].any()


def test_a_lower_rate_keeps_the_frame_in_the_middle() -> None:
    whole = add_deltas(Mfcc(16000)(WAVES, LENGTHS)).values
    thin = SpectralFront(mfcc_front(frame_rate=25)).local(WAVES, LENGTHS).values
    assert torch.equal(thin[0], whole[0, 1::4][: thin.shape[1]])
    assert thin.shape[2] == 39


def test_it_is_an_encoder_without_layers() -> None:
    front = SpectralFront(FrontConfig(stack=3))
    (only,) = front(WAVES, LENGTHS, layers=True)
    assert torch.equal(only.values, front(WAVES, LENGTHS).values)
    assert (front.num_layers, front.dim, only.values.shape[2]) == (0, 117, 117)
    with pytest.raises(ConfigError, match="stack"):
        FrontConfig(stack=0)


TINY = on_spectrum(conformer_tiny(num_layers=1, dim=16, ffn_dim=16), dim=20)


def test_an_encoder_of_features_becomes_one_of_waveforms() -> None:
    encoder = OnSpectrum(TINY).eval()
    frames = encoder.front(WAVES, LENGTHS)
    assert isinstance(encoder.encoder, Conformer)
    assert isinstance(frames, Features)
    inner = encoder.encoder(frames.values, frames.lengths, layers=True)
    outer = encoder(WAVES, LENGTHS, layers=True)
    assert len(outer) == encoder.num_layers + 1
    assert all(torch.equal(a.values, b.values) for a, b in zip(inner, outer, strict=True))
    assert encoder.output_lengths(LENGTHS).tolist() == outer[-1].lengths.tolist()
    seen = encoder.receptive_field
    assert encoder.output_lengths(seen) >= 1
    assert encoder.context(encoder.embed(encoder.local(WAVES, LENGTHS)), between=lambda i, x: x).values.shape[2] == 16
    assert len(encoder.attention_maps(WAVES, LENGTHS)) == 1


def test_a_stored_encoder_comes_back_with_its_statistics(tmp_path: Path) -> None:
    encoder = OnSpectrum(TINY).eval()
    encoder.front.normalise.fit([encoder.front.local(WAVES, LENGTHS)])
    save_trained_encoder(encoder, tmp_path / "encoder", {"steps": 3})
    again = load_trained_encoder(tmp_path / "encoder")
    assert torch.equal(again(WAVES, LENGTHS).values, encoder(WAVES, LENGTHS).values)
    assert not again.training
    save_trained_encoder(SpectralFront(mfcc_front()), tmp_path / "front")
    assert isinstance(load_trained_encoder(tmp_path / "front"), SpectralFront)


def test_only_families_of_the_package_are_stored_and_loaded() -> None:
    with pytest.raises(CheckpointError, match="needs .config"):
        describe_config(object())
    described = ("conformer", "Conformer"), ("conformer", "Features"), ("adapt", "LoraConfig")
    named = [{"family": family, "type": kind} for family, kind in described]
    for told in ({"family": "os"}, {"family": "..core"}, *named, {}):
        with pytest.raises(CheckpointError, match="no family|no configuration"):
            described_module(told)
    assert isinstance(build(FrontConfig()), SpectralFront)


def test_it_keeps_what_encoders_promise() -> None:
    check_encoder(lambda: OnSpectrum(TINY), input_dim=0, lengths=(6100, 8333, 4000, 5700), dynamic=False)


# --- fronts that published encoders were trained on -------------------------------------------------------------------


@pytest.mark.parametrize("base", [whisper_front(), whisper_front(128), ast_front(), beats_front(), dasheng_front()])
def test_published_fronts_are_fitted_to_their_encoders(base: FrontConfig) -> None:
    encoder = OnSpectrum(on_spectrum(conformer_tiny(), base)).eval()
    assert encoder.encoder.config.input_dim == base.dim
    waves = WAVES.clone()
    waves[1, 5000:] = torch.nan
    together = encoder.front(waves, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder.front(WAVES[row : row + 1, :length], LENGTHS[row : row + 1])
        assert torch.allclose(together.values[row, : alone.values.shape[1]], alone.values[0], atol=1e-4)
        assert not together.values[row, alone.values.shape[1] :].any()
    assert encoder(WAVES, LENGTHS).values.isfinite().all()
    again = described_module(describe_config(encoder.config))
    assert again.config == encoder.config


def test_the_front_of_ast_is_that_of_transformers() -> None:
    """Among its 128 bands is one without a bin, which it warns of."""
    transformers = pytest.importorskip("transformers")
    with pytest.warns(UserWarning, match="all zero values"):
        extractor = transformers.ASTFeatureExtractor(max_length=48)
    expected = extractor(WAVES[0].numpy(), sampling_rate=16000, return_tensors="pt")
    own = SpectralFront(ast_front())(WAVES[:1], LENGTHS[:1])
    assert own.lengths.tolist() == [48]
    assert (own.values.std(dim=1) < 1e-6).sum() == 1
    torch.testing.assert_close(own.values, expected["input_values"], atol=1e-3, rtol=0)


def test_the_front_of_beats_is_kaldis_on_integers_by_its_statistics() -> None:
    own = SpectralFront(beats_front())(WAVES[:1], LENGTHS[:1])
    kaldi = Fbank(num_mels=128, scale=32768.0, empty_bands=True)(WAVES[:1]).values
    torch.testing.assert_close(own.values, (kaldi - 15.41663) / 13.11164, atol=1e-5, rtol=0)


def test_fronts_that_are_not_defined_are_refused() -> None:
    with pytest.raises(ConfigError, match="defined for 16 kHz"):
        FrontConfig(kind="whisper", sample_rate=8000)
    with pytest.raises(ConfigError, match="std and scale"):
        FrontConfig(std=0.0)
