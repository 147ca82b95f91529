"""`Linear` is `nn.Linear` in all but speed."""

import pytest
import torch
from torch import Tensor, nn

from sonorant.nn import linear as module
from sonorant.nn.linear import Linear, gelu_linear, onednn_usable

SHAPES = [(7, 6), (2, 5, 6), (2, 3, 4, 6), (1, 6)]


def pair(bias: bool = True) -> tuple[Linear, nn.Linear]:
    torch.manual_seed(0)
    ours, plain = Linear(6, 9, bias=bias), nn.Linear(6, 9, bias=bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activations that oneDNN was asked for; skips where torch has none of it."""
    if not onednn_usable(torch.zeros(1, 1), torch.zeros(1, 1)):
        pytest.skip("this torch has no products by oneDNN")
    asked: list[str] = []
    original = module._linear_pointwise

    def noted(*arguments: object) -> object:
        asked.append(str(arguments[3]))
        return original(*arguments)

    monkeypatch.setattr(module, "_linear_pointwise", noted)
    return asked


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_plain_layer(shape: tuple[int, ...], bias: bool, used: list[str]) -> None:
    ours, plain = pair(bias)
    values = torch.randn(*shape)
    found, wanted = values.clone().requires_grad_(), values.clone().requires_grad_()
    direction = torch.randn(*shape[:-1], 9)
    (ours(found) * direction).sum().backward()
    (plain(wanted) * direction).sum().backward()
    assert used == ["none"] * 2, "the layer and the gradient of what goes in"
    torch.testing.assert_close(found.grad, wanted.grad)
    for (name, own), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(ours(values), plain(values))


@pytest.mark.parametrize("trained", ["input", "weight", "bias"])
def test_one_gradient_alone(trained: str) -> None:
    """As where only biases learn, or a frozen layer passes a gradient on."""
    ours, plain = pair()
    values = torch.randn(4, 6, requires_grad=trained == "input")
    for layer in (ours, plain):
        layer.weight.requires_grad_(trained == "weight")
        layer.bias.requires_grad_(trained == "bias")
    found, wanted = (
        torch.autograd.grad(layer(values).square().sum(), values if trained == "input" else getattr(layer, trained))
        for layer in (ours, plain)
    )
    torch.testing.assert_close(found, wanted)


def strided() -> dict[str, Tensor]:
    base = torch.randn(12, 6)
    return {
        "transposed": torch.randn(6, 12).t(),
        "every other": base[::2],
        "expanded": base[:1].expand(12, 6),
        "batch of frames turned round": torch.randn(3, 4, 6).transpose(0, 1),
        "channels first": torch.randn(2, 6, 5).transpose(1, 2),
        "overlapping windows": torch.randn(1, 20).unfold(1, 6, 2),
    }


@pytest.mark.parametrize("name", strided())
def test_values_in_any_order_of_memory(name: str) -> None:
    ours, plain = pair()
    torch.manual_seed(1)
    values = strided()[name]
    with torch.no_grad():
        torch.testing.assert_close(ours(values), plain(values))
        torch.testing.assert_close(gelu_linear(ours, values), nn.functional.gelu(plain(values)))
    values.requires_grad_()
    found, wanted = (
        torch.autograd.grad(layer(values).square().sum(), [values, layer.weight]) for layer in (ours, plain)
    )
    torch.testing.assert_close(found, wanted)


def test_gelu_comes_along_only_where_nothing_is_kept(used: list[str]) -> None:
    ours, plain = pair()
    values = torch.randn(4, 6)
    wanted = nn.functional.gelu(plain(values))
    torch.testing.assert_close(gelu_linear(ours, values), wanted)
    assert used == ["none"]
    with torch.no_grad():
        torch.testing.assert_close(gelu_linear(ours, values), wanted)
        assert used == ["none", "gelu"]
        torch.testing.assert_close(gelu_linear(plain, values), wanted)
    assert used == ["none", "gelu"], "whatever else a layer is, it is called"


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # of the switch itself, in some builds
def test_it_steps_aside(used: list[str]) -> None:
    ours, plain = pair()
    values = torch.randn(4, 6)
    with torch.no_grad():
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(ours(values), plain(values))
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(values).dtype == torch.bfloat16
            assert torch.equal(ours(values), plain(values))
        assert torch.equal(ours.double()(values.double()), plain.double()(values.double()))
        assert ours(torch.zeros(0, 6, dtype=torch.float64)).shape == (0, 9)
    assert not used


def test_no_rows_and_a_single_vector() -> None:
    ours, plain = pair()
    assert ours(torch.zeros(2, 0, 6)).shape == (2, 0, 9)
    vector = torch.randn(6)
    torch.testing.assert_close(ours(vector), plain(vector))


def test_it_is_exported_as_a_plain_layer() -> None:
    ours, _ = pair()
    graph = str(torch.export.export(nn.Sequential(ours), (torch.randn(4, 6),)).graph)
    assert "linear" in graph
    assert "mkldnn" not in graph
