"""What encoding costs."""

from pathlib import Path

import pytest

from sonorant.benchmark.encoding import encoding_scores, encoding_stage
from sonorant.benchmark.workspace import Workspace
from sonorant.encoders.checkpoint import save_trained_encoder
from sonorant.encoders.spectral import build, on_spectrum
from sonorant.encoders.tera import tera_tiny


def test_multiply_adds_are_those_of_the_products(tmp_path: Path) -> None:
    encoder = build(on_spectrum(tera_tiny(num_layers=1, dim=8, num_heads=2, ffn_dim=16)))
    scores = {score.name: score.value for score in encoding_scores(encoder, "one", seconds=2.0)}
    frames = 198  # windows of 25 ms every 10 ms that lie within 2 s
    layer = 3 * 8 * 8 + 8 * 8 + 2 * 8 * 16
    own = frames * (40 * 8 + layer) + 2 * frames * frames * 8
    front = scores["one/gmacs"] * 2e9 - own
    # What is left is the front's: at most 40 bands over the bins of a 512-point transform, a frame.
    assert 0 <= front <= frames * 40 * 257 * 1.1
    assert scores["one/parameters"] * 1e6 == sum(p.numel() for p in encoder.parameters())
    assert scores["one/encode_rate"] > 1


def test_what_was_measured_stays(tmp_path: Path) -> None:
    encoder = save_trained_encoder(build(on_spectrum(tera_tiny())), tmp_path / "encoder")
    work = Workspace(folder=tmp_path)
    first = encoding_stage(work, "one", encoder, seconds=1.0)
    assert encoding_stage(work, "one", encoder, seconds=1.0) == first
    assert [stage.fresh for stage in work.done] == [True, False]
    larger = save_trained_encoder(build(on_spectrum(tera_tiny(dim=128))), tmp_path / "larger")
    second = encoding_stage(work, "one", larger, seconds=1.0)
    assert second[0].value > 2 * first[0].value
    assert second[0].name == "one/gmacs"
    assert second[1].value != pytest.approx(first[1].value, rel=1e-9)
