"""The figures that collapse is judged by: known answers, free of scale, blind to padding."""

import math

import pytest
import torch

from sonorant.core.types import Features, Loss
from sonorant.objectives.collapse import choice_statistics, contrast_statistics, effective_rank, frame_statistics

LENGTHS = torch.tensor([50, 30, 41])


def features(values: torch.Tensor) -> Features:
    return Features(values, LENGTHS, 50.0)


def test_rank_counts_directions() -> None:
    torch.manual_seed(0)
    for rank in (1, 2, 5):
        basis = torch.linalg.qr(torch.randn(16, rank))[0]
        frames = torch.linalg.qr(torch.randn(400, rank))[0] @ basis.t()
        assert effective_rank(frames) == pytest.approx(rank, abs=0.02)
        assert effective_rank(1e4 * frames + 7) == pytest.approx(rank, abs=0.02)
    assert effective_rank(torch.randn(8, 300)) == pytest.approx(7, abs=0.05)  # fewer frames than channels
    assert effective_rank(torch.ones(10, 4)) == 0
    assert effective_rank(torch.ones(1, 4)) == 0


def test_variation_within_and_between_items() -> None:
    torch.manual_seed(0)
    noise = frame_statistics(features(torch.randn(3, 50, 8)))
    assert noise["frame_variation"] == pytest.approx(1.0, abs=0.05)
    assert noise["item_variation"] < 0.05
    constant = frame_statistics(features(torch.ones(3, 50, 8)))
    assert constant == {"frame_variation": 0, "item_variation": 0, "effective_rank": 0}
    speakers = torch.randn(3, 1, 8).expand(3, 50, 8)
    only_items = frame_statistics(features(speakers.clone()))
    assert only_items["frame_variation"] < 1e-6
    assert only_items["item_variation"] > 0.3
    assert frame_statistics(Features(torch.zeros(1, 0, 8), torch.tensor([0]), 50.0)) == {}


def test_scale_and_padding_do_not_matter() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 50, 8) + 0.5
    dirty = values.clone()
    for item, length in enumerate(LENGTHS.tolist()):
        dirty[item, length:] = math.nan
    expected = frame_statistics(features(values))
    assert frame_statistics(features(dirty)) == pytest.approx(expected, rel=1e-5)
    assert frame_statistics(features(300 * values)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_frames_that_are_not_finite_have_no_figures(value: float) -> None:
    """A number that a doctor can judge, instead of an error of linear algebra."""
    values = torch.randn(3, 50, 8)
    values[1, 3, 2] = value
    found = frame_statistics(features(values))
    assert set(found) == {"frame_variation", "item_variation", "effective_rank"}
    assert all(math.isnan(figure) for figure in found.values())


def test_choices() -> None:
    assert choice_statistics("target", torch.arange(6), 8) == pytest.approx({"target_perplexity": 6.0})
    assert choice_statistics("target", torch.zeros(0, dtype=torch.long), 8) == {}
    loss = Loss(torch.tensor(3.0), torch.tensor(10), {"correct": torch.tensor(5.0)})
    assert contrast_statistics(loss, 101) == {"contrastive_accuracy": 0.5, "contrastive_chance": 1 / 101}
