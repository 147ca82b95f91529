"""Quasi-recurrent layers: gates from a convolution, and a recurrence so plain that all frames are computed at once.

Read `linear_recurrence` (the scan and its gradient), then `Qrnn`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.config import at_least
from sonorant.core.lengths import zero_padding
from sonorant.nn.linear import Linear

__all__ = ["Qrnn", "linear_recurrence"]


def _scan(decay: Tensor, inputs: Tensor) -> Tensor:
    """c_t = a_t c_{t−1} + b_t over axis 1 in log-depth: pairs of steps become one step of a sequence half as long.

    Two steps make one with decay a_{2i+1} a_{2i} and input a_{2i+1} b_{2i} + b_{2i+1}; its states are those at odd frames,
    and one more product gives the even ones. Pairs are formed by absolute position, so what follows a frame changes
    nothing in its rounding.
    """
    size = inputs.shape[1]
    if size == 1:
        return inputs
    half = size // 2
    pairs_decay, pairs_input = (side[:, : 2 * half].unflatten(1, (half, 2)) for side in (decay, inputs))
    first_decay, second_decay = pairs_decay.unbind(2)
    first_input, second_input = pairs_input.unbind(2)
    odd = _scan(first_decay * second_decay, torch.addcmul(second_input, second_decay, first_input))
    even = torch.cat([first_input[:, :1], torch.addcmul(first_input[:, 1:], first_decay[:, 1:], odd[:, :-1])], dim=1)
    states = torch.stack([even, odd], dim=2).flatten(1, 2)
    if size % 2:
        last = torch.addcmul(inputs[:, -1:], decay[:, -1:], odd[:, -1:])
        states = torch.cat([states, last], dim=1)
    return states


class _LinearRecurrence(torch.autograd.Function):
    """The scan; its gradient is the same scan from the end to the start, so only decays and states are kept."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor) -> Tensor:
        states = _scan(decay, inputs)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        # g_t = ∂L/∂c_t + a_{t+1} g_{t+1}: turned round, the decay of a step is that of the frame after it.
        later = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)
        for_inputs = _scan(later.flip(1), gradients[0].flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        return for_inputs * before, for_inputs


def linear_recurrence(
    decay: Float[Tensor, "batch frame dim"],
    inputs: Float[Tensor, "batch frame dim"],
    initial: Float[Tensor, "batch dim"] | None = None,
) -> Float[Tensor, "batch frame dim"]:
    """c_t = decay_t · c_{t−1} + inputs_t for all frames, in log₂(frames) steps; c_0 is `initial`, or zero.

    >>> linear_recurrence(torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1)).flatten().tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    if inputs.shape[1] == 0:
        return inputs
    if initial is not None:
        first = torch.addcmul(inputs[:, :1], decay[:, :1], initial[:, None])
        inputs = torch.cat([first, inputs[:, 1:]], dim=1)
    if torch.compiler.is_compiling():
        return _scan(decay, inputs)
    return _LinearRecurrence.apply(decay, inputs)


class Qrnn(nn.Module):
    """One layer with fo-pooling (arXiv:1611.01576, equations 1 and 5): c_t = f c_{t−1} + (1 − f) z, h_t = o c_t.

    z (tanh), f and o (sigmoid) come from a convolution over the frame and those before it, so the layer looks back only.

    Args:
        input_dim: width that comes in.
        dim: width that comes out.
        window: frames that the convolution sees; 2 in the paper's experiments and in PASE+.
    """

    def __init__(self, input_dim: int, dim: int, window: int = 2) -> None:
        super().__init__()
        at_least("window", window, 1)
        self.input_dim, self.dim, self.window = input_dim, dim, window
        self.gates = Linear(window * input_dim, 3 * dim)

    def forward(
        self, values: Float[Tensor, "batch frame input"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frame dim"]:
        """Frames in, frames out; what comes out in the padding is zero."""
        values = zero_padding(values, lengths)
        outputs, _ = self._run(nn.functional.pad(values, (0, 0, self.window - 1, 0)), None)
        return zero_padding(outputs, lengths)

    def step(
        self, values: Float[Tensor, "batch frame input"], state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One chunk after `state` (None at the start): frames that come out, and the state after them."""
        before = values.new_zeros(len(values), self.window - 1, self.input_dim) if state is None else state[0]
        joined = torch.cat([before, values], dim=1)
        if values.shape[1] == 0:
            cell = values.new_zeros(len(values), self.dim) if state is None else state[1]
            return values.new_zeros(len(values), 0, self.dim), (joined, cell)
        outputs, cell = self._run(joined, None if state is None else state[1])
        return outputs, (joined[:, values.shape[1] :], cell)

    def _run(self, padded: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
        windows = padded.unfold(1, self.window, 1).transpose(2, 3).flatten(2)
        update, forget, output = self.gates(windows).chunk(3, dim=-1)
        forget = forget.sigmoid()
        states = linear_recurrence(forget, (1 - forget) * update.tanh(), cell)
        return output.sigmoid() * states, states[:, -1]
