"""Masked autoencoders: what is hidden, what the encoder sees, what counts, and that it is learnt."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Features
from sonorant.encoders.dasheng import dasheng_tiny
from sonorant.encoders.patch import patch_tiny
from sonorant.encoders.spectral import OnSpectrum, on_spectrum
from sonorant.encoders.tera import tera_tiny
from sonorant.objectives.masked_patches import (
    MaskedPatches,
    MaskedPatchesConfig,
    audio_mae_objective,
    dasheng_objective,
    msm_mae_objective,
    patch_mask,
)

FRONT: dict[str, Any] = {"sample_rate": 1000, "dim": 6, "hop": 0.02}
SMALL: dict[str, Any] = {"dim": 16, "num_heads": 2, "ffn_dim": 32}
ENCODERS: dict[str, Any] = {
    "patches": patch_tiny(**SMALL, patch=(2, 3), stride=(2, 3)),
    "columns": dasheng_tiny(**SMALL, patch=(6, 2), stride=(6, 2), max_columns=40),
}
NARROW: dict[str, Any] = {"decoder_dim": 16, "decoder_layers": 1, "decoder_heads": 2}


def make(ids: Any, extra: int = 0) -> Batch:
    return batch_of(tuple(ids), extra)


def encoder_of(name: str) -> OnSpectrum:
    encoder = OnSpectrum(on_spectrum(ENCODERS[name], **FRONT))
    batch = make([f"fit{index}" for index in range(8)])
    encoder.front.normalise.fit([encoder.front.local(batch.waveform, batch.lengths)])
    return encoder


CASES: dict[str, tuple[str, MaskedPatchesConfig]] = {
    "audio mae": ("patches", audio_mae_objective(**NARROW)),
    "msm mae": ("patches", msm_mae_objective(**NARROW, style="columns", share=0.4)),
    "rows": ("patches", msm_mae_objective(**NARROW, style="rows", share=0.4, normalise_targets=False)),
    "dasheng": ("columns", dasheng_objective(**NARROW)),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str) -> None:
    family, config = CASES[name]
    check_objective(lambda: MaskedPatches(encoder_of(family), config), make, chance=(0.3, 3.0), fall=0.8)


def test_one_batch_is_learnt_by_heart() -> None:
    """Far below what saying the same everywhere gives."""
    torch.manual_seed(0)
    objective = MaskedPatches(encoder_of("patches"), msm_mae_objective(**{**NARROW, "decoder_dim": 32}))
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    batch = make("ab")
    for _ in range(250):
        optimizer.zero_grad()
        objective.losses(batch)["model"].mean.backward()
        optimizer.step()
    objective.eval()
    known = objective.diagnose(batch)
    assert known["l2"] < 0.25 * known["l2_naive"]


@pytest.mark.parametrize("style", ["patches", "columns", "rows"])
def test_what_is_hidden(style: str) -> None:
    seeds, lengths = torch.arange(1, 401), torch.arange(400) % 12
    mask = patch_mask(seeds, lengths, 14, 5, 0.6, style)
    counts = mask.flatten(1).sum(1)
    for item, length in enumerate(lengths.tolist()):
        assert not mask[item, length:].any()
        alone = patch_mask(seeds[item : item + 1], lengths[item : item + 1], max(length, 1), 5, 0.6, style)
        assert torch.equal(alone[0, :length], mask[item, :length])
        if style == "patches":
            assert int(counts[item]) == round(0.6 * 5 * length)
        elif style == "columns":
            assert (mask[item].sum(1) % 5 == 0).all()
            assert int(counts[item]) == (5 * min(max(1, round(0.6 * length)), length - 1) if length > 1 else 0)
        else:
            assert int(counts[item]) == 3 * length
            assert (mask[item, :length] == mask[item, :1]).all()
    whole = mask[lengths == 11]
    share = whole[:, :11].float().mean(0)  # every place is hidden as often as any other
    assert (share - share.mean()).abs().max() < 0.35


def test_the_encoder_sees_visible_patches_only_and_hidden_ones_count() -> None:
    torch.manual_seed(0)
    objective = MaskedPatches(encoder_of("patches"), msm_mae_objective(**NARROW, share=0.5)).eval()
    batch = make("abcd")
    inner = objective.encoder.encoder
    plain, seen = inner.encode_tokens, []

    def spy(tokens: Features) -> Features:
        seen.append(tokens)
        return plain(tokens)

    inner.encode_tokens = spy
    loss = objective.losses(batch)["model"]
    local = objective.encoder.local(batch.waveform, batch.lengths)
    counts = local.lengths * 3
    hidden = (0.5 * counts).round().long()
    assert int(loss.count) == int(hidden.sum())
    assert seen[0].lengths.tolist() == (counts - hidden).tolist()
    assert seen[0].values.shape[1] == int((counts - hidden).max())

    # What stands in hidden patches changes what is asked for, and nothing of what is said.
    mask = patch_mask(batch.seeds, local.lengths, local.values.shape[1], 3, 0.5)

    def answer(values: Tensor) -> Any:
        objective.encoder.local = lambda waveform, lengths: replace(local, values=values)
        return objective._answer(batch)

    patches = local.values.unflatten(-1, (3, -1))
    before, after = (
        answer(local.values),
        answer(torch.where(mask[..., None], 7 * patches.flip(-1) + 1, patches).flatten(2)),
    )
    assert torch.equal(before.said, after.said)
    assert (before.target - after.target).abs().max() > 0.1
    turned = answer(torch.where(mask[..., None], patches, -patches).flatten(2))
    assert torch.equal(before.target, turned.target)
    assert (before.said - turned.said).abs().max() > 1e-3


def test_targets_are_normalised_patch_by_patch() -> None:
    objective = MaskedPatches(encoder_of("patches"), msm_mae_objective(**NARROW)).eval()
    target = objective._answer(make("ab")).target
    torch.testing.assert_close(target.mean(1), torch.zeros(len(target)), atol=1e-5, rtol=0)
    assert (target.var(1, unbiased=False) - 1).abs().max() < 0.05


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        MaskedPatches(OnSpectrum(on_spectrum(patch_tiny(patch=(3, 3), stride=(3, 2)), **FRONT)), msm_mae_objective())
    with pytest.raises(ConfigError, match="trains encoders of patches"):
        MaskedPatches(OnSpectrum(on_spectrum(tera_tiny(), **FRONT)), msm_mae_objective())
    with pytest.raises(ConfigError, match="the encoder has one"):
        MaskedPatches(encoder_of("columns"), dasheng_objective(style="rows"))
    with pytest.raises(ConfigError, match="must divide decoder_dim"):
        MaskedPatchesConfig(decoder_heads=5)
