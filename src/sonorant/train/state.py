"""Model, optimisers and averages ↔ what a checkpoint holds: whole tensors on the CPU, optimiser states by parameter name."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sonorant.core.checkpoint import compare_weights
from sonorant.core.errors import CheckpointError
from sonorant.train.devices import full_tensor, sharded_like
from sonorant.train.document import join_document, split_document

__all__ = ["load_module", "load_optimizer", "module_state", "optimizer_state", "tensors_of"]

Tensors = dict[str, Shaped[Tensor, "..."]]


def tensors_of(values: Mapping[str, Shaped[Tensor, "..."]]) -> Tensors:
    """Whole and on the CPU; every worker must call where tensors are sharded."""
    return {name: full_tensor(tensor.detach()).cpu() for name, tensor in values.items()}


def module_state(module: nn.Module) -> tuple[Tensors, dict[str, Any]]:
    """Parameters and buffers, and what modules return from `get_extra_state`."""
    state = module.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors_of(tensors), {name: value for name, value in state.items() if name not in tensors}


def load_module(
    module: nn.Module, tensors: Mapping[str, Shaped[Tensor, "..."]], extra: Mapping[str, Any], where: str
) -> None:
    """Loads what `module_state` gave.

    Raises:
        CheckpointError: names or sizes differ; the message lists them.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    report = compare_weights(own, tensors)
    if not report.ok:
        raise CheckpointError(report.message(where))
    module.load_state_dict({**{name: sharded_like(own[name], tensors[name]) for name in own}, **extra})


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """The optimiser's memory by parameter name; learning rates and the like come from the configuration, not from here.

    Args:
        optimizer: any of torch's, or one that keeps `state` as they do.
        names: id of a parameter → its name.
    """
    state = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            values = optimizer.state.get(parameter, {})
            plain, tensors = split_document(dict(values), names[id(parameter)])
            state[names[id(parameter)]] = join_document(plain, tensors_of(tensors))
    return state


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: Mapping[str, Any], where: str
) -> None:
    """Loads what `optimizer_state` gave.

    Raises:
        CheckpointError: it is of other parameters.
    """
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    missing = [names[id(parameter)] for parameter in held if names[id(parameter)] not in state]
    if missing:
        raise CheckpointError(f"{where} has no optimiser state for {', '.join(missing[:5])}: the optimiser has changed")
    packed = {}
    for index, parameter in enumerate(held):
        values = state[names[id(parameter)]]
        if values:
            packed[index] = {key: _fitted(parameter, value) for key, value in values.items()}
    # The groups are this optimiser's own: a rate that was changed on purpose stays changed.
    optimizer.load_state_dict({"state": packed, "param_groups": optimizer.state_dict()["param_groups"]})


def _fitted(parameter: Tensor, value: Any) -> Any:
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return sharded_like(parameter, value)
    return value
