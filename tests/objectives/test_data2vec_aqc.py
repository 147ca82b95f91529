"""data2vec-aqc: the battery, who is contrasted with what, and clusters that are the item's own."""

from dataclasses import replace

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.contrastive import Wav2Vec2Config
from sonorant.objectives.data2vec_aqc import (
    Data2VecAqc,
    Data2VecAqcConfig,
    cluster_positions,
    data2vec_aqc_objective,
)
from sonorant.objectives.self_distillation import Data2VecConfig


def config(**contrast: object) -> Data2VecAqcConfig:
    sizes = {"codebook_size": 12, "code_dim": 8, "dim": 8, "num_negatives": 15, "feature_weight": 0.0, **contrast}
    regression = Data2VecConfig(mask=MaskConfig(prob=0.6, span=4), top_layers=2)
    return data2vec_aqc_objective(regression=regression, contrast=Wav2Vec2Config(**sizes), cluster_factor=4)


def louder(batch: Batch) -> Batch:
    return replace(batch, waveform=(3 * batch.waveform).clamp(-1, 1))


def test_contract() -> None:
    made = config(diversity_weight=0.0)
    check_objective(lambda: Data2VecAqc(TinyEncoder(), made, louder), batch_of, chance=(2, 20), fall=0.9)


def test_student_meets_clean_codes_and_teacher_meets_changed_ones() -> None:
    torch.manual_seed(0)
    objective = Data2VecAqc(TinyEncoder(), config(), louder).eval()
    batch = batch_of(("a", "b"))
    with torch.no_grad():
        views = objective._views(batch)
        student, teacher = objective._contrasts(views)
        first = torch.cosine_similarity(objective.project(views.student), views.clean.values, dim=-1) / 0.1
        second = torch.cosine_similarity(objective.project(views.teacher), views.changed.values, dim=-1) / 0.1
    torch.testing.assert_close(student[..., 0], first)
    torch.testing.assert_close(teacher[..., 0], second)
    assert not torch.equal(views.clean.values, views.changed.values)
    loss = objective.losses(batch)["model"]
    parts = ("regression", "contrast_student", "contrast_teacher", "diversity")
    assert float(loss.total.detach()) == pytest.approx(sum(float(loss.parts[part]) for part in parts), rel=1e-5)


def test_clusters_find_directions_and_are_the_items_own() -> None:
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(3, 16), dim=-1)
    truth = torch.arange(12) // 4
    values = torch.zeros(2, 30, 16)
    values[0, :12] = directions[truth] * (1 + torch.arange(12)[:, None]) + 0.02 * torch.randn(12, 16)
    values[1] = torch.randn(30, 16)
    counts = torch.tensor([12, 30])
    clusters = cluster_positions(values, counts, factor=4)
    assert torch.equal(clusters[0, :12], truth)
    assert int(clusters[1].max()) <= 6
    alone = cluster_positions(values[:1, :12], counts[:1], factor=4)
    assert torch.equal(alone[0], clusters[0, :12])
    assert cluster_positions(values, torch.tensor([3, 0]), factor=4).shape == (2, 30)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="cross_negatives = 0"):
        config(cross_negatives=3)
    shorter = Data2VecAqc(TinyEncoder(), config(), lambda batch: replace(batch, lengths=batch.lengths - 100))
    with pytest.raises(ConfigError, match="changes the lengths"):
        shorter.losses(batch_of(("a", "b")))
