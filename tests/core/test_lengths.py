import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sonorant.core.lengths import Geometry, lengths_of, pad, padding_mask, valid_mask, zero_padding


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_lengths_and_masks_are_inverse(lengths: list[int]) -> None:
    tensor = torch.tensor(lengths)
    assert torch.equal(lengths_of(padding_mask(tensor, 20)), tensor)
    assert torch.equal(valid_mask(tensor), ~padding_mask(tensor))


def test_zero_padding_leaves_the_signal() -> None:
    values = torch.randn(2, 5, 3)
    clean = zero_padding(values, torch.tensor([5, 2]))
    assert torch.equal(clean[0], values[0])
    assert torch.equal(clean[1, :2], values[1, :2])
    assert clean[1, 2:].abs().sum() == 0


def test_pad_keeps_items() -> None:
    items = [torch.randn(n, 2) for n in (3, 1)]
    padded, lengths = pad(items, value=-1)
    assert all(torch.equal(padded[i, : lengths[i]], item) for i, item in enumerate(items))
    assert (padded[1, 1:] == -1).all()


@given(
    length=st.integers(1, 300),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
)
def test_output_lengths_are_those_of_torch(length: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    geometry = Geometry.conv(kernel, stride, padding, dilation)
    expected = 0
    if length + 2 * padding >= geometry.receptive_field:
        expected = nn.Conv1d(1, 1, kernel, stride, padding, dilation)(torch.zeros(1, 1, length)).shape[-1]
    assert geometry.output_lengths(length) == expected
    assert geometry.output_lengths(torch.tensor([length])).tolist() == [expected]
    if expected:
        fewest = geometry.input_length(expected)
        assert geometry.output_lengths(fewest) >= min(expected, 1)
        assert fewest == 0 or geometry.output_lengths(fewest - 1) < expected


def test_receptive_field_is_what_the_gradient_reaches() -> None:
    layers = [(10, 5), (3, 2), (2, 2)]
    signal = torch.zeros(1, 1, 200, requires_grad=True)
    values = signal
    for kernel, stride in layers:
        conv = nn.Conv1d(1, 1, kernel, stride)
        nn.init.ones_(conv.weight)
        values = conv(values)
    geometry = Geometry.chain(layers)
    assert values.shape[-1] == geometry.output_lengths(200)
    frame = 3
    values[0, 0, frame].backward()
    touched = signal.grad[0, 0].nonzero().flatten()
    assert touched[0] == frame * geometry.stride
    assert len(touched) == geometry.receptive_field
    middle = (touched[0] + touched[-1]).item() / 2
    assert geometry.center(frame, sample_rate=100) == pytest.approx(middle / 100)
    assert geometry.frame_at(middle / 100, sample_rate=100) == frame
