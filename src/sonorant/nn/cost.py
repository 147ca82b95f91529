"""What a module costs: parameters and multiply-adds for one forward."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["ModelCost", "measure_cost"]


@dataclass(frozen=True)
class ModelCost:
    """Size and work of a module."""

    parameters: int
    """Numbers that are trained or frozen; a shared one counts once."""
    multiply_adds: int
    """Of matrix products, convolutions and attention in one forward; one multiply-add is two floating-point operations.
    Element-wise work (norms, activations, softmax) is left out, as is the custom."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Multiply-adds of each direct child."""

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.2f} M parameters, {self.multiply_adds / 1e9:.3f} G multiply-adds"


def measure_cost(module: nn.Module, *inputs: Any, **options: Any) -> ModelCost:
    """Runs `module(*inputs, **options)` once without gradients and counts.

    Args:
        module: anything callable with these inputs; its training flags come back as they were.
        inputs: for instance a second of audio, to get multiply-adds a second.

    >>> measure_cost(nn.Linear(3, 5), torch.zeros(2, 7, 3)).multiply_adds
    210
    """
    flags = {child: child.training for child in module.modules()}
    counter = FlopCounterMode(display=False)
    try:
        module.eval()
        # Fused kernels of recurrences and attention hide their products from the counter; these switches lay them open.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some builds warn about TF32 whenever this switch is touched
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
                module(*inputs, **options)
    finally:
        for child, flag in flags.items():
            child.training = flag
    parts = _parts(counter.get_flop_counts(), type(module).__name__)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return ModelCost(parameters, counter.get_total_flops() // 2, parts)


def _parts(counts: Mapping[str, Mapping[Any, int]], root: str) -> dict[str, int]:
    """Multiply-adds of each direct child; a container that is never called itself is the sum of what it holds."""
    parts: dict[str, int] = {}
    counted: set[str] = set()
    for name in sorted(counts, key=lambda name: name.count(".")):
        path = name.split(".")
        if path[0] != root or len(path) == 1 or any(".".join(path[:size]) in counted for size in range(2, len(path))):
            continue
        counted.add(name)
        parts[path[1]] = parts.get(path[1], 0) + sum(counts[name].values()) // 2
    return parts
