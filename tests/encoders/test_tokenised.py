"""Encoders on codes: the battery, codes that rest while the network learns, and a checkpoint that holds all of it."""

from pathlib import Path

import pytest
import torch
from tests.contracts.encoders import check_encoder

from sonorant.core.errors import ConfigError
from sonorant.encoders import cpc
from sonorant.encoders.checkpoint import load_trained_encoder, save_trained_encoder
from sonorant.encoders.cpc import wav2vec_tiny
from sonorant.encoders.spectral import SpectralFront, mfcc_front
from sonorant.encoders.tera import tera_tiny
from sonorant.encoders.tokenised import Tokenised, TokenisedConfig, build, tokenised
from sonorant.nn.quantize.quantizer import joint_codes

SMALL = {"input_dim": 12, "dim": 16, "ffn_dim": 32, "num_heads": 2}


def on_cepstra() -> TokenisedConfig:
    return tokenised(SpectralFront(mfcc_front(50)), "vq", {"dim": 39, "codebook_size": 8}, tera_tiny(**SMALL))


def on_codes() -> TokenisedConfig:
    options = {"dim": 32, "codebook_size": 6, "num_groups": 2, "depth": 2}
    return tokenised(cpc.build(wav2vec_tiny()), "gumbel", options, tera_tiny(**SMALL), layer=0)


@pytest.mark.parametrize("config", [on_cepstra(), on_codes()])
def test_contract(config: TokenisedConfig) -> None:
    # A code is all or nothing, so that half precision may choose another; its frames are of unequal number for export.
    check_encoder(lambda: build(config), input_dim=0, export=False, low_precision=False)


def test_what_makes_the_codes_rests() -> None:
    torch.manual_seed(0)
    encoder, wave = build(on_codes()).train(), torch.randn(2, 8000)
    lengths = torch.tensor([8000, 6000])
    assert not encoder.front.training
    assert not encoder.quantizer.training
    assert encoder.on_units.training
    before = encoder.tokenise(wave, lengths)
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder(wave, lengths).values.square().sum().backward()
    optimizer.step()
    after = encoder.tokenise(wave, lengths)
    assert torch.equal(before.ids, after.ids)
    assert all(parameter.grad is None for parameter in [*encoder.front.parameters(), *encoder.quantizer.parameters()])
    assert all(table.weight.grad is not None for table in encoder.on_units.embeddings)


def test_codes_are_those_of_the_layer() -> None:
    torch.manual_seed(0)
    encoder, wave, lengths = build(on_codes()).eval(), torch.randn(1, 8000), torch.tensor([8000])
    codes = encoder.tokenise(wave, lengths)
    local = encoder.front.local(wave, lengths)
    assert torch.equal(codes.ids, encoder.quantizer.encode(local).ids)
    assert codes.codebook_sizes == (6, 6)
    assert encoder.num_units == 36
    assert int(joint_codes(codes.ids, codes.codebook_sizes).max()) < 36
    through = encoder.on_units(codes.ids, codes.lengths)
    torch.testing.assert_close(through.values, encoder(wave, lengths).values)


def test_receptive_field_is_that_of_one_code() -> None:
    encoder = build(on_codes())
    assert encoder.receptive_field == encoder.front.receptive_field
    assert encoder.frame_rate == encoder.on_units.frame_rate == 100


def test_a_checkpoint_holds_front_codes_and_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build(on_cepstra()).eval()
    front = encoder.front
    wave, lengths = torch.randn(1, 8000), torch.tensor([8000])
    front.normalise.update(front.local(wave, lengths))
    again = load_trained_encoder(save_trained_encoder(encoder, tmp_path / "encoder"))
    assert isinstance(again, Tokenised)
    assert torch.equal(again(wave, lengths).values, encoder(wave, lengths).values)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="layer"):
        TokenisedConfig(layer=-1)
