"""Optimisers from a configuration, with no weight decay on norms, biases and other vectors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sonorant.core.config import at_least, one_of, within
from sonorant.core.errors import ConfigError
from sonorant.train.scaled_adam import ScaledAdam

__all__ = ["OPTIMIZERS", "OptimConfig", "build_optimizer", "parameter_groups"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """One optimiser."""

    name: str = "adamw"
    """adam, adamw, nadam, radam, scaled_adam or sgd."""
    lr: float = 1e-3
    """Peak learning rate; a schedule multiplies it. Of scaled_adam it is a share of each parameter's size, and 0.045 the
    paper's (arXiv:2310.11230, section 4.1)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates of the first and second moment (arXiv:1706.03762, section 5.3)."""
    eps: float = 1e-8
    """Adam's term against division by zero."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.01
    """Decoupled where the optimiser knows how (adamw, nadam, radam), else added to the gradient; matrices only. Not of
    scaled_adam, which learns sizes by themselves."""

    def __post_init__(self) -> None:
        one_of("name", self.name, sorted(OPTIMIZERS))
        at_least("lr", self.lr, 0)
        at_least("eps", self.eps, 0)
        at_least("weight_decay", self.weight_decay, 0)
        within("momentum", self.momentum, 0, 1)
        for beta in self.betas:
            within("betas", beta, 0, 1)


Groups = list[dict[str, Any]]

_ADAM: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "nadam": (torch.optim.NAdam, {"decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"decoupled_weight_decay": True}),
}


def _adam(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    cls, options = _ADAM[config.name]
    return cls(groups, lr=config.lr, betas=config.betas, eps=config.eps, **options)


def _sgd(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def _scaled_adam(groups: Groups, config: OptimConfig) -> torch.optim.Optimizer:
    return ScaledAdam(groups, lr=config.lr, betas=config.betas, eps=config.eps)


OPTIMIZERS: dict[str, Callable[[Groups, OptimConfig], torch.optim.Optimizer]] = {
    **dict.fromkeys(_ADAM, _adam),
    "scaled_adam": _scaled_adam,
    "sgd": _sgd,
}
"""Name → builder from (parameter groups, config)."""


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> Groups:
    """Two groups of the parameters that learn: matrices and kernels with `weight_decay`, vectors and scalars without.

    Biases, the scales of norms and learnt gains are all vectors, so the number of axes tells them apart in any module.
    A parameter that two modules share stands once.
    """
    learning = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values()
    groups: Groups = [
        {"params": [p for p in learning if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(config: OptimConfig, *modules: nn.Module) -> torch.optim.Optimizer:
    """An optimiser over every parameter of `modules` that requires a gradient.

    Raises:
        ConfigError: nothing there learns.

    >>> optimizer = build_optimizer(OptimConfig(lr=2e-3), nn.Linear(2, 3))
    >>> [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    [(0.01, 1), (0.0, 1)]
    """
    groups = parameter_groups(modules, config.weight_decay)
    if not groups:
        names = ", ".join(type(module).__name__ for module in modules) or "no module"
        raise ConfigError(f"an optimiser needs at least one parameter that requires a gradient; {names} has none")
    return OPTIMIZERS[config.name](groups, config)
