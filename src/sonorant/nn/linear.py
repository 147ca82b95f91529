"""Linear layers by oneDNN where torch has it: on AMD's processors a tenth faster than the library behind `nn.Linear`, with
the GELU that follows for nothing.

`Linear` is `nn.Linear` in all but speed: names of its weights, initialisation, autocast, export. The gradient of what goes in
comes the same way. It steps aside for other devices and types, under compilation, and where `torch.backends.mkldnn` is off.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Linear", "gelu_linear", "onednn_usable", "product"]


class Linear(nn.Linear):
    """`nn.Linear`, faster on some processors.

    >>> Linear(3, 2)(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """

    def forward(self, input: Float[Tensor, "*rows input"]) -> Float[Tensor, "*rows output"]:
        weight, bias = self.weight, self.bias
        if not onednn_usable(input, weight) or input.dim() < 2:
            return nn.functional.linear(input, weight, bias)
        wanted = (input, weight) if bias is None else (input, weight, bias)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in wanted):
            out: Tensor = _Product.apply(input.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
            return out.unflatten(0, input.shape[:-1])
        return product(input, weight, bias)


def gelu_linear(linear: nn.Module, values: Float[Tensor, "*rows input"]) -> Float[Tensor, "*rows output"]:
    """GELU of what a linear layer makes; in one go where nothing is kept for a gradient.

    Args:
        linear: a `Linear`; anything else is called as it is, such as one with an adapter on it.
        values: what goes in.
    """
    if type(linear) is Linear and not torch.is_grad_enabled() and onednn_usable(values, linear.weight):
        return product(values, linear.weight, linear.bias, "gelu")
    return nn.functional.gelu(linear(values))


def onednn_usable(values: Tensor, weight: Tensor) -> bool:
    """Whether `product` may be called: a processor that knows the type, eager, and not in a context of other types."""
    return (
        values.device.type == "cpu"
        and values.dtype == weight.dtype
        and values.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and bool(torch.backends.mkldnn.enabled)
        and _available()
        and (values.dtype == torch.float32 or (values.dtype == torch.bfloat16 and _short_floats()))
    )


def product(
    values: Float[Tensor, "*rows input"],
    weight: Float[Tensor, "output input"],
    bias: Float[Tensor, " output"] | None = None,
    activation: str = "none",
) -> Float[Tensor, "*rows output"]:
    """values · weightᵀ + bias, then "gelu" or "none", without a gradient; where `onednn_usable`."""
    algorithm = "none" if activation == "gelu" else ""
    rows = _matrix(values.flatten(0, -2))
    out: Tensor = _linear_pointwise(rows, _matrix(weight), bias, activation, [], algorithm)
    return out.unflatten(0, values.shape[:-1])


def _matrix(values: Tensor) -> Tensor:
    """Rows or columns one after another in memory: for other layouts oneDNN has slow kernels, or none."""
    return values if values.t().is_contiguous() else values.contiguous()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        for_values, for_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(values if for_weight else None, weight if for_values else None)
        return product(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (values, weight) = gradients, ctx.saved_tensors
        for_values, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if for_values else None,
            # Sums over many frames are slower there, with two threads.
            gradient.t() @ values if for_weight else None,
            gradient.sum(0) if for_bias else None,
        )


def _linear_pointwise(*arguments: Any) -> Any:
    return torch.ops.mkldnn._linear_pointwise(*arguments)


@cache
def _short_floats() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _available() -> bool:
    """Tried once: the operator is torch's own, made for its compiler, and may be absent or called otherwise elsewhere."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    values, weight, bias = (torch.randn(*size, generator=generator) for size in ((3, 4), (5, 4), (5,)))
    try:
        with torch.no_grad():
            found = [_linear_pointwise(values, weight, bias, "gelu", [], "none")]
            found.append(_linear_pointwise(values.t(), weight.t()[:, :3], None, "none", [], ""))
            wanted = [
                nn.functional.gelu(nn.functional.linear(values, weight, bias)),
                values.t() @ weight.t()[:, :3].t(),
            ]
        return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
    except (AttributeError, RuntimeError, TypeError):
        return False
