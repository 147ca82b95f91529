"""Parts of the Zipformer: activations, norm, positions, rates, bypass, limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.encoders import check_block
from torch import Tensor, nn

from sonorant.core.lengths import zero_padding
from sonorant.nn.limits import Balancer, Whitener, whiteness
from sonorant.nn.masking import attention_mask
from sonorant.nn.multirate import Downsample, fit_width, upsample
from sonorant.nn.swoosh import SwooshL, SwooshR, swoosh_l, swoosh_r
from sonorant.nn.zipformer import AttentionWeights, BiasNorm, Bypass, ZipformerBlock, compact_table


@pytest.mark.parametrize(
    "function, module, shift, offset",
    [(swoosh_l, SwooshL(), 4.0, 0.035), (swoosh_r, SwooshR(), 1.0, 0.313261687)],
)
def test_swoosh(function: object, module: nn.Module, shift: float, offset: float) -> None:
    points = [-1e4, -87.0, -3.0, -0.1, 0.0, 0.5, 1.0, 4.0, 20.0, 88.5, 1e4]
    values = torch.tensor(points, requires_grad=True)

    def exact(x: float) -> float:
        return max(x - shift, 0) + math.log1p(math.exp(-abs(x - shift))) - 0.08 * x - offset

    out = function(values)  # type: ignore[operator]
    torch.testing.assert_close(out.detach(), torch.tensor([exact(x) for x in points]), rtol=2e-6, atol=1e-6)
    assert torch.equal(module(values), out)
    with torch.no_grad():
        assert torch.equal(function(values), out)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(out.sum(), values)
    slopes = torch.tensor([1 / (1 + math.exp(min(700.0, shift - x))) - 0.08 for x in points])
    torch.testing.assert_close(gradient, slopes, rtol=1e-5, atol=1e-6)
    small = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, small)
    assert function(values.detach().bfloat16()).dtype == torch.bfloat16  # type: ignore[operator]


def test_bias_norm_keeps_length_in_one_direction() -> None:
    norm = BiasNorm(4)
    values = torch.randn(2, 3, 4)
    plain = values / values.square().mean(-1, keepdim=True).sqrt() * math.e
    torch.testing.assert_close(norm(values).detach(), plain, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([5.0, 0, 0, 0]))
    lengths = norm(torch.tensor([[1.0, 1, 1, 1], [3.0, 3, 3, 3]])).detach().norm(dim=-1)
    assert float(lengths[1] / lengths[0]) > 1.5  # with a bias, longer vectors stay longer
    zeros = torch.zeros(1, 4, requires_grad=True)
    with torch.no_grad():
        norm.bias.zero_()
    norm(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_compact_positions() -> None:
    table = compact_table(5, 7, 12)
    assert table.shape == (12, 12)  # distances 7 … −4
    assert bool((table[:, -1] == 1).all())
    torch.testing.assert_close(compact_table(2, 5, 12), compact_table(4, 5, 12)[:7])
    wide = compact_table(1, 4000, 48)
    steps = (wide[:-1] - wide[1:]).norm(dim=-1)
    assert float(steps[-1]) > 20 * float(steps[0])  # near distances are told apart finely, far ones coarsely
    mirrored = compact_table(4, 3, 8)  # 3 … −3
    torch.testing.assert_close(mirrored[:, 0:6:2], mirrored.flip(0)[:, 0:6:2])
    torch.testing.assert_close(mirrored[:, 1:6:2], -mirrored.flip(0)[:, 1:6:2])


def test_attention_by_distance_alone() -> None:
    """With only the position part, weights are a function of the distance."""
    torch.manual_seed(0)
    module = AttentionWeights(8, 2, 4, 3, 12)
    with torch.no_grad():
        module.project.weight.zero_()
        module.position.weight.normal_()
    weights = module(torch.randn(1, 6, 8), None, compact_table(6, 6, 12))
    scores = weights.log()[0, 1]
    for i, j in ((2, 3), (4, 1), (5, 5)):
        a, b = scores[i, j] - scores[i, i - 1 if i else 1], scores[i - 1, j - 1] - scores[i - 1, i - 2]
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 23), factor=st.integers(2, 8), padding=st.integers(0, 9))
def test_downsample_fills_up_with_the_last_frame(length: int, factor: int, padding: int) -> None:
    torch.manual_seed(length)
    module = Downsample(factor)
    with torch.no_grad():
        module.bias.normal_()
    values = torch.randn(1, length + padding, 3)
    out, lengths = module(values, torch.tensor([length]))
    frames = [values[0, min(i, length - 1)] for i in range(-(-length // factor) * factor)]
    groups = torch.stack(frames).view(-1, factor, 3)
    expected = (groups * module.bias.softmax(0)[:, None]).sum(1)
    assert int(lengths[0]) == len(expected)
    torch.testing.assert_close(out[0, : len(expected)], expected)
    again = upsample(out, factor, length)
    assert again.shape[1] == min(length, out.shape[1] * factor)
    assert torch.equal(again[0, ::factor], out[0, : len(again[0, ::factor])])


def test_widths() -> None:
    values = torch.randn(1, 2, 4)
    assert torch.equal(fit_width(values, 3), values[..., :3])
    assert torch.equal(fit_width(values, 6)[..., :4], values)
    assert not fit_width(values, 6)[..., 4:].any()


def test_a_bypass_stays_in_bounds_and_comes_back() -> None:
    bypass = Bypass(3)
    with torch.no_grad():
        bypass.scale.copy_(torch.tensor([0.1, 0.6, 1.4]))
    before, after = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    out = bypass(before, after, torch.tensor(0.2))
    torch.testing.assert_close(out.detach()[0, 0], torch.tensor([0.2, 0.6, 1.0]))
    for sign in (1.0, -1.0):
        bypass.zero_grad()
        (bypass(before, after, torch.tensor(0.2)).sum() * sign).backward()
        # Descent goes against the gradient: up where too low, down where too high, as the loss wants between.
        assert torch.equal(bypass.scale.grad, torch.tensor([-1.0, sign, 1.0]))


def test_a_balancer_leads_channels_back() -> None:
    torch.manual_seed(0)
    balancer = Balancer(min_positive=0.3, max_positive=0.7, min_abs=0.5, max_abs=2.0)
    fine, low, small, large = torch.randn(4, 500).unbind()
    values = torch.stack([fine, low - 3, small * 0.01, large * 50], dim=-1).requires_grad_()
    out = balancer(values)
    assert torch.equal(out, values)
    (gradient,) = torch.autograd.grad(out, values, torch.ones_like(out))
    change = gradient - 1
    assert not change[:, 0].any()
    assert float(change[:, 1].mean()) < 0  # descent moves a low channel up
    assert float((change[:, 2] * values.detach()[:, 2]).sum()) < 0  # grows a small one
    assert float((change[:, 3] * values.detach()[:, 3]).sum()) > 0  # shrinks a large one
    assert float(change[:, 1:].square().mean(0).sqrt().max()) == pytest.approx(0.04, rel=1e-3)
    assert torch.equal(
        torch.autograd.grad(balancer.eval()(values), values, torch.ones_like(out))[0], torch.ones_like(out)
    )


def test_a_whitener_pulls_channels_apart() -> None:
    torch.manual_seed(0)
    shared = torch.randn(300, 1)
    values = (shared + 0.1 * torch.randn(300, 8)).requires_grad_()
    assert float(whiteness(values.detach())) > 5
    assert float(whiteness(torch.randn(3000, 8))) < 1.1
    out = Whitener(limit=5.0)(values)
    assert torch.equal(out, values)
    (gradient,) = torch.autograd.grad(out, values, torch.zeros_like(out) + 1)
    change = gradient - 1
    assert float(change.norm() / (values.numel() ** 0.5)) == pytest.approx(0.02, rel=1e-3)
    assert float(whiteness(values.detach() - 10 * change)) < float(whiteness(values.detach()))
    (left,) = torch.autograd.grad(Whitener(limit=100.0)(values), values, torch.ones_like(out))
    assert torch.equal(left, torch.ones_like(out))


@pytest.mark.parametrize("causal", [False, True])
def test_the_block(causal: bool) -> None:
    def run(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask, table = attention_mask(lengths, values.shape[1]), compact_table(values.shape[1], values.shape[1], 8)
        return module(zero_padding(values, lengths), lengths, mask, table, torch.tensor(0.2)), lengths

    sizes = {"query_dim": 4, "value_dim": 3, "position_head_dim": 2, "position_dim": 8, "causal": causal}
    check_block(lambda: ZipformerBlock(16, 2, 24, 5, **sizes), input_dim=16, run=run, export=not causal)
