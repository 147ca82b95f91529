"""ScaledAdam (arXiv:2310.11230, section 3.4): Adam whose steps are relative to the size of each parameter.

Adam moves every number by about the learning rate, so a large matrix changes slowly in relation to itself and a small one
fast. Here the step is multiplied by the parameter's root mean square, and the size itself is learnt by a second Adam over
the gradient in the direction of the parameter. Multiplying a parameter by a constant, and dividing it by the same in the
forward pass, changes nothing.

Gradients are clipped against their own history: to twice the running median of the norms of the last hundred steps, each
parameter's gradient weighed by its size. With `train.fit` set `clip_norm=0`, else it clips first, by a norm that knows
nothing of sizes.
"""

import math
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sonorant.core.config import at_least, within

__all__ = ["ScaledAdam"]

_LARGE = 2**16
"""Numbers from which a tensor is work enough by itself on a CPU, where stacking it with others would only copy."""
_FEWEST_NORMS = 10
"""Steps before anything is clipped: a median of fewer says little."""
_MOMENTS = ("first", "second", "size_first", "size_second")


class _Stack:
    """Parameters of one shape and their moments, one row each, so that a step is a few operations for all of them."""

    def __init__(self, params: list[Tensor], states: list[dict[str, Any]]) -> None:
        self.params = params
        for name in _MOMENTS:
            rows = [state[name] for state in states]
            stacked = rows[0].unsqueeze(0) if len(rows) == 1 else torch.stack(rows)
            setattr(self, name, stacked)
            for state, row in zip(states, stacked, strict=True):
                state[name] = row  # a view: what is saved is what is updated
        self.states = states

    first: Tensor
    second: Tensor
    size_first: Tensor
    size_second: Tensor

    def column(self, values: Tensor) -> Tensor:
        """`(row,)` shaped to multiply rows of parameters."""
        return values.view(-1, *[1] * (self.first.dim() - 1))

    def together(self, tensors: list[Tensor]) -> Tensor:
        return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


class ScaledAdam(torch.optim.Optimizer):
    """Adam with steps relative to each parameter's root mean square, and learnt sizes.

    Args:
        params: parameters or groups of them, as for any optimiser of torch.
        lr: relative step; the paper's base is 0.045.
        betas: decay rates of the first and second moments.
        eps: against division by zero.
        size_lr: rate at which sizes are learnt, in relation to `lr` (the paper's η); scalars learn at it too.
        min_rms: a parameter smaller than this moves as if it were so large, and is not shrunk further.
        max_rms: no parameter is grown beyond it.
        scalar_max: bound of parameters of one number, which move by `size_lr * lr` and not by a share of themselves.
        clipping_scale: multiple of the median norm above which a gradient is shortened; 0 for never.
        clipping_period: steps over which the median runs.

    >>> weight = torch.nn.Parameter(torch.full((4, 4), 100.0))
    >>> optimizer = ScaledAdam([weight], lr=0.01, size_lr=0.0)
    >>> weight.sum().backward(); optimizer.step()
    >>> round(float(weight[0, 0].detach()), 3)
    99.0
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.045,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        *,
        size_lr: float = 0.1,
        min_rms: float = 1e-5,
        max_rms: float = 3.0,
        scalar_max: float = 10.0,
        clipping_scale: float = 2.0,
        clipping_period: int = 100,
    ) -> None:
        at_least("lr", lr, 0)
        for beta in betas:
            within("betas", beta, 0, 1)
        at_least("clipping_period", clipping_period, _FEWEST_NORMS)
        self._limits = (min_rms, max_rms, scalar_max)
        self._clipping = (clipping_scale, clipping_period)
        self._stacks: dict[tuple[Any, ...], list[_Stack]] = {}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "size_lr": size_lr})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_limits": self._limits, "_clipping": self._clipping}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._stacks = {}  # what was loaded lies elsewhere than what was stacked

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Makes one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        learning = [p for _, params in groups for p in params]
        if not learning:
            return loss
        norms = torch.stack(torch._foreach_norm(learning))
        counts = torch.tensor([p.numel() for p in learning], dtype=norms.dtype).to(norms.device)
        rms = norms * counts.rsqrt()
        factor = self._clip(learning, rms)
        size_of = dict(zip(map(id, learning), rms.unbind(), strict=True))
        for index, (group, params) in enumerate(groups):
            for stack in self._stacked(index, params):
                self._update(stack, group, torch.stack([size_of[id(p)] for p in stack.params]), factor)
        return loss

    # --- clipping ---------------------------------------------------------------------------------------------------

    def _clip(self, learning: list[Tensor], rms: Tensor) -> Tensor | None:
        """What all gradients are multiplied by; None where nothing is to be clipped. The host never waits for it."""
        scale, period = self._clipping
        if scale == 0:
            return None
        gradients = torch.stack(torch._foreach_norm([p.grad for p in learning]))  # type: ignore[misc]
        sizes = torch.stack(
            [rms[i] if p.numel() > 1 else rms.new_tensor(self.defaults["size_lr"]) for i, p in enumerate(learning)]
        )
        norm = (sizes * gradients).norm()
        state = self.state[self.param_groups[0]["params"][0]]
        if "norms" not in state:
            state["norms"], state["num_norms"] = norm.new_zeros(period), 0
        seen = min(state["num_norms"], period)
        factor = None
        if seen >= _FEWEST_NORMS:
            median = state["norms"][:seen].median()
            factor = (scale * median / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        state["norms"][state["num_norms"] % period] = norm
        state["num_norms"] += 1
        return factor

    # --- the update -------------------------------------------------------------------------------------------------

    def _stacked(self, index: int, params: list[Tensor]) -> list[_Stack]:
        """The parameters of a group by shape; made anew when others than before have a gradient."""
        key = (index, *map(id, params))
        if key not in self._stacks:
            self._stacks = {other: stacks for other, stacks in self._stacks.items() if other[0] != index}
            self._stacks[key] = [self._stack(bunch) for bunch in _bunches(params, self._step_of)]
        return self._stacks[key]

    def _step_of(self, parameter: Tensor) -> int:
        return int(self.state[parameter].get("step", 0))

    def _stack(self, params: list[Tensor]) -> _Stack:
        for parameter in params:
            state = self.state[parameter]
            if "step" not in state:
                state["step"] = 0
                for name in _MOMENTS[:2]:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
                for name in _MOMENTS[2:]:
                    state[name] = parameter.new_zeros(())
        return _Stack(params, [self.state[parameter] for parameter in params])

    def _update(self, stack: _Stack, group: dict[str, Any], rms: Tensor, factor: Tensor | None) -> None:
        (beta1, beta2), eps, step = group["betas"], group["eps"], stack.states[0]["step"] + 1
        for state in stack.states:
            state["step"] = step
        params = stack.together([p.detach() for p in stack.params])
        gradients = stack.together([p.grad for p in stack.params])  # type: ignore[misc]
        if factor is not None:
            gradients = gradients * factor
        stack.first.lerp_(gradients, 1 - beta1)
        stack.second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        rate = -group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        direction = stack.first / stack.second.sqrt().add_(eps)
        if stack.params[0].numel() == 1:
            limit = self._limits[2]
            params.add_(direction, alpha=rate * group["size_lr"]).clamp_(-limit, limit)
        else:
            growth = self._growth(stack, params, gradients, rms, rate * group["size_lr"], (beta1, beta2, eps))
            direction.mul_(stack.column(rate * rms.clamp(min=self._limits[0])))
            params.mul_(stack.column(1 + growth)).add_(direction)
        if len(stack.params) > 1:
            torch._foreach_copy_(stack.params, list(params.unbind()))

    def _growth(
        self, stack: _Stack, params: Tensor, gradients: Tensor, rms: Tensor, rate: float, rates: tuple[float, ...]
    ) -> Tensor:
        """By which share each parameter grows: Adam over h = g · θ, the gradient of the logarithm of its size."""
        beta1, beta2, eps = rates
        along = torch.bmm(gradients.flatten(1).unsqueeze(1), params.flatten(1).unsqueeze(2)).flatten()
        stack.size_first.lerp_(along, 1 - beta1)
        stack.size_second.mul_(beta2).addcmul_(along, along, value=1 - beta2)
        growth = rate * stack.size_first / stack.size_second.sqrt().add_(eps)
        smallest, largest, _ = self._limits
        growth = torch.where((rms < smallest) & (growth < 0), 0, growth)
        return torch.minimum(growth, (largest / rms.clamp(min=smallest) - 1).clamp(min=0))


def _bunches(params: list[Tensor], step_of: Callable[[Tensor], int]) -> list[list[Tensor]]:
    """Parameters that can be stacked: of one shape, type and device, after as many steps."""

    def key(parameter: Tensor) -> tuple[str, ...]:
        alone = parameter.device.type == "cpu" and parameter.numel() >= _LARGE
        parts = (tuple(parameter.shape), parameter.dtype, parameter.device, step_of(parameter), alone and id(parameter))
        return tuple(map(str, parts))

    return [list(bunch) for _, bunch in groupby(sorted(params, key=key), key=key)]
