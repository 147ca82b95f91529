"""Conformer blocks and rotated attention over a packed layout give what they give on the padded batch."""

import pytest
import torch

from sonorant.core.types import Features
from sonorant.nn.attention import PositionTable, position_table
from sonorant.nn.conformer import ConformerBlock
from sonorant.nn.masking import attention_mask
from sonorant.nn.packed import pack
from sonorant.nn.position import ShawBias
from sonorant.nn.rotated_attention import RotatedAttention

LENGTHS = torch.tensor([7, 7, 3, 0, 9])


def features(dim: int = 8) -> Features:
    torch.manual_seed(0)
    values = torch.randn(len(LENGTHS), 11, dim)
    for item, size in enumerate(LENGTHS.tolist()):
        values[item, size:] = float("nan")
    return Features(values, LENGTHS, 50.0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", ["layer", "batch", "group"])
@pytest.mark.parametrize("position", ["relative", "shaw"])
def test_a_packed_block_is_the_padded_one(position: str, norm: str, training: bool) -> None:
    torch.manual_seed(0)
    block = ConformerBlock(8, 2, 16, 5, 0.0, position, norm, conv_bias=False).train(training)
    assert block.convolution.expand.bias is None
    given = features()
    padded, other = pack(given, packed=False)
    mask = attention_mask(LENGTHS, other.num_frames)
    table = position_table(position, 8, 2, other.num_frames, other.num_frames)
    whole = block(padded, LENGTHS, mask, table)
    values, layout = pack(given, packed=True)
    tables = PositionTable(position, 8, 2)
    found = layout.padded(block.packed(values, layout, tables(layout.longest, values)))
    unpacked = block.packed(padded, other, table)
    for item, size in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(found[item, :size], whole[item, :size], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(unpacked[item, :size], whole[item, :size], atol=1e-5, rtol=1e-5)


def test_rotated_attention_packs_and_knows_where_an_item_begins() -> None:
    torch.manual_seed(0)
    attention = RotatedAttention(8, 2).eval()
    given = features()
    padded, _ = pack(given, packed=False)
    table = position_table("rotary", 8, 2, 11, 11)
    whole = attention(padded, attention_mask(LENGTHS, 11), table)
    values, layout = pack(given, packed=True)
    found = layout.padded(attention.packed(values, layout, table))
    for item, size in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(found[item, :size], whole[item, :size], atol=1e-5, rtol=1e-5)
    later = torch.cat([torch.zeros(1, 2, 8), padded[4:, :9]], dim=1)
    mask = attention_mask(torch.tensor([11]), 11) & (torch.arange(11) >= 2)
    assert (attention(later, mask)[0, 2:] - whole[4, :9]).abs().max() > 1e-3
    plain = attention.weights(padded[4:, :9])
    torch.testing.assert_close(plain.sum(-1), torch.ones(1, 2, 9))


def test_shaw_distances_ahead_are_cut_on_their_own() -> None:
    bias = ShawBias(4, 3, ahead=1)
    assert bias.table.shape == (5, 4)
    rows = bias.distances(6, 6, torch.device("cpu"))
    assert rows[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert rows[5].tolist() == [4, 4, 4, 3, 2, 1]
