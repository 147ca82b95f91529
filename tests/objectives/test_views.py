"""What objectives show their encoders: masks as wide as the first block."""

from typing import Any

import pytest
from tests.contracts.objectives import batch_of

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
