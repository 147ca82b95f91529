"""Blocks against known answers: torch's own layers, the formulas of the papers, counts by hand."""

import math

import pytest
import torch
from torch import nn

from sonorant.core.lengths import zero_padding
from sonorant.nn.attention import Attention
from sonorant.nn.convolution import DepthwiseConv, depthwise_conv
from sonorant.nn.cost import measure_cost
from sonorant.nn.dropout import Dropout, dropout
from sonorant.nn.masking import attention_mask, reverse_frames
from sonorant.nn.position import SinusoidalPosition, relative_table, rotary_table, rotate, sinusoids
from sonorant.nn.recurrent import ClippedRnn, Recurrent
from sonorant.nn.streaming import FrameBuffer


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4).eval(), nn.MultiheadAttention(16, 4, batch_first=True).eval()
    theirs.in_proj_weight.data.copy_(ours.query_key_value.weight)
    theirs.in_proj_bias.data.copy_(ours.query_key_value.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    values, lengths = torch.randn(3, 9, 16), torch.tensor([9, 4, 6])
    mask = attention_mask(lengths, 9)
    expected, _ = theirs(values, values, values, key_padding_mask=~mask[:, 0, 0], need_weights=False)
    torch.testing.assert_close(ours(values, mask), expected, atol=1e-5, rtol=1e-4)


def test_dropout_path_of_attention_agrees_with_the_fused_one() -> None:
    """With a rate that rounds to nothing the written-out path must give what the fused kernel gives."""
    torch.manual_seed(0)
    attention = Attention(16, 4, dropout=1e-9, position="rotary")
    values, mask = torch.randn(2, 7, 16), attention_mask(torch.tensor([7, 5]), 7)
    torch.testing.assert_close(attention.train()(values, mask), attention.eval()(values, mask), atol=1e-5, rtol=1e-4)


def test_relative_scores_are_transformer_xl() -> None:
    """Terms a–d written out pair by pair (arXiv:1901.02860, section 3.3)."""
    torch.manual_seed(0)
    dim, heads, frames = 8, 2, 5
    attention = Attention(dim, heads, position="relative").double().eval()
    values = torch.randn(1, frames, dim, dtype=torch.float64)
    query, key, value = attention._heads(values)
    relative = attention.relative
    assert relative is not None
    expected = torch.empty(heads, frames, dim // heads, dtype=torch.float64)
    for head in range(heads):
        scores = torch.empty(frames, frames, dtype=torch.float64)
        for i in range(frames):
            for j in range(frames):
                distance = relative.project(sinusoids(torch.tensor([i - j]), dim).double()).view(heads, -1)[head]
                content = (query[0, head, i] + relative.content_bias[head, 0]) @ key[0, head, j]
                position = (query[0, head, i] + relative.position_bias[head, 0]) @ distance
                scores[i, j] = (content + position) / math.sqrt(dim // heads)
        expected[head] = scores.softmax(-1) @ value[0, head]
    merged = attention._merge(expected[None])
    torch.testing.assert_close(attention(values), merged, atol=1e-6, rtol=1e-5)


def test_rotary_scores_depend_on_distance_alone() -> None:
    table = rotary_table(40, 8)
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned_queries = rotate(query.expand(-1, -1, 40, -1), table)
    turned_keys = rotate(key.expand(-1, -1, 40, -1), table)
    scores = (turned_queries @ turned_keys.transpose(-1, -2))[0, 0]
    for distance in (-7, 0, 3):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-4)
    assert scores[0, 0] == pytest.approx(float((query * key).sum()), abs=1e-5)


def test_sinusoids() -> None:
    table = sinusoids(torch.arange(3), 4)
    assert table[2].tolist() == pytest.approx([math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)], abs=1e-6)
    assert relative_table(2, 3, 4).shape == (5, 4)
    position, values = SinusoidalPosition(4), torch.zeros(1, 6, 4)
    torch.testing.assert_close(position(values)[:, 2:], position(values[:, 2:], offset=2))


@pytest.mark.parametrize(
    "frames, kernel, left, right", [(40, 9, 4, 4), (7, 9, 8, 0), (100, 31, 15, 15), (1, 3, 1, 1), (64, 1, 0, 0)]
)
def test_depthwise_is_conv1d_with_its_gradients(frames: int, kernel: int, left: int, right: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, frames, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel, dtype=torch.float64, requires_grad=True)
    ours = depthwise_conv(values, weight, left, right)
    padded = nn.functional.pad(values.transpose(1, 2), (left, right))
    theirs = nn.functional.conv1d(padded, weight, groups=6).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    seed = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, (values, weight), seed),
        torch.autograd.grad(theirs, (values, weight), seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_causal_convolution_in_steps() -> None:
    conv = DepthwiseConv(4, 5, causal=True)
    values = torch.randn(2, 20, 4)
    whole = conv(values, torch.tensor([20, 20]))
    past, parts = torch.zeros(2, 4, 4), []
    for piece in values.split([1, 7, 2, 10], dim=1):
        part, past = conv.step(piece, past)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_bidirectional_is_torchs_packed_one(kind: str) -> None:
    torch.manual_seed(0)
    ours = Recurrent(kind, 5, 7)
    theirs = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](5, 7, batch_first=True, bidirectional=True)
    state = dict(ours.forwards.state_dict())
    state |= {f"{name}_reverse": value for name, value in ours.backwards.state_dict().items()}
    theirs.load_state_dict(state)
    values, lengths = torch.randn(3, 11, 5), torch.tensor([11, 4, 8])
    packed = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(ours(values, lengths), expected, atol=1e-6, rtol=1e-5)


def test_clipped_rnn_is_its_formula_with_exact_gradients() -> None:
    torch.manual_seed(0)
    layer = ClippedRnn(3, 4, clip=0.8).double()
    values = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([6, 4])
    outputs = layer(values, lengths)
    for item, length in enumerate(lengths.tolist()):
        total = torch.zeros(length, 4, dtype=torch.float64)
        for direction, order in enumerate([range(length), range(length - 1, -1, -1)]):
            state = torch.zeros(4, dtype=torch.float64)
            for frame in order:
                state = (layer.inputs[direction](values[item, frame]) + layer.recurrent[direction] @ state).clamp(
                    0, 0.8
                )
                total[frame] += state
        torch.testing.assert_close(outputs[item, :length], total)
    assert torch.autograd.gradcheck(lambda x: layer(x, lengths), (values,))
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(layer, {"recurrent": w}, (values.detach(), lengths)),
        (layer.recurrent.detach().clone().requires_grad_(),),
    )


def test_dropout_keeps_the_mean_and_repeats_its_mask_backwards() -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, 333, requires_grad=True)
    dropped = dropout(values, 0.1)
    kept = dropped != 0
    assert float((~kept).float().mean()) == pytest.approx(26 / 256, abs=0.003)
    assert float(dropped.detach().mean()) == pytest.approx(1.0, abs=0.005)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    assert torch.equal(gradient, dropped.detach())
    # Eight masks share a draw: neighbours must still be independent.
    flat = kept.flatten()[: 8 * (kept.numel() // 8)].view(-1, 8).float()
    correlation = torch.corrcoef(flat.t()) - torch.eye(8)
    assert float(correlation.abs().max()) < 0.02
    layer = Dropout(0.5)
    assert layer.eval()(values) is values
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dropout(1.0)


def test_reversal_is_its_own_inverse_and_masking_stops_nan() -> None:
    values, lengths = torch.randn(3, 6, 2), torch.tensor([6, 0, 4])
    assert torch.equal(reverse_frames(reverse_frames(values, lengths), lengths), values)
    assert torch.equal(reverse_frames(values, lengths)[2, 0], values[2, 3])
    values[2, 5] = float("nan")
    assert zero_padding(values, lengths).isfinite().all()


def test_attention_masks_leave_no_query_without_a_key() -> None:
    mask = attention_mask(torch.tensor([0, 3]), 8, torch.eye(8, dtype=torch.bool))
    assert mask.any(-1).all()
    assert attention_mask(torch.tensor([0, 3]), 8).any(-1).all()


def test_frame_buffer_gives_every_window_once() -> None:
    buffer = FrameBuffer(stride=4, receptive_field=7, chunk_size=3)
    signal = torch.arange(105.0)[None, :, None]
    firsts = []
    for piece in signal.split(9, dim=1):
        firsts += [float(window[0, 0, 0]) for window in buffer.push(piece)]
        assert all(window.shape[1] == 15 for window in buffer.push(piece[:, :0]))
    assert firsts == [12.0 * index for index in range(8)]
    rest = buffer.finish()
    assert rest is not None
    assert rest[0, :, 0].tolist() == list(range(96, 105))
    assert buffer.finish() is None


def test_cost_by_hand() -> None:
    frames = 50
    values, lengths = torch.zeros(1, frames, 16), torch.tensor([frames])
    attention = measure_cost(Attention(16, 4), values)
    assert attention.multiply_adds == frames * 16 * 48 + 2 * frames * frames * 16 + frames * 16 * 16
    assert attention.parameters == 16 * 48 + 48 + 16 * 16 + 16
    conv = measure_cost(nn.Conv1d(16, 8, 5), values.transpose(1, 2))
    assert conv.multiply_adds == (frames - 4) * 16 * 8 * 5
    depthwise = measure_cost(DepthwiseConv(16, 7), values, lengths)
    assert depthwise.multiply_adds == frames * 16 * 7
    lstm = measure_cost(Recurrent("lstm", 16, 8, bidirectional=False), values, lengths)
    assert lstm.multiply_adds == frames * 4 * 8 * (16 + 8)
    gru = measure_cost(Recurrent("gru", 16, 8), values, lengths)
    assert gru.multiply_adds == 2 * frames * 3 * 8 * (16 + 8)
    rnn = measure_cost(ClippedRnn(16, 8), values, lengths)
    assert rnn.multiply_adds == 2 * frames * 8 * (16 + 8)
    assert sum(rnn.parts.values()) == 2 * frames * 8 * 16
    model = nn.Sequential(nn.Linear(16, 4), nn.Dropout(0.5))
    model[1].eval()
    measure_cost(model, values)
    assert model.training
    assert not model[1].training
    assert "G multiply-adds" in str(attention)
