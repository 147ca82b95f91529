"""Workers and devices through Lightning Fabric: which there are, how they agree, how sharded tensors come together.

A process knows of the others by the variables that torchrun, or `train.launch`, sets; without them it is alone.
"""

import logging
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.optional import require
from sonorant.train.config import TrainConfig

__all__ = [
    "full_tensor", "gather", "is_sharded", "make_fabric", "owners", "relink", "reseed", "resolved_precision",
    "sharded_like", "sum_over_workers",
]  # fmt: skip

AnyTensor = Shaped[Tensor, "..."]


def make_fabric(config: TrainConfig) -> Any:
    """A launched `lightning.fabric.Fabric` for this process among those that were started with it.

    Raises:
        MissingPackage: lightning is not installed.
        ConfigError: fsdp with one worker.
    """
    fabric_module = require("lightning.fabric", extra="train", purpose="for training")
    for name in ("lightning.fabric", "lightning.pytorch"):
        # Lightning prints its news to standard error past the user's logging settings.
        logging.getLogger(name).setLevel(logging.WARNING)
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", workers))
    if config.strategy == "fsdp" and workers == 1:
        raise ConfigError(
            "strategy 'fsdp' shards a model over several workers and there is one; start more or use 'auto'"
        )
    with warnings.catch_warnings():
        # Fabric warns of unused GPUs and of its own deprecations; neither is for whoever trains.
        warnings.simplefilter("ignore")
        fabric = fabric_module.Fabric(
            accelerator=config.accelerator,
            devices=local,
            num_nodes=max(1, workers // local),
            strategy=_strategy(config.strategy, workers),
            precision=resolved_precision(config),
        )
        fabric.launch()
    return fabric


def resolved_precision(config: TrainConfig) -> Any:
    """`config.precision`, with "auto" decided: bf16-mixed where the device computes it natively, else 32-true."""
    if config.precision != "auto":
        return config.precision
    on_cuda = config.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    # A processor without the instructions computes bfloat16 too, several times slower than float32. torch has no public
    # question for it in all the versions that we support.
    native = torch.cuda.is_bf16_supported() if on_cuda else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if native else "32-true"


def _strategy(name: str, workers: int) -> Any:
    from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy

    if workers == 1:
        return "auto"
    if name == "fsdp":
        return ModelParallelStrategy(_shard, data_parallel_size=workers, tensor_parallel_size=1)
    return DDPStrategy(find_unused_parameters=name == "ddp_find_unused")


def _shard(module: nn.Module, mesh: Any) -> nn.Module:
    """FSDP2: each entry of a ModuleList or Sequential is a unit that is gathered when it runs, the rest another."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    objective = module.get_submodule("objective")
    data_mesh = mesh["data_parallel"]
    for part in list(objective.modules()):
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=data_mesh)
    fully_shard(objective, mesh=data_mesh)
    for method in ("losses", "predict"):
        # Sharded parameters are gathered by hooks on forward; these are called in its stead.
        if callable(getattr(objective, method, None)):
            register_fsdp_forward_method(objective, method)
    return module


@contextmanager
def relink(module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> Iterator[None]:
    """Within the block parameters may be replaced (sharding does so); afterwards the optimisers hold the new ones."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    held = {key: [[names[id(p)] for p in g["params"]] for g in opt.param_groups] for key, opt in optimizers.items()}
    yield
    new = dict(module.named_parameters())
    for key, optimizer in optimizers.items():
        for group, params in zip(optimizer.param_groups, held[key], strict=True):
            group["params"] = [new[name] for name in params]


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the global generators of Python, numpy, torch and the device, in some ten microseconds.

    `torch.manual_seed` does the same for every kind of device there might be and takes twenty times as long, which counts
    when it is done for each batch.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  what others draw from the old global generator
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def sum_over_workers(fabric: Any, values: AnyTensor) -> AnyTensor:
    """The sum of a small tensor over all workers."""
    return values if fabric.world_size == 1 else fabric.all_reduce(values, reduce_op="sum")


def gather(fabric: Any, value: Any) -> list[Any]:
    """A plain value of each worker, in order of rank, on every worker."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def full_tensor(tensor: AnyTensor) -> AnyTensor:
    """A sharded tensor whole; every worker must call. Others come back as they are."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether any of the module's parameters is spread over workers."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def sharded_like(reference: AnyTensor, value: AnyTensor) -> AnyTensor:
    """A whole tensor cut up as `reference` is; every worker must call."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(reference, DTensor) or isinstance(value, DTensor) or value.dim() == 0:
        return value
    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)


def owners(module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, list[nn.Parameter]]:
    """The parameters of each optimiser, after checking that each parameter that learns has exactly one.

    Raises:
        ConfigError: an optimiser holds another module's parameters, two hold the same one, or one is held by none.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    holder: dict[int, str] = {}
    for key, optimizer in optimizers.items():
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if id(parameter) not in names:
                size = tuple(parameter.shape)
                raise ConfigError(f"optimiser '{key}' holds a parameter of size {size} that is not the objective's")
            if id(parameter) in holder:
                both = f"'{holder[id(parameter)]}' and '{key}'"
                raise ConfigError(f"parameter '{names[id(parameter)]}' is held by two optimisers, {both}")
            holder[id(parameter)] = key
    idle = [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in holder]
    if idle:
        raise ConfigError(
            f"{len(idle)} parameters that require a gradient are in no optimiser ({_some(idle)}); "
            "give them to one or freeze them with requires_grad_(False)"
        )
    return {key: [p for group in opt.param_groups for p in group["params"]] for key, opt in optimizers.items()}


def _some(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
