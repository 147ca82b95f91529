"""Every block keeps the contract: alone = in a batch, deaf to padding, trained throughout, saved, cast, exported."""

import pytest
import torch
from tests.contracts.encoders import check_block
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.nn.attention import Attention
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.convolution import DepthwiseConv, FrameStack, Subsampling1d, Subsampling2d, stack_frames
from sonorant.nn.masking import attention_mask
from sonorant.nn.norm import NORMS, BatchNorm, build_norm
from sonorant.nn.pooling import AttentivePooling, mean_pool, statistics_pool
from sonorant.nn.position import ConvolutionalPosition
from sonorant.nn.recurrent import ClippedRnn, Recurrent
from sonorant.nn.streaming import chunk_mask
from sonorant.nn.transformer import TransformerLayer

DIM = 16


def attend(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return module(zero_padding(values, lengths), attention_mask(lengths, values.shape[1])), lengths


def attend_in_chunks(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    window = chunk_mask(values.shape[1], 5, 1, values.device)
    return module(zero_padding(values, lengths), attention_mask(lengths, values.shape[1], window)), lengths


def block(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return module(zero_padding(values, lengths), lengths, attention_mask(lengths, values.shape[1])), lengths


def thin(module: nn.Module, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return module(values, lengths)


@pytest.mark.parametrize("position", ["none", "rotary", "relative", "shaw"])
@pytest.mark.parametrize("run", [attend, attend_in_chunks])
def test_attention(position: str, run: object) -> None:
    check_block(lambda: Attention(DIM, 4, 0.1, position), input_dim=DIM, run=run, export=run is attend_in_chunks)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layer(norm_first: bool) -> None:
    check_block(
        lambda: TransformerLayer(DIM, 2, 32, norm_first=norm_first), input_dim=DIM, run=attend, export=norm_first
    )


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_conformer_block(norm: str) -> None:
    check_block(lambda: ConformerBlock(DIM, 2, 32, 7, norm=norm), input_dim=DIM, run=block, export=norm == "layer")


@pytest.mark.parametrize("causal", [True, False])
def test_depthwise(causal: bool) -> None:
    check_block(lambda: DepthwiseConv(DIM, 9, causal), input_dim=DIM)


def test_stacked_frames_hold_each_frame_once() -> None:
    values = torch.arange(14.0).view(1, 7, 2)
    values[:, 5:] = torch.nan
    stacked, lengths = stack_frames(values, torch.tensor([5]), 2)
    assert stacked[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 0, 0, 0]]
    assert lengths.tolist() == [2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Subsampling2d(20, DIM),
        lambda: Subsampling2d(20, DIM, padding=1, factor=2),
        lambda: Subsampling2d(20, DIM, channels=8, factor=8, depthwise=True, padding=1),
        lambda: Subsampling1d(20, DIM, [(3, 1), (3, 2)]),
        lambda: Subsampling1d(20, DIM, [(5, 2), (3, 3)], padding=False),
        lambda: FrameStack(20, DIM, 3),
    ],
)
def test_front_ends(build: object) -> None:
    check_block(build, input_dim=20, run=thin)
    front = build()
    for length in range(1, 40):
        values, lengths = front(torch.randn(1, length, 20), torch.tensor([length]))
        assert int(lengths[0]) == front.output_lengths(length)
        assert values.shape[1] >= int(lengths[0])
        assert not values[0, int(lengths[0]) :].any()


@pytest.mark.parametrize(
    "build", [lambda: Subsampling2d(20, DIM), lambda: Subsampling1d(20, DIM, [(5, 2), (3, 3)], False)]
)
def test_receptive_field(build: object) -> None:
    """Of the first output frame: it changes with the input's last frame of the field, and not with the next."""
    front = build().eval()
    lengths = torch.tensor([60])
    values = torch.randn(1, 60, 20)
    before = front(values, lengths)[0]
    for frame, moves in ((front.receptive_field - 1, True), (front.receptive_field, False)):
        changed = values.clone()
        changed[:, frame] += 5
        assert torch.equal(front(changed, lengths)[0][:, 0], before[:, 0]) is not moves


@pytest.mark.parametrize("name", sorted(NORMS))
def test_norms(name: str) -> None:
    check_block(lambda: build_norm(name, DIM), input_dim=DIM, run=masked(), low_precision=name != "batch")


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent(kind: str, bidirectional: bool) -> None:
    check_block(lambda: Recurrent(kind, 12, DIM, bidirectional), input_dim=12, run=masked(), dynamic=False)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_clipped_rnn(bidirectional: bool) -> None:
    check_block(
        lambda: ClippedRnn(12, DIM, 2.0, bidirectional), input_dim=12, run=masked(), dynamic=False, low_precision=False
    )


def masked() -> object:
    return lambda module, values, lengths: (module(zero_padding(values, lengths), lengths), lengths)


def test_convolutional_position() -> None:
    for kernel in (7, 8):
        check_block(lambda size=kernel: ConvolutionalPosition(DIM, size, 4), input_dim=DIM, export=kernel == 7)


def test_pooling() -> None:
    lengths = torch.tensor([5, 9, 2])
    values = torch.randn(3, 9, DIM)
    dirty = values.clone()
    for item, length in enumerate(lengths.tolist()):
        dirty[item, length:] = float("nan")
    attentive = AttentivePooling(DIM, 8).eval()
    for pool in (mean_pool, statistics_pool, attentive):
        together = pool(dirty, lengths)
        for item, length in enumerate(lengths.tolist()):
            alone = pool(values[item : item + 1, :length], lengths[item : item + 1])
            torch.testing.assert_close(together[item], alone[0], atol=1e-6, rtol=1e-5)
    deviation = values[1].std(0, unbiased=False)
    torch.testing.assert_close(statistics_pool(values, lengths)[1, DIM:], deviation, atol=1e-5, rtol=1e-4)


def test_batch_norm_is_torchs_over_the_valid_frames() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(DIM), nn.BatchNorm1d(DIM)
    ours.load_state_dict(theirs.state_dict())
    for lengths in (torch.tensor([7, 3, 5]), torch.tensor([2, 7, 1])):
        values = 3 + 2 * torch.randn(3, 7, DIM)
        valid = torch.cat([values[item, :length] for item, length in enumerate(lengths.tolist())])
        expected = theirs(valid)
        for item, length in enumerate(lengths.tolist()):
            values[item, length:] = float("inf")
        result = ours(values, lengths)
        joined = torch.cat([result[item, :length] for item, length in enumerate(lengths.tolist())])
        torch.testing.assert_close(joined, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 2


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim"):
        Attention(10, 4)
    with pytest.raises(ConfigError, match="did you mean 'rotary'"):
        Attention(16, 4, position="rotery")
    with pytest.raises(ConfigError, match="must be odd"):
        DepthwiseConv(4, 8)
    with pytest.raises(ConfigError, match="cannot be causal"):
        ConformerBlock(16, 2, 32, 7, norm="instance", causal=True)
    with pytest.raises(ConfigError, match="did you mean 'layer'"):
        build_norm("layr", 4)
    with pytest.raises(ConfigError, match="too small"):
        Subsampling2d(4, 8)
    with pytest.raises(ConfigError, match="cannot stream"):
        Recurrent("gru", 4, 4).step(torch.zeros(1, 2, 4))
