"""ScaledAdam: relative steps, learnt sizes, clipping by the median, the formulas, resuming."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from train_toy import OFF, QUIET, Regression, ToyBatches, digest

from sonorant.train.config import TrainConfig
from sonorant.train.loop import fit
from sonorant.train.optim import OptimConfig, build_optimizer
from sonorant.train.scaled_adam import ScaledAdam


def gradients(step: int, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in shapes]


SHAPES = [(3, 4), (4,), (3, 4), (), (4,), (1,), (3, 4), (300, 300)]


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator) * 0.3) for shape in SHAPES]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(params, gradients(step, SHAPES), strict=True):
            parameter.grad = gradient
        optimizer.step()


def transcribed(values: Tensor, grads: list[Tensor], lr: float) -> Tensor:
    """Equations 6 to 8 of arXiv:2310.11230, one parameter at a time, in double precision."""
    beta1, beta2, eps, eta = 0.9, 0.98, 1e-8, 0.1
    theta = values.double().clone()
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    n, w = 0.0, 0.0
    for t, gradient in enumerate(grads, start=1):
        g = gradient.double()
        correction = math.sqrt(1 - beta2**t) / (1 - beta1**t)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        if theta.numel() == 1:
            theta = theta - eta * lr * correction * m / (v.sqrt() + eps)
            continue
        r = max(float((theta**2).mean().sqrt()), 1e-5)
        h = float((g * theta).sum())
        n, w = beta1 * n + (1 - beta1) * h, beta2 * w + (1 - beta2) * h**2
        moved = -lr * r * correction * m / (v.sqrt() + eps)
        grown = -eta * lr * correction * n / (math.sqrt(w) + eps) * theta
        theta = theta + moved + grown
    return theta.float()


def test_the_formulas() -> None:
    params, steps = parameters(), range(7)
    start = [p.detach().clone() for p in params]
    run(ScaledAdam(params, lr=0.05, clipping_scale=0.0), params, steps)
    for index, (parameter, before) in enumerate(zip(params, start, strict=True)):
        expected = transcribed(before, [gradients(step, SHAPES)[index] for step in steps], 0.05)
        torch.testing.assert_close(parameter.detach(), expected, atol=2e-6, rtol=2e-5)
        assert not torch.allclose(parameter.detach(), before)


@settings(max_examples=20, deadline=None)
@given(size=st.sampled_from([1e-2, 0.1, 1.0, 10.0]), seed=st.integers(0, 1000))
def test_a_parameter_s_scale_does_not_matter(size: float, seed: int) -> None:
    """w and w′ = s·w under f(w) = f(w′ / s): the relative updates are the same."""
    torch.manual_seed(seed)
    start = torch.randn(5, 6) * 0.1
    plain, scaled = nn.Parameter(start.clone()), nn.Parameter(start * size)
    optimizers = [ScaledAdam([p], lr=0.03, eps=1e-16, max_rms=1e9) for p in (plain, scaled)]
    for _ in range(15):
        target = torch.randn(5, 6)
        for parameter, factor, optimizer in ((plain, 1.0, optimizers[0]), (scaled, size, optimizers[1])):
            optimizer.zero_grad()
            (parameter / factor - target).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(scaled.detach() / size, plain.detach(), atol=1e-5, rtol=1e-4)


def test_the_first_step_is_a_share_of_the_size() -> None:
    torch.manual_seed(0)
    for size in (1e-3, 1.0):
        parameter = nn.Parameter(torch.randn(8, 8) * size)
        before = parameter.detach().clone()
        parameter.grad = torch.randn(8, 8)
        ScaledAdam([parameter], lr=0.02, size_lr=0.0).step()
        moved = (parameter.detach() - before).square().mean().sqrt()
        assert float(moved / before.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-3)


def test_sizes_are_learnt_and_bounded() -> None:
    """A loss that only wants the size larger grows it; never beyond max_rms."""
    parameter = nn.Parameter(torch.ones(4, 4))
    optimizer = ScaledAdam([parameter], lr=0.1, size_lr=1.0, max_rms=1.5)
    for _ in range(30):
        parameter.grad = -parameter.detach().clone()
        optimizer.step()
    # The relative step of the ordinary part may pass the bound by a little; what is learnt of the size may not.
    before = float(parameter.detach().square().mean().sqrt())
    assert before > 1.4
    parameter = nn.Parameter(torch.full((4, 4), 1.5))
    optimizer = ScaledAdam([parameter], lr=0.1, size_lr=1.0, max_rms=1.5)
    parameter.grad = -torch.ones(4, 4)
    optimizer.step()
    assert float(parameter[0, 0].detach()) == pytest.approx(1.5 * 1.1, rel=1e-4)  # the ordinary step alone


def test_a_parameter_of_zeros_leaves_zero() -> None:
    parameter = nn.Parameter(torch.zeros(10))
    optimizer = ScaledAdam([parameter], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (parameter - 0.1).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((10,), 0.1), atol=0.02, rtol=0)


def test_an_outlier_is_clipped_to_twice_the_median() -> None:
    def after(outlier: float, clipping: float) -> dict[str, Any]:
        params = parameters()
        optimizer = ScaledAdam(params, lr=0.0, clipping_scale=clipping)
        run(optimizer, params, range(20))
        for parameter, gradient in zip(params, gradients(99, SHAPES), strict=True):
            parameter.grad = gradient * outlier
        optimizer.step()
        return dict(optimizer.state[params[0]])

    # All gradients before are of one size, so an outlier of 1.5 passes as it is and one of 1000 comes down to about 2.
    plain, doubled = after(1.5, 0.0)["first"], after(2.0, 0.0)["first"]
    assert torch.equal(after(1.5, 2.0)["first"], plain)
    torch.testing.assert_close(after(1000.0, 2.0)["first"], doubled, atol=0.02, rtol=0.02)
    assert float((after(1000.0, 0.0)["first"] - doubled).abs().max()) > 10
    norms = after(1000.0, 2.0)["norms"]
    assert float(norms[20]) > 100 * float(norms[:20].median())  # history holds what came, not what was made of it


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_resumes_bit_for_bit(way: str) -> None:
    whole = parameters()
    run(ScaledAdam(whole, lr=0.05), whole, range(25))
    halves = parameters()
    first = ScaledAdam(halves, lr=0.05)
    run(first, halves, range(13))
    if way == "state_dict":
        state = copy.deepcopy(first.state_dict())
        second: torch.optim.Optimizer = ScaledAdam(halves, lr=0.05)
        second.load_state_dict(state)
    else:
        halves, second = copy.deepcopy((halves, first))
    run(second, halves, range(13, 25))
    for left, right in zip(whole, halves, strict=True):
        assert torch.equal(left, right)


def test_a_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Through `fit`: moments, the history of norms and counts are in the checkpoint."""

    def train(folder: str, steps: int) -> str:
        objective = Regression()
        optimizers = {"model": build_optimizer(OptimConfig(name="scaled_adam", lr=0.03), objective)}
        config = TrainConfig(**QUIET, doctor=OFF, clip_norm=0.0)
        batches = lambda rank, world: ToyBatches(rank=rank, world=world)  # noqa: E731
        fit(objective, batches, optimizers, steps=steps, folder=tmp_path / folder, config=config)
        return digest(objective)

    train("halves", 13)
    assert train("halves", 24) == train("whole", 24)


def test_parameters_without_a_gradient_rest() -> None:
    """And those with one move as if the others were not there."""
    both, alone = parameters(), parameters()
    options = {"lr": 0.05, "clipping_scale": 0.0}
    first, second = ScaledAdam(both, **options), ScaledAdam(alone[:1], **options)
    for step in range(6):
        given = gradients(step, SHAPES)
        both[0].grad, alone[0].grad = given[0], given[0]
        both[2].grad = given[2] if step % 2 else None
        first.step()
        second.step()
    torch.testing.assert_close(both[0], alone[0])
    assert first.state[both[2]]["step"] == 3
    assert torch.equal(both[6], parameters()[6])


def test_by_its_name() -> None:
    optimizer = build_optimizer(OptimConfig(name="scaled_adam", lr=0.045), nn.Linear(3, 4))
    assert isinstance(optimizer, ScaledAdam)
    assert [group["lr"] for group in optimizer.param_groups] == [0.045, 0.045]
