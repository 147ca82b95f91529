"""An encoder behind a front end keeps the contract of encoders of waveforms."""

import pytest
import torch
from tests.contracts.encoders import check_encoder
from torch import nn

from sonorant.audio.features.fbank import Fbank
from sonorant.core.errors import DataError
from sonorant.core.types import Batch
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.on_features import OnFeatures


def fresh() -> nn.Module:
    encoder = build_encoder("conformer_tiny", input_dim=20, dim=24, num_heads=2, ffn_dim=32, kernel_size=5)
    return OnFeatures(Fbank(num_mels=20), encoder)


def build() -> nn.Module:
    whole = fresh()
    whole.fit_normalisation([Batch(torch.linspace(-1, 1, 16000).sin()[None], torch.tensor([16000]), 16000)])
    return whole


def test_contract() -> None:
    # The front end measures the power of frames, whose log in bfloat16 weights is another question: the weights alone
    # are cast, by autocast. Its export is tested with the features.
    check_encoder(build, input_dim=0, lengths=(9100, 12333, 8000, 10700), low_precision=False, export=False)


def test_normalisation_is_gathered_and_kept_with_the_weights() -> None:
    torch.manual_seed(0)
    encoder, other = fresh().eval(), fresh().eval()
    waveform = 0.1 * torch.randn(2, 16000)
    batch = Batch(waveform, torch.tensor([16000, 9000]), 16000)
    encoder.fit_normalisation([batch])
    features = encoder.features(batch.waveform, batch.lengths)
    valid = torch.cat([item[:n] for item, n in zip(features.values, features.lengths.tolist(), strict=True)])
    torch.testing.assert_close(valid.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(valid.std(0), torch.ones(20), atol=1e-2, rtol=0)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(waveform, batch.lengths).values, encoder(waveform, batch.lengths).values)
    with pytest.raises(DataError, match="split is empty"):
        encoder.fit_normalisation([])
