"""Exponential moving average of a module's parameters, resumed bit for bit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonorant.core.config import within
from sonorant.core.errors import CheckpointError
from sonorant.train.devices import sharded_like

__all__ = ["Ema"]


class Ema:
    """Keeps `average ← decay · average + (1 − decay) · parameter` for each floating parameter, in float32 at least.

    Buffers (running statistics of norms) are not averaged: they are averages already, and the live ones are used.
    The averages live where the parameters live, sharded if those are.

    Args:
        module: what is averaged; its present parameters are the first average.
        decay: share kept at each update.
        warmup: the n-th update (from 0) keeps min(decay, (1 + n) / (10 + n)), so that random first weights fade fast.

    >>> module = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(module.weight)
    >>> ema = Ema(module, decay=0.75)
    >>> _ = nn.init.ones_(module.weight)
    >>> ema.update()
    >>> ema.averages["weight"].item()
    0.25
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, warmup: bool = False) -> None:
        within("decay", decay, 0, 1)
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
        self.averages: dict[str, Tensor] = {name: _copy(p) for name, p in self._parameters.items()}

    def next_decay(self) -> float:
        """The share that the next update keeps, unless it is told another."""
        warm = (1 + self.num_updates) / (10 + self.num_updates)
        return min(self.decay, warm) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, decay: float | None = None) -> None:
        """Moves the averages towards the parameters; `decay` for this update only, for targets with their own schedule."""
        keep = self.next_decay() if decay is None else decay
        averages = list(self.averages.values())
        values = [p.detach().to(average.dtype) for p, average in zip(self._parameters.values(), averages, strict=True)]
        torch._foreach_lerp_(averages, values, 1 - keep)
        self.num_updates += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Writes the averages into a module with the same parameter names."""
        own = dict(module.named_parameters())
        for name, average in self.averages.items():
            own[name].copy_(average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module holds the averages; afterwards its own parameters again, bit for bit."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self._parameters.values()]
            for parameter, average in zip(self._parameters.values(), self.averages.values(), strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters.values(), kept, strict=True):
                    parameter.copy_(value)

    @torch.no_grad()
    def load(self, averages: Mapping[str, Float[Tensor, "..."]], num_updates: int) -> None:
        """Takes up averages that were stored, whole; every worker must call where the parameters are sharded.

        Raises:
            CheckpointError: names differ from this module's.
        """
        if set(averages) != set(self.averages):
            odd = sorted(set(averages) ^ set(self.averages))
            raise CheckpointError(
                f"the stored averages are not of this module's parameters: {', '.join(odd[:5])} differ"
            )
        for name, average in averages.items():
            own = self.averages[name]
            own.copy_(sharded_like(own, average))
        self.num_updates = num_updates


def _copy(parameter: Tensor) -> Tensor:
    kept = parameter.detach().clone()
    return kept.float() if kept.dtype in (torch.float16, torch.bfloat16) else kept
