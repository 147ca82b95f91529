"""The scan equals the plain loop, its gradient is right, and the layer keeps the contract."""

import pytest
import torch
from tests.contracts.encoders import check_block
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.nn.qrnn import Qrnn, linear_recurrence


def loop(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    states = []
    for frame in range(inputs.shape[1]):
        state = decay[:, frame] * state + inputs[:, frame]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 31, 200])
def test_scan_equals_the_loop(frames: int) -> None:
    decay, inputs, state = torch.rand(2, frames, 5), torch.randn(2, frames, 5), torch.randn(2, 5)
    expected = loop(decay, inputs, state)
    torch.testing.assert_close(linear_recurrence(decay, inputs, state), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        linear_recurrence(decay, inputs), loop(decay, inputs, torch.zeros(2, 5)), atol=1e-5, rtol=1e-5
    )


def test_no_frames() -> None:
    assert linear_recurrence(torch.ones(2, 0, 3), torch.ones(2, 0, 3)).shape == (2, 0, 3)


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_gradient(frames: int) -> None:
    torch.manual_seed(0)
    decay = torch.rand(2, frames, 2, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(2, frames, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(linear_recurrence, (decay, inputs, state))


def test_what_follows_changes_no_bit() -> None:
    decay, inputs = torch.rand(1, 50, 4), torch.randn(1, 50, 4)
    whole = linear_recurrence(decay, inputs)
    for size in (1, 2, 3, 17, 32, 49):
        assert torch.equal(linear_recurrence(decay[:, :size], inputs[:, :size]), whole[:, :size])


def test_layer_by_hand() -> None:
    """Equations 1 and 5, frame after frame."""
    torch.manual_seed(0)
    layer, values = Qrnn(3, 4, window=2), torch.randn(1, 6, 3)
    cell, before, outputs = torch.zeros(4), torch.zeros(3), []
    for frame in values[0]:
        update, forget, output = layer.gates(torch.cat([before, frame])).chunk(3)
        forget = forget.sigmoid()
        cell = forget * cell + (1 - forget) * update.tanh()
        outputs.append(output.sigmoid() * cell)
        before = frame
    torch.testing.assert_close(layer(values, torch.tensor([6]))[0], torch.stack(outputs), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_contract(window: int) -> None:
    # The depth of the scan is the logarithm of the number of frames, so an exported program keeps its length.
    check_block(lambda: Qrnn(6, 8, window), input_dim=6, dynamic=False)


@pytest.mark.parametrize("window", [1, 3])
def test_chunks_equal_the_whole(window: int) -> None:
    torch.manual_seed(0)
    layer, values = Qrnn(3, 4, window), torch.randn(2, 20, 3)
    whole = layer(values, torch.tensor([20, 20]))
    state, parts, start = None, [], 0
    for size in (1, 0, 5, 1, 13):
        part, state = layer.step(values[:, start : start + size], state)
        parts.append(part)
        start += size
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)


def test_window_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="window must be at least 1"):
        Qrnn(3, 4, window=0)
