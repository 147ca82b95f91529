"""Optimisers by name, and which parameters decay."""

import pytest
import torch
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.train.optim import OPTIMIZERS, OptimConfig, build_optimizer, parameter_groups


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Linear(3, 4), nn.LayerNorm(4))
    decayed, plain = parameter_groups([module], 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {tuple(p.shape) for p in decayed["params"]} == {(3, 2, 3), (4, 3)}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(module.parameters()))


def test_shared_and_frozen_parameters() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    groups = parameter_groups([first, second], 0.1)
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_named_one_descends(name: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    optimizer = build_optimizer(OptimConfig(name=name, lr=0.05, weight_decay=0.0), module)
    data = torch.randn(64, 3)
    losses = []
    for _ in range(60):
        loss = ((module(data) - data.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_decay_shrinks_weights_and_leaves_biases() -> None:
    module = nn.Linear(3, 3)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    optimizer = build_optimizer(OptimConfig(lr=0.1, weight_decay=0.5), module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(module.weight, torch.full((3, 3), 0.95))
    assert torch.equal(module.bias, torch.ones(3))


def test_messages() -> None:
    with pytest.raises(ConfigError, match="unknown value 'adamm'; did you mean 'adam"):
        OptimConfig(name="adamm")
    with pytest.raises(ConfigError, match="lr must be at least 0"):
        OptimConfig(lr=-1.0)
    with pytest.raises(ConfigError, match="Tanh has none"):
        build_optimizer(OptimConfig(), nn.Tanh())
