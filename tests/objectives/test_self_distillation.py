"""data2vec: its targets by hand, a teacher that follows, and what a collapsed one looks like."""

import math

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError
from sonorant.losses.distill import instance_normalised
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.self_distillation import (
    Data2Vec,
    Data2VecConfig,
    DinoSr,
    DinoSrConfig,
    data2vec_objective,
    dinosr_objective,
)

SMALL = {"mask": MaskConfig(prob=0.6, span=4), "top_layers": 2}


@pytest.mark.parametrize(
    "changes", [{}, {"kind": "smooth_l1", "beta": 0.5, "feature_weight": 1.0, "local_gradient": 0.1}]
)
def test_contract(changes: dict) -> None:
    # Targets are the mean of two normed layers, predictions a random projection: some dim / √dim times the sum of variances.
    check_objective(
        lambda: Data2Vec(TinyEncoder(), data2vec_objective(**SMALL, **changes)), batch_of, chance=(0.5, 12), fall=0.8
    )


def test_targets_are_the_teachers_top_layers_of_what_is_not_hidden() -> None:
    torch.manual_seed(0)
    objective = Data2Vec(TinyEncoder(dropout=0.2), Data2VecConfig(**SMALL)).train()
    batch = batch_of(("a", "b"))
    with torch.no_grad():
        embedded = objective.encoder.embed(objective.encoder.local(batch.waveform, batch.lengths))
        _, _, targets, mask = objective._views(batch)
        layers = objective.teacher.module.context(embedded, layers=True)
    expected = sum(instance_normalised(layer.values, embedded.lengths) for layer in layers[-2:]) / 2
    torch.testing.assert_close(targets.values, expected)
    assert mask.any()


def test_the_teacher_follows_the_blocks() -> None:
    torch.manual_seed(0)
    objective = Data2Vec(TinyEncoder(), Data2VecConfig(**SMALL, decay_start=0.9, decay_end=0.9, decay_steps=0)).train()
    before = [p.detach().clone() for p in objective.teacher.module.blocks.parameters()]
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    batch = batch_of(("a", "b"))
    objective.losses(batch)["model"].mean.backward()
    optimizer.step()
    objective.losses(batch)
    for mine, old, new in zip(
        objective.teacher.module.blocks.parameters(), before, objective.encoder.blocks.parameters()
    ):
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())
    assert torch.equal(objective.teacher.module.project.weight, objective.encoder.project.weight)


def test_refuses_more_layers_than_there_are() -> None:
    with pytest.raises(ConfigError, match="at most the encoder's 3 layers, got 8"):
        Data2Vec(TinyEncoder(), Data2VecConfig())


# --- DinoSR -----------------------------------------------------------------------------------------------------------

CODES = {**SMALL, "codebook_size": 10}


def test_dinosr_contract() -> None:
    chance = (0.7 * math.log(10), 2 * math.log(10))
    check_objective(lambda: DinoSr(TinyEncoder(), dinosr_objective(**CODES)), batch_of, chance=chance)


def test_codes_are_the_nearest_of_each_layer_and_move_only_while_training() -> None:
    torch.manual_seed(0)
    objective = DinoSr(TinyEncoder(), DinoSrConfig(**CODES))
    batch = batch_of(("a", "b"))
    with torch.no_grad():
        embedded = objective.encoder.embed(objective.encoder.local(batch.waveform, batch.lengths))
        layers = objective.teacher.module.context(embedded, layers=True)[-2:]
        before = [book.weight.clone() for book in objective.codebooks]
        _, _, codes, mask = objective.eval()._views(batch)
        assert all(torch.equal(book.weight, old) for book, old in zip(objective.codebooks, before))
        for index, layer in enumerate(layers):
            frames = instance_normalised(layer.values, layer.lengths)[mask]
            assert torch.equal(codes[:, index], torch.cdist(frames, before[index]).argmin(dim=1))
        _, _, again, _ = objective.train()._views(batch)
    assert torch.equal(again, codes), "the codes that are asked for are those before the codebook moves"
    chosen = torch.zeros(10, dtype=torch.bool).index_fill(0, codes[:, 0].unique(), True)
    moved = (objective.codebooks[0].weight != before[0]).any(dim=1)
    assert torch.equal(moved, chosen)


def test_the_teacher_is_frozen_after_its_steps() -> None:
    objective = DinoSr(TinyEncoder(), DinoSrConfig(**CODES, freeze_steps=100, decay_steps=50))
    assert [objective._decay(step) for step in (0, 50, 99, 100, 10**6)] == [0.999, 0.9999, 0.9999, 1.0, 1.0]
    forever = DinoSr(TinyEncoder(), DinoSrConfig(**CODES, freeze_steps=0))
    assert forever._decay(10**6) == 0.9999
