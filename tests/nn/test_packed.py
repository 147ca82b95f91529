"""Packed and padded layouts give the same frames, outputs of layers and gradients."""

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.nn import transformer
from sonorant.nn.attention import Attention, position_table
from sonorant.nn.gated_attention import BucketBias, GatedAttention, toeplitz
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import pack
from sonorant.nn.position import ConvolutionalPosition, SinusoidalPosition, StackedConvolutionalPosition
from sonorant.nn.transformer import TransformerLayer, TransformerStack

LENGTHS = torch.tensor([7, 7, 3, 0, 9])


def features(dim: int = 8, extra: int = 2) -> Features:
    torch.manual_seed(0)
    values = torch.randn(len(LENGTHS), int(LENGTHS.max()) + extra, dim)
    for item, size in enumerate(LENGTHS.tolist()):
        values[item, size:] = float("nan")
    return Features(values, LENGTHS, 50.0)


def test_there_and_back() -> None:
    given = features()
    for packed in (True, False):
        values, layout = pack(given, packed)
        back = layout.features(values, 50.0)
        assert back.values.shape == given.values.shape
        for item, size in enumerate(LENGTHS.tolist()):
            assert torch.equal(back.values[item, :size], given.values[item, :size])
            assert not back.values[item, size:].any()
    values, layout = pack(given, packed=True)
    assert values.shape == (int(LENGTHS.sum()), 8)
    assert layout.longest == 9


@pytest.mark.parametrize("position", ["none", "rotary", "relative", "shaw"])
def test_packed_attention_is_the_padded_one(position: str) -> None:
    given = features()
    attention = Attention(8, 2, position=position).eval()
    values, layout = pack(given, packed=True)
    table = position_table(position, 8, 2, layout.longest, layout.longest)
    found = layout.padded(attention.packed(values, layout, table))
    padded, other = pack(given, packed=False)
    frames = other.num_frames
    whole = attention(padded, attention_mask(LENGTHS, frames), position_table(position, 8, 2, frames, frames))
    for item, size in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(found[item, :size], whole[item, :size], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 2, 3], [9]])
def test_causal_attention_sees_nothing_of_what_comes_in_steps_either(pieces: list[int]) -> None:
    torch.manual_seed(0)
    attention, values = Attention(8, 2, causal=True).eval(), torch.randn(1, 9, 8)
    whole = attention(values)
    changed = torch.cat([values[:, :5], values[:, 5:] + 1], dim=1)
    assert torch.equal(attention(changed)[:, :5], whole[:, :5])
    key = value = torch.zeros(1, 2, 0, 4)
    parts = []
    for part in values.split(pieces, dim=1):
        seen, key, value = attention.step(part, key, value, None)
        parts.append(seen)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_a_packed_stack_is_the_padded_one(monkeypatch: pytest.MonkeyPatch, norm_first: bool, gated: bool) -> None:
    given = features()
    layers = [
        TransformerLayer(8, 2, 16, 0.0, norm_first=norm_first, attention=GatedAttention(8, 2) if gated else None)
        for _ in range(2)
    ]
    table = BucketBias(2, 8, 6) if gated else None
    stack = TransformerStack(layers, 8, norm_first=norm_first, position=ConvolutionalPosition(8, 4, 2), table=table)
    results = []
    for packed in (True, False):
        monkeypatch.setattr(transformer, "pack", lambda embedded, own=packed: pack(embedded, own))
        stack.zero_grad()
        outputs = stack(given, True)
        sum((output.values**2).sum() for output in outputs).backward()
        results.append((outputs, [parameter.grad.clone() for parameter in stack.parameters()]))
    (packed_out, packed_grad), (padded_out, padded_grad) = results
    for one, other in zip(packed_out, padded_out, strict=True):
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=1e-5)
    for own, theirs in zip(packed_grad, padded_grad, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-4)


def test_between_changes_what_the_next_layer_gets() -> None:
    given = features()
    stack = TransformerStack([TransformerLayer(8, 2, 16, 0.0) for _ in range(3)], 8, norm_first=True)
    seen: list[int] = []

    def between(index: int, frames: Features) -> Features:
        seen.append(index)
        return frames if index != 1 else Features(torch.zeros_like(frames.values), frames.lengths, frames.frame_rate)

    plain, changed = stack(given, True), stack(given, True, between)
    assert seen == [0, 1, 2]
    torch.testing.assert_close(plain[1].values, changed[1].values)
    assert not torch.allclose(plain[2].values, changed[2].values)


@pytest.mark.parametrize("packed", [True, False])
def test_what_between_leaves_in_the_padding_does_not_matter(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    given = features()
    stack = TransformerStack([TransformerLayer(8, 2, 16, 0.0) for _ in range(3)], 8, norm_first=True).eval()

    def between(index: int, frames: Features) -> Features:
        values = frames.values.clone()
        for item, size in enumerate(frames.lengths.tolist()):
            values[item, size:] = float("nan")
        return Features(values, frames.lengths, frames.frame_rate)

    monkeypatch.setattr(transformer, "pack", lambda embedded: pack(embedded, packed))
    assert torch.equal(stack(given, False, between).values, stack(given).values)


def test_a_feed_forward_in_parts_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = TransformerLayer(8, 2, 16).eval()
    values = torch.randn(11, 8)
    with torch.no_grad():
        whole = layer._ffn(values)
        monkeypatch.setattr(transformer, "ROWS", 4)
        torch.testing.assert_close(layer._ffn(values), whole)


@pytest.mark.parametrize("build", [lambda: SinusoidalPosition(8), lambda: StackedConvolutionalPosition(8, 5, 2, 3)])
def test_packed_positions_are_the_padded_ones(build: object) -> None:
    given = features()
    module = build()  # type: ignore[operator]
    outputs = [
        layout.padded(module.packed(values, layout)) for values, layout in (pack(given, True), pack(given, False))
    ]
    torch.testing.assert_close(*outputs)


def test_layers_are_dropped_in_training_only() -> None:
    given = features()
    stack = TransformerStack([TransformerLayer(8, 2, 16, 0.0)] * 4, 8, norm_first=False, layer_drop=0.5)
    stack.eval()
    assert torch.equal(stack(given).values, stack(given).values)
    stack.train()
    different = {round(float(stack(given).values.detach().abs().sum()), 3) for _ in range(20)}
    assert len(different) > 1


def test_buckets_are_wavlms() -> None:
    """Near distances have a bucket each, far ones share, and the sign chooses the half."""
    bias = BucketBias(2, num_buckets=32, max_distance=80)
    buckets = bias.buckets(torch.tensor([-1000, -79, -8, -7, 0, 1, 7, 8, 79, 1000]))
    assert buckets.tolist()[3:7] == [7, 0, 17, 23]
    assert buckets[0] == 15
    assert buckets[-1] == 31
    assert (buckets[:5] < 16).all()
    assert (buckets[5:] >= 16).all()


@pytest.mark.parametrize("num_buckets, max_distance", [(2, 80), (320, 80), (32, 8)])
def test_buckets_that_no_far_distance_would_share_are_refused(num_buckets: int, max_distance: int) -> None:
    with pytest.raises(ConfigError, match=f"got num_buckets={num_buckets} and max_distance={max_distance}"):
        BucketBias(2, num_buckets, max_distance)


def test_toeplitz_holds_distances() -> None:
    row = torch.arange(-4.0, 5.0)[None]  # distances −4 … 4
    expected = torch.tensor([[j - i for j in range(3)] for i in range(3)], dtype=torch.float32)
    assert torch.equal(toeplitz(row, 3)[0], expected)
