"""A masked convolution does not see its middle, and equals a convolution whose middle taps are zero."""

import pytest
import torch
from tests.contracts.encoders import check_block
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.nn.masked_convolution import MaskedAggregate, MaskedConv


@pytest.mark.parametrize("kernel_size, mask_size", [(15, 7), (15, 13), (3, 1), (5, 3)])
def test_equals_a_convolution_with_zeros_in_the_middle(kernel_size: int, mask_size: int) -> None:
    torch.manual_seed(0)
    layer = MaskedConv(3, 4, kernel_size, mask_size)
    plain = nn.Conv1d(3, 4, kernel_size, padding=kernel_size // 2)
    with torch.no_grad():
        plain.weight.zero_()
        plain.weight[..., : layer.taps] = layer.before.weight
        plain.weight[..., kernel_size - layer.taps :] = layer.behind.weight
        plain.bias.copy_(layer.before.bias)
    values = torch.randn(2, 30, 3)
    expected = plain(values.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(layer(values, torch.tensor([30, 30])), expected, atol=1e-5, rtol=1e-5)


def test_sees_all_but_its_middle() -> None:
    torch.manual_seed(0)
    layer = MaskedConv(2, 3, 9, 5).double()

    def output(values: Tensor) -> Tensor:
        return layer(values, torch.tensor([25]))

    jacobian = torch.autograd.functional.jacobian(output, torch.randn(1, 25, 2, dtype=torch.float64))
    seen = jacobian[0, 12, :, 0].abs().sum((0, 2)).nonzero().flatten().tolist()
    assert seen == [8, 9, 15, 16]


def test_contract() -> None:
    check_block(lambda: MaskedConv(6, 8, 9, 3), input_dim=6)
    check_block(
        lambda: MaskedAggregate(6, 2, 11, 3),
        input_dim=6,
        run=lambda module, values, lengths: (module([values, 0.5 * values], lengths), lengths),
    )


@pytest.mark.parametrize("kernel_size, mask_size", [(4, 1), (5, 2), (5, 5), (5, 7)])
def test_sizes_are_checked(kernel_size: int, mask_size: int) -> None:
    with pytest.raises(ConfigError, match="odd sizes with mask_size < kernel_size"):
        MaskedConv(2, 2, kernel_size, mask_size)


def test_a_stack_that_outgrows_its_kernel_is_refused() -> None:
    with pytest.raises(ConfigError, match="must exceed mask_size"):
        MaskedAggregate(4, 5, 15, 5)
    with pytest.raises(ConfigError, match="takes 2 layers, got 1"):
        MaskedAggregate(4, 2)([torch.zeros(1, 3, 4)], torch.tensor([3]))
