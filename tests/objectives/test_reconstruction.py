"""Reconstruction: targets by hand, what each method asks for, and that it is learnt."""

from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective, item_of
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features
from sonorant.encoders.apc import apc_tiny
from sonorant.encoders.npc import npc_tiny
from sonorant.encoders.spectral import OnSpectrum, on_spectrum
from sonorant.encoders.tera import tera_tiny
from sonorant.nn.alteration import Alteration
from sonorant.nn.quantize.gumbel import GumbelCodebook
from sonorant.nn.quantize.quantizer import Quantizer
from sonorant.objectives.reconstruction import (
    Reconstruction,
    ReconstructionConfig,
    apc_objective,
    mae_objective,
    mockingjay_objective,
    npc_objective,
    stacked_targets,
    tera_objective,
    vq_apc_objective,
)

FRONT: dict[str, Any] = {"sample_rate": 1000, "dim": 6, "hop": 0.02}
ENCODERS: dict[str, Any] = {
    "apc": apc_tiny(dim=16),
    "npc": npc_tiny(dim=16, kernel_size=11, mask_size=1),
    "tera": tera_tiny(dim=16, num_heads=2, ffn_dim=32),
    "stacked": tera_tiny(dim=16, num_heads=2, ffn_dim=32, factor=3),
}


def make(ids: Any, extra: int = 0) -> Batch:
    return batch_of(tuple(ids), extra)


def encoder_of(name: str) -> OnSpectrum:
    encoder = OnSpectrum(on_spectrum(ENCODERS[name], **FRONT))
    batch = make([f"fit{index}" for index in range(8)])
    encoder.front.normalise.fit([encoder.front.local(batch.waveform, batch.lengths)])
    return encoder


CODES: dict[str, Any] = {"num_codes": 16, "num_groups": 2}


CASES: dict[str, tuple[str, ReconstructionConfig]] = {
    "apc": ("apc", apc_objective(2)),
    "npc": ("npc", npc_objective(**CODES)),
    "npc without codes": ("npc", npc_objective(num_codes=0)),
    "vq apc": ("apc", vq_apc_objective(2, **CODES)),
    "vq apc, in the middle": ("apc", vq_apc_objective(2, 1, **CODES)),
    "mockingjay": ("tera", mockingjay_objective(3)),
    "mockingjay, stacked": ("stacked", mockingjay_objective(3)),
    "tera": ("tera", tera_objective(alter=Alteration(span=3, band_share=0.5, noise_prob=0.5))),
    "mae": ("tera", mae_objective(0.5, 3)),
    "apc, stacked": ("stacked", apc_objective(1, distance="l2")),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    family, config = CASES[name]
    fall = 0.95 if config.num_codes else 0.8
    check_objective(lambda: Reconstruction(encoder_of(family), config), make, chance=(0.3, 3.0), fall=fall)


def test_contract_with_a_penalty() -> None:
    config = vq_apc_objective(2, diversity=0.1, **CODES)
    # The penalty for codes that are not used is of the batch, so batches do not add up; their reconstructions do.
    check_objective(lambda: Reconstruction(encoder_of("apc"), config), make, additive=False, fall=0.95)


def test_draws_of_a_quantiser_are_of_the_item() -> None:
    torch.manual_seed(0)
    objective = Reconstruction(encoder_of("npc"), npc_objective(**CODES)).train()
    batch = make(("a", "b", "c"))
    with torch.no_grad():
        alone = [objective.losses(item_of(batch, item))["model"] for item in range(3)]
        whole = objective.losses(batch)["model"]
    assert float(whole.total) == pytest.approx(sum(float(loss.total) for loss in alone), rel=1e-4)


@torch.no_grad()
def test_targets_by_hand() -> None:
    """One item, the distance of each frame to the one that comes, without the objective's own arithmetic."""
    torch.manual_seed(0)
    objective = Reconstruction(encoder_of("apc"), apc_objective(3)).eval()
    batch = make(("a", "b"))
    total, count = 0.0, 0
    for item in range(2):
        alone = item_of(batch, item)
        target = objective.encoder.front(alone.waveform, alone.lengths).values[0]
        said = objective.head(objective.encoder(alone.waveform, alone.lengths).values)[0]
        for frame in range(len(target) - 3):
            total += float((said[frame] - target[frame + 3]).abs().mean())
            count += 1
    loss = objective.losses(batch)["model"]
    assert float(loss.count) == count
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-4)


def test_only_what_was_altered_is_asked_for() -> None:
    torch.manual_seed(0)
    config = mockingjay_objective(3)
    objective = Reconstruction(encoder_of("tera"), config).eval()
    batch = make(("a", "b", "c"))
    target = objective.encoder.front(batch.waveform, batch.lengths)
    altered, asked = config.alter(target.values, target.lengths, batch.seeds)
    said = objective.head(objective.encoder.encoder(altered, target.lengths).values)
    expected = (said - target.values).abs()[asked].sum() / 6
    loss = objective.losses(batch)["model"]
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert float(loss.count) == asked[..., 0].sum()


def test_stacks() -> None:
    values = torch.arange(1.0, 11)[None, :, None]
    assert stacked_targets(values, 3, 3, 0)[0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert stacked_targets(values, 3, 3, 1)[0].tolist() == [[4, 5, 6], [7, 8, 9], [10, 0, 0]]
    assert stacked_targets(values, 3, 3, 2)[0].tolist() == [[5, 6, 7], [8, 9, 10], [0, 0, 0]]
    assert stacked_targets(values, 10, 1, 4)[0, :, 0].tolist() == [5, 6, 7, 8, 9, 10, 0, 0, 0, 0]


def test_a_future_that_an_encoder_sees_is_not_asked_for() -> None:
    """The target of a frame lies behind all frames that made it."""
    for factor, shift in [(1, 1), (1, 5), (3, 1), (3, 4)]:
        numbers = torch.arange(1.0, 40)[None, :, None]
        targets = stacked_targets(numbers, 39 // factor, factor, shift)[0, :5]
        last_seen = factor * torch.arange(1, 6)
        assert torch.equal(targets[:, 0], (last_seen + shift).float())


@pytest.mark.parametrize("diversity", [0.0, 0.1])
def test_codes_that_are_never_used_break_no_gradient(diversity: float) -> None:
    """Sharp logits leave most codes a share of exactly 0."""
    torch.manual_seed(0)
    objective = Reconstruction(encoder_of("npc"), npc_objective(diversity=diversity, **CODES)).train()
    with torch.no_grad():
        for group in objective.quantizer.codebook.codebooks:
            group.logits[0].weight.mul_(1e4)
    objective.losses(make(("a", "b")))["model"].total.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"


@torch.no_grad()
def test_a_quantiser_stands_where_it_was_put() -> None:
    """One that says nothing leaves the layers behind it with nothing."""
    torch.manual_seed(0)
    batch = make(("a", "b"))
    for after in (1, 2, -1):
        objective = Reconstruction(encoder_of("apc"), vq_apc_objective(2, after, **CODES)).eval()
        seen = objective.encoder.front(batch.waveform, batch.lengths)
        diagnosis = objective.diagnose(batch)
        assert 1 < diagnosis["code_perplexity"] <= 16
        assert 1 < diagnosis["code1_perplexity"] <= 16
        for group in objective.quantizer.codebook.codebooks:
            assert group.temperature == 0.5
            group.entries.zero_()
        frames = objective._answer(seen).frames
        expected = torch.zeros_like(frames.values)
        if after == 1:
            expected = objective.encoder.blocks[1](expected, frames.lengths)
        torch.testing.assert_close(frames.values, expected)


def test_learning_beats_the_naive_answer() -> None:
    """TERA's reconstruction gets nearer to the clean frames than the altered ones are."""
    torch.manual_seed(0)
    objective = Reconstruction(encoder_of("tera"), tera_objective(alter=Alteration(span=3, zero_prob=1, swap_prob=0)))
    batch = make([f"train{index}" for index in range(8)])
    before = objective.diagnose(batch)
    assert before["l1"] > before["l1_naive"]
    optimizer = torch.optim.Adam(objective.parameters(), lr=8e-3)
    for _ in range(50):
        optimizer.zero_grad()
        objective.losses(batch)["model"].mean.backward()
        optimizer.step()
    after = objective.diagnose(batch)
    assert after["l1"] < 0.8 * after["l1_naive"]
    assert after["l1_naive"] == before["l1_naive"]


def test_naive_answers() -> None:
    torch.manual_seed(0)
    batch = make(("a",))
    objective = Reconstruction(encoder_of("apc"), apc_objective(2)).eval()
    values = objective.encoder.front(batch.waveform, batch.lengths).values[0]
    copied = (values[2:] - values[:-2]).abs().mean()
    assert objective.diagnose(batch)["l1_naive"] == pytest.approx(float(copied), rel=1e-4)
    objective = Reconstruction(encoder_of("npc"), npc_objective()).eval()
    assert objective.diagnose(batch)["l1_naive"] == pytest.approx(float(values.abs().mean()), rel=1e-4)


def test_what_cannot_be_is_refused() -> None:
    encoder = encoder_of("apc")
    with pytest.raises(ConfigError, match="quantize_after=3"):
        Reconstruction(encoder, vq_apc_objective(2, 3, **CODES))
    with pytest.raises(ConfigError, match=r"16 wide, as the encoder's, got \(8, 8\)"):
        Reconstruction(encoder, vq_apc_objective(2), Quantizer(GumbelCodebook(8, 4)))
    with pytest.raises(ConfigError, match="num_groups must divide"):
        Reconstruction(encoder, npc_objective(num_groups=5))
    with pytest.raises(ConfigError, match="shift must be 0"):
        tera_objective(shift=2)
    with pytest.raises(ConfigError, match="head_layers"):
        npc_objective(head_layers=3)
    with pytest.raises(ConfigError, match="whole stacks"):
        Reconstruction(_Odd(encoder), npc_objective())
    with pytest.raises(ConfigError, match="Reconstruction takes an encoder of waveforms"):
        Reconstruction(encoder.encoder, apc_objective())
    batch = make(("a",))
    bare = Batch(batch.waveform, batch.lengths, batch.sample_rate)
    with pytest.raises(ConfigError, match=r"draws from batch\.seeds"):
        Reconstruction(encoder_of("tera"), tera_objective()).losses(bare)


class _Odd(nn.Module):
    """An encoder whose frames are not whole stacks."""

    input, frame_rate = "waveform", 33.0

    def __init__(self, encoder: OnSpectrum) -> None:
        super().__init__()
        self.encoder, self.front, self.dim = encoder.encoder, encoder.front, encoder.dim

    def forward(self, values: Tensor, lengths: Tensor) -> Features:
        return self.encoder(values, lengths)
