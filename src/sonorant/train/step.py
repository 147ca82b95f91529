"""One step: forward and backward over the micro-batches of every worker, one exact mean, clip, guard, update.

With losses as sums, the gradient of a step is d(Σ totals) / Σ counts over all its micro-batches on all workers, whatever
their lengths: adding means of unequal batches would weigh a short batch's targets more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.types import Loss
from sonorant.train.config import TrainConfig
from sonorant.train.devices import full_tensor, gather, owners, sum_over_workers
from sonorant.train.feed import Feed, TrainBatch
from sonorant.train.schedule import Schedule

__all__ = ["LossModule", "StepResult", "Stepper"]


class _Carrier:
    """Takes a batch into the wrapped module and its losses out, unseen by Fabric and DDP, which rebuild dataclasses."""

    def __init__(self, batch: TrainBatch) -> None:
        self.batch = batch
        self.losses: Mapping[str, Loss] = {}


class LossModule(nn.Module):
    """The objective as a module whose forward gives what is differentiated; DDP and FSDP hook in there."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, carrier: _Carrier) -> tuple[Float[Tensor, ""], ...]:
        carrier.losses = self.objective.losses(carrier.batch)  # type: ignore[operator]
        return tuple(loss.total for loss in carrier.losses.values())


@dataclass
class StepResult:
    """What a step came to, over all workers; the same on each."""

    losses: dict[str, float]
    """Optimiser → mean loss."""
    counts: dict[str, float]
    norms: dict[str, float]
    """Optimiser → norm of its gradient, before clipping."""
    seconds: float
    """Of audio."""
    requests: tuple[float, ...]
    """Sums over workers of what each asked for."""
    parts: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Optimiser → part → this worker's sum, still on the device."""
    rates: dict[str, float] = field(default_factory=dict)
    """Optimiser → learning rate of its first group."""
    fault: str = ""
    """Why the step was skipped; empty where it was not."""
    ids: tuple[str, ...] = ()
    """Items of the skipped step."""


class Stepper:
    """Makes steps; holds no state that training would have to store.

    Args:
        fabric: launched.
        module: the `LossModule` as Fabric set it up.
        objective: what is inside it.
        optimizers: name → optimiser over the module's parameters.
        schedules: name → multiplier of the learning rate.
        config: accumulation, clipping, scaling by batch.
        feed: this worker's batches.
    """

    def __init__(
        self,
        fabric: Any,
        module: nn.Module,
        objective: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        schedules: Mapping[str, Schedule],
        config: TrainConfig,
        feed: Feed,
    ) -> None:
        self._fabric, self._module, self._feed, self._config = fabric, module, feed, config
        for name in schedules:
            if name not in optimizers:
                raise ConfigError(unknown_name("optimiser in schedules", name, optimizers))
        self.optimizers, self._schedules = optimizers, schedules
        self.parameters = owners(objective, optimizers)
        self._names = list(optimizers)
        self._base_lrs = {name: [float(g["lr"]) for g in opt.param_groups] for name, opt in optimizers.items()}
        self._batches: list[tuple[TrainBatch, Tensor]] = []
        self.last_batch: TrainBatch | None = None
        """On the device, for a look at the present output."""
        self.inspect: Any = None
        """Called with each batch before it goes to the device."""
        self.after_backward: Any = None
        """Called once, after the first backward pass."""

    def run(self, step: int, requests: tuple[float, ...] = ()) -> StepResult:
        """Makes step number `step` (from 0); `requests` are summed over the workers on the way, at no cost of their own."""
        result = self._reduced(*self._accumulated(), requests)
        if result.fault:
            result.ids = self._suspects()
        else:
            self._update(step, result)
        self._batches.clear()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        return result

    def restore_rates(self) -> None:
        """Gives the optimisers back the learning rates that they came with."""
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self._base_lrs[name], strict=True):
                group["lr"] = base

    # --- forward and backward ---------------------------------------------------------------------------------------

    def _accumulated(self) -> tuple[dict[str, Loss], float]:
        """Gradients of Σ totals are in place afterwards; returns this worker's losses and seconds of audio."""
        sums: dict[str, Loss] = {}
        seconds = 0.0
        for micro in range(self._config.accumulate):
            batch = self._feed.next()
            if self.inspect is not None:
                self.inspect(batch)
            seconds += batch.seconds
            last = micro == self._config.accumulate - 1
            with self._fabric.no_backward_sync(self._module, enabled=not last):
                losses = self._backward(batch)
            for name, loss in losses.items():
                sums[name] = sums[name] + loss if name in sums else loss
        if self.after_backward is not None:
            self.after_backward()
            self.after_backward = None
        return sums, seconds

    def _backward(self, batch: TrainBatch) -> dict[str, Loss]:
        self.last_batch = batch.to(self._fabric.device, non_blocking=True)
        carrier = _Carrier(self.last_batch)
        totals = dict(zip(*self._forward(carrier), strict=True))
        several = len(self._names) > 1
        for index, (name, total) in enumerate(totals.items(), start=1):
            # A generator's loss also reaches the discriminator: each loss may only touch its own optimiser's parameters.
            options = {"inputs": self.parameters[name], "retain_graph": index < len(totals)} if several else {}
            self._fabric.backward(total, **options)
        self._batches.append((batch, torch.stack([total.detach() for total in totals.values()])))
        return {name: _detached(loss) for name, loss in carrier.losses.items()}

    def _forward(self, carrier: _Carrier) -> tuple[list[str], tuple[Tensor, ...]]:
        totals = self._module(carrier)
        names = list(carrier.losses)
        for name, total in zip(names, totals, strict=True):
            if name not in self.optimizers:
                raise ConfigError(f"the objective's losses: {unknown_name('optimiser', name, self.optimizers)}")
            if not total.requires_grad:
                raise ConfigError(f"the loss '{name}' does not depend on any parameter: was it detached?")
        return names, totals

    # --- over all workers -------------------------------------------------------------------------------------------

    def _reduced(self, sums: dict[str, Loss], seconds: float, requests: tuple[float, ...]) -> StepResult:
        device = self._fabric.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        zero = torch.zeros((), device=device, dtype=wide)
        totals = [sums[n].total.to(wide) if n in sums else zero for n in self._names]
        counts = [sums[n].count.to(device, wide) if n in sums else zero for n in self._names]
        plain = torch.tensor([seconds, *requests], device=device, dtype=wide)
        values = sum_over_workers(self._fabric, torch.cat([torch.stack([*totals, *counts]), plain]))
        norms = torch.stack([self._norm(name).to(values) for name in self._names])
        # The only place where the host waits for the device in a step.
        numbers = torch.cat([norms, values]).tolist()
        size = len(self._names)
        norm, total, count = (dict(zip(self._names, numbers[i * size : (i + 1) * size])) for i in range(3))
        active = [name for name in self._names if count[name] > 0]
        result = StepResult(
            losses={name: total[name] / count[name] for name in active},
            counts={name: count[name] for name in active},
            norms={name: norm[name] * self._scale(count[name]) for name in active},
            seconds=numbers[3 * size],
            requests=tuple(numbers[3 * size + 1 :]),
            parts={name: loss.parts for name, loss in sums.items()},
        )
        result.fault = _fault(result) or ("" if active else "no loss has a target (every count is 0)")
        return result

    def _norm(self, name: str) -> Tensor:
        gradients = [p.grad for p in self.parameters[name] if p.grad is not None]
        return full_tensor(torch.nn.utils.get_total_norm(gradients)) if gradients else torch.zeros(())

    def _scale(self, count: float) -> float:
        # DDP and FSDP divide by the number of workers when they add up gradients; that is undone here.
        return self._fabric.world_size / count

    def _suspects(self) -> tuple[str, ...]:
        """Items of the micro-batches whose own loss is not finite; all items where only the gradient is not."""
        bad = [batch.ids for batch, totals in self._batches if not bool(torch.isfinite(totals).all())]
        everyone = [batch.ids for batch, _ in self._batches]
        found = gather(self._fabric, (bad, everyone))
        chosen = [ids for bad, _ in found for ids in bad] or [ids for _, all_ids in found for ids in all_ids]
        return tuple(name for ids in chosen for name in ids)

    # --- the update -------------------------------------------------------------------------------------------------

    def learning_rate(self, step: int, seconds: float) -> dict[str, float]:
        """Multiplier of each optimiser's learning rates in a step with so many seconds of audio."""
        reference = self._config.lr_batch_seconds
        size = seconds / reference if reference else 1.0
        return {name: self._schedules[name](step) * size if name in self._schedules else size for name in self._names}

    @torch.no_grad()
    def _update(self, step: int, result: StepResult) -> None:
        multipliers = self.learning_rate(step, result.seconds)
        for name in result.losses:
            scale, norm, largest = self._scale(result.counts[name]), result.norms[name], self._config.clip_norm
            if largest and norm > largest:
                scale *= largest / (norm + 1e-6)
            gradients = [p.grad for p in self.parameters[name] if p.grad is not None]
            torch._foreach_mul_(gradients, scale)
            optimizer = self.optimizers[name]
            for group, base in zip(optimizer.param_groups, self._base_lrs[name], strict=True):
                group["lr"] = base * multipliers[name]
            result.rates[name] = float(optimizer.param_groups[0]["lr"])
            optimizer.step()


def _detached(loss: Loss) -> Loss:
    return Loss(loss.total.detach(), loss.count.detach(), {name: part.detach() for name, part in loss.parts.items()})


def _fault(result: StepResult) -> str:
    for name, loss in result.losses.items():
        if not math.isfinite(loss):
            return f"the loss '{name}' is {loss}"
    for name, norm in result.norms.items():
        if not math.isfinite(norm):
            return f"the gradient of '{name}' is {norm} while its loss is {result.losses[name]:.4g}"
    return ""
