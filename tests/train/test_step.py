"""One step: exact means over uneven micro-batches, several optimisers, clipping, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_toy import OFF, QUIET, RATE, Adversaries, Regression, ToyBatches, digest, make_batch, toy_optimizers, train

from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch, Loss
from sonorant.train.config import TrainConfig
from sonorant.train.devices import resolved_precision
from sonorant.train.loop import fit


def joined(batches: list[Batch]) -> Batch:
    """Several batches as one."""
    longest = max(batch.waveform.shape[1] for batch in batches)
    waveform = torch.cat([nn.functional.pad(b.waveform, (0, longest - b.waveform.shape[1])) for b in batches])
    return Batch(waveform, torch.cat([b.lengths for b in batches]), RATE, ids=sum((b.ids for b in batches), ()))


class Given:
    """These batches, over and over."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.consumed = state["consumed"]


def weights(objective: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in objective.parameters()])


def test_four_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    # Sizes 1 to 4 and one to five seconds each: a mean of means would be far off.
    parts = [make_batch(100 + i, size=1 + i % 4) for i in range(12)]
    whole = [joined(parts[i : i + 4]) for i in range(0, 12, 4)]
    options: dict[str, Any] = {"steps": 3, "dropout": 0.0, "clip_norm": 0.5}
    one, _ = train(tmp_path / "one", batches=Given(whole), **options)
    four, _ = train(tmp_path / "four", batches=Given(parts), accumulate=4, **options)
    torch.testing.assert_close(weights(four), weights(one), atol=1e-6, rtol=0)


def test_one_step_is_the_gradient_of_the_mean(tmp_path: Path) -> None:
    batches = [make_batch(1), make_batch(2, size=1)]
    by_hand = Regression(dropout=0.0)
    losses = [by_hand.losses(batch)["model"] for batch in batches]
    (sum(loss.total for loss in losses) / sum(loss.count for loss in losses)).backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in by_hand.parameters()])
    objective = Regression(dropout=0.0)
    optimizers = {"model": torch.optim.SGD(objective.parameters(), lr=0.1)}
    config = TrainConfig(**{**QUIET, "accumulate": 2, "clip_norm": 0.0})
    fit(objective, Given(batches), optimizers, steps=1, folder=tmp_path, config=config)
    torch.testing.assert_close(weights(objective), expected, atol=1e-6, rtol=0)


def test_clipping_bounds_the_update(tmp_path: Path) -> None:
    objective = Regression()
    before = weights(objective)
    optimizers = {"model": torch.optim.SGD(objective.parameters(), lr=1.0)}
    config = TrainConfig(**QUIET, clip_norm=0.01)
    fit(objective, ToyBatches(), optimizers, steps=1, folder=tmp_path, config=config)
    assert float((weights(objective) - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_learning_rate_follows_schedule_and_batch_size(tmp_path: Path) -> None:
    objective = Regression()
    optimizers = {"model": torch.optim.SGD(objective.parameters(), lr=2.0)}
    batches = [make_batch(1), make_batch(2)]
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            seen.append(self.param_groups[0]["lr"])
            super().step(closure)

    optimizers = {"model": Watched(objective.parameters(), lr=2.0)}
    config = TrainConfig(**QUIET, lr_batch_seconds=10.0)
    schedules = {"model": lambda step: 0.1 * (step + 1)}
    fit(objective, Given(batches), optimizers, steps=2, folder=tmp_path, config=config, schedules=schedules)
    assert seen == pytest.approx([2.0 * 0.1 * batches[0].seconds / 10, 2.0 * 0.2 * batches[1].seconds / 10])
    assert optimizers["model"].param_groups[0]["lr"] == 2.0


def test_each_loss_moves_its_own_parameters_only(tmp_path: Path) -> None:
    batch = make_batch(3)
    by_hand = Adversaries()
    losses = by_hand.losses(batch)
    wanted = []
    for name, lr in (("generator", 0.1), ("discriminator", 0.3)):
        parameters = list(getattr(by_hand, name).parameters())
        gradients = torch.autograd.grad(losses[name].total / losses[name].count, parameters, retain_graph=True)
        wanted += [(p - lr * g).detach().flatten() for p, g in zip(parameters, gradients)]
    objective = Adversaries()
    optimizers = {
        "generator": torch.optim.SGD(objective.generator.parameters(), lr=0.1),
        "discriminator": torch.optim.SGD(objective.discriminator.parameters(), lr=0.3),
    }
    config = TrainConfig(**{**QUIET, "clip_norm": 0.0, "log_every": 1})
    fit(objective, Given([batch]), optimizers, steps=1, folder=tmp_path, config=config)
    torch.testing.assert_close(weights(objective), torch.cat(wanted), atol=1e-6, rtol=0)
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert "loss_generator" in header
    assert "lr_discriminator" in header


class Named(Regression):
    """Calls its loss by another name."""

    def losses(self, batch: Batch) -> dict[str, Loss]:
        return {"modle": super().losses(batch)["model"]}


class Detached(Regression):
    def losses(self, batch: Batch) -> dict[str, Loss]:
        loss = super().losses(batch)["model"]
        return {"model": Loss(loss.total.detach(), loss.count)}


@pytest.mark.parametrize(
    "objective, message",
    [(Named(), "unknown optimiser 'modle'; did you mean 'model'"), (Detached(), "does not depend on any parameter")],
)
def test_losses_that_do_not_match_are_refused(objective: Regression, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(objective, ToyBatches(), toy_optimizers(objective), steps=1, folder=tmp_path, config=TrainConfig(**QUIET))


def test_every_parameter_has_one_optimiser(tmp_path: Path) -> None:
    def attempt(objective: nn.Module, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        fit(objective, ToyBatches(), optimizers, steps=1, folder=tmp_path, config=TrainConfig(**QUIET))

    objective = Regression()
    first = list(objective.net[0].parameters())
    with pytest.raises(ConfigError, match=r"2 parameters that require a gradient are in no optimiser \(net.3"):
        attempt(objective, {"model": torch.optim.SGD(first, lr=0.1)})
    both = {"a": torch.optim.SGD(objective.parameters(), lr=0.1), "b": torch.optim.SGD(first, lr=0.1)}
    with pytest.raises(ConfigError, match="net.0.weight' is held by two optimisers, 'a' and 'b'"):
        attempt(objective, both)
    with pytest.raises(ConfigError, match="is not the objective's"):
        attempt(objective, {"model": torch.optim.SGD(Regression().parameters(), lr=0.1)})
    for parameter in objective.net[3].parameters():
        parameter.requires_grad_(False)
    attempt(objective, {"model": torch.optim.SGD(first, lr=0.1)})


def test_compiled_children_learn_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch._dynamo")
    eager, _ = train(tmp_path / "eager", steps=2, dropout=0.0, doctor=OFF)
    objective = Regression(dropout=0.0)
    # The backend that compiles nothing: what is on trial is that names and updates stay what they were.
    compiled = []
    objective.net.compile = lambda dynamic: compiled.append(dynamic)  # type: ignore[method-assign]
    config = TrainConfig(**{**QUIET, "doctor": OFF, "compile": True})
    fit(objective, ToyBatches(), toy_optimizers(objective), steps=2, folder=tmp_path / "c", config=config)
    assert compiled == [True]
    assert digest(objective) == digest(eager)


def test_bfloat16_learns_nearly_the_same(tmp_path: Path) -> None:
    exact, _ = train(tmp_path / "exact", steps=5, dropout=0.0)
    rough, _ = train(tmp_path / "rough", steps=5, dropout=0.0, precision="bf16-mixed")
    assert digest(exact) != digest(rough)
    torch.testing.assert_close(weights(rough), weights(exact), atol=0.05, rtol=0.1)


def test_precision_auto_takes_what_the_device_computes_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert resolved_precision(TrainConfig(precision="auto")) == expected
    assert resolved_precision(TrainConfig(precision="32-true")) == "32-true"
