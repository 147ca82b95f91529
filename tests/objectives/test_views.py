"""What objectives show their encoders: masks as wide as the first block, audio of unchanged length; and whom they take."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch
from sonorant.encoders.conformer import conformer_tiny
from sonorant.encoders.spectral import OnSpectrum, on_spectrum
from sonorant.encoders.zipformer import zipformer_tiny
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.catalogue import build_objective

MASK = MaskConfig(prob=0.5, span=4)


def zipformer() -> OnSpectrum:
    """Stacks 48 and 64 wide."""
    return OnSpectrum(on_spectrum(zipformer_tiny(output_factor=1), dim=8, sample_rate=1000))


@pytest.mark.parametrize(
    "name, changes",
    [
        ("hubert", {"num_units": 8}),
        ("wav2vec2", {"num_negatives": 5, "codebook_size": 8, "code_dim": 8, "dim": 8}),
        ("data2vec", {"top_layers": 1}),
        ("dinosr", {"top_layers": 1, "codebook_size": 8}),
        ("dino", {"num_codes": 16, "hidden_dim": 16, "dim": 8}),
    ],
)
def test_masks_are_as_wide_as_the_first_block(name: str, changes: dict[str, Any]) -> None:
    objective: Any = build_objective(name, zipformer(), mask=MASK, **changes)
    assert (objective.encoder.embed_dim, objective.encoder.dim) == (48, 64)
    loss = objective.losses(batch_of(("a", "b"), seconds=(1.0, 1.6), units={"units": (8, 20)}))["model"]
    assert float(loss.count) > 0
    loss.total.backward()
    assert objective.hiding.embedding.vector.grad.abs().sum() > 0


def shorter(batch: Batch) -> Batch:
    return replace(batch, lengths=batch.lengths - 100)


@pytest.mark.parametrize("name, part", [("wavlm", "mix"), ("nest", "mix"), ("byol", "augment"), ("dino", "augment")])
def test_audio_that_is_changed_keeps_its_length(name: str, part: str) -> None:
    """Else labels and targets stand beside other frames, and nobody would see it."""
    conformer = OnSpectrum(on_spectrum(conformer_tiny(), dim=8, sample_rate=1000))
    objective: Any = build_objective(name, conformer, parts={part: shorter})
    with pytest.raises(ConfigError, match=r"compares frame with frame(.|\n)*take out speed"):
        objective.losses(batch_of(("a", "b"), units={"units": (8, 20)}))


@pytest.mark.parametrize("name", ["best_rq", "apc", "mae", "audio_mae"])
def test_an_encoder_without_a_spectral_front_is_told_what_it_lacks(name: str) -> None:
    with pytest.raises(ConfigError, match="TinyEncoder has no `front`; take sonorant.encoders.spectral.OnSpectrum"):
        build_objective(name, TinyEncoder())


def test_frames_must_be_whole_stacks_of_the_fronts() -> None:
    conformer: Any = OnSpectrum(on_spectrum(conformer_tiny(), dim=8, sample_rate=1000))
    conformer.encoder.config = replace(conformer.encoder.config, input_frame_rate=90.0)
    with pytest.raises(ConfigError, match=r"must be whole stacks of the front's \(100 a second\)"):
        build_objective("best_rq", conformer)


@pytest.mark.parametrize("name", ["hubert", "wav2vec2", "data2vec", "dinosr", "dino", "byol", "best_rq", "tera"])
@pytest.mark.parametrize("train", [True, False])
def test_a_batch_too_short_for_a_frame_asks_for_nothing(name: str, train: bool) -> None:
    changes = {"hubert": {"num_units": 8}, "data2vec": {"top_layers": 2}, "dinosr": {"top_layers": 2}}.get(name, {})
    spectral = OnSpectrum(on_spectrum(conformer_tiny(), dim=8, sample_rate=1000))
    objective: Any = build_objective(name, spectral if name in ("best_rq", "tera") else TinyEncoder(), **changes)
    units = {"units": torch.zeros(2, 0, dtype=torch.long), "units_lengths": torch.tensor([0, 0])}
    batch = batch_of(("a", "b"))
    short = replace(batch, waveform=batch.waveform[:, :2], lengths=torch.tensor([2, 0]), labels=units)
    loss = objective.train(train).losses(short)["model"]
    assert (float(loss.total.detach()), float(loss.count)) == (0, 0)
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    assert all(value.isfinite().all() for value in objective.state_dict().values())
    with torch.no_grad():
        objective.eval().diagnose(short)
