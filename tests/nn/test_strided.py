"""Strided convolutions over waveforms: geometry, streams with padding at every layer, the norm in either layout."""

import pytest
import torch
from torch import nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import valid_mask
from sonorant.nn.norm import GroupNorm
from sonorant.nn.strided import StridedConvs, build_activation, conv_norm


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_norms_of_both_layouts_agree(groups: int) -> None:
    torch.manual_seed(0)
    norm = GroupNorm(groups, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    values, lengths = 3 * torch.randn(3, 6, 50) + 2, torch.tensor([50, 31, 1])
    mask = valid_mask(lengths, 50)[:, None]
    ours = norm.channels_first(values, lengths) * mask
    torch.testing.assert_close(ours, norm(values.transpose(1, 2), lengths).transpose(1, 2) * mask, atol=1e-4, rtol=1e-4)
    whole = nn.functional.group_norm(values[:1], groups, norm.weight, norm.bias)
    torch.testing.assert_close(ours[:1], whole, atol=1e-4, rtol=1e-4)


def test_equals_torchs_layers() -> None:
    torch.manual_seed(0)
    convs = StridedConvs(5, (10, 8, 4), (5, 4, 2), (3, 2, 1))
    values, lengths = torch.randn(1, 1, 777), torch.tensor([777])
    expected = values
    for conv, (stride, padding) in zip(convs.convs, [(5, 3), (4, 2), (2, 1)]):
        expected = torch.relu(nn.functional.conv1d(expected, conv.weight, conv.bias, stride, padding))
    frames, counts = convs(values[:, 0], lengths)
    assert int(counts[0]) == frames.shape[1] == expected.shape[2]
    torch.testing.assert_close(frames, expected.transpose(1, 2))


@pytest.mark.parametrize("paddings", [(), (3, 2, 1), (9, 0, 3)])
@pytest.mark.parametrize("size", [1, 30, 400, 401, 799])
def test_chunks_equal_the_whole(paddings: tuple[int, ...], size: int) -> None:
    torch.manual_seed(0)
    convs = StridedConvs(4, (10, 8, 4), (5, 4, 2), paddings, norm="layer", log_compression=True).eval()
    waveform = torch.randn(2, size)
    whole, counts = convs(waveform, torch.tensor([size, size]))
    for pieces in ([size], [7] * (size // 7 + 1), [1, 0, size]):
        stream, start, parts = convs.stream(2), 0, []
        for piece in pieces:
            parts.append(stream.push(waveform[:, start : start + piece]))
            start += piece
        joined = torch.cat([*parts, stream.finish()], dim=1)
        torch.testing.assert_close(joined, whole[:, : int(counts[0])], atol=1e-5, rtol=1e-5)


def test_a_stream_keeps_no_more_than_its_next_windows_need() -> None:
    stream = StridedConvs(4, (10, 8), (5, 4)).stream()
    stream.push(torch.randn(1, 16000))
    for waiting in stream.waiting:
        assert waiting.untyped_storage().nbytes() == 4 * waiting.numel() < 4 * 4 * 10


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="equally many, .* got 2, 1 and 2"):
        StridedConvs(4, (3, 3), (2,))
    with pytest.raises(ConfigError, match="at least one each, got 0, 0 and 0"):
        StridedConvs(4, (), ())
    with pytest.raises(ConfigError, match="train with norm='layer'"):
        StridedConvs(4, (3,), (2,), norm="group").stream()
    with pytest.raises(ConfigError, match="norm must be none, layer or group"):
        conv_norm("batch", 4)
    with pytest.raises(ConfigError, match="relu or gelu"):
        build_activation("tanh")
