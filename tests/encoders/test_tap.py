"""Taps: known sums, the published convolution over layers, batches and padding."""

from collections.abc import Callable

import pytest
import torch

from sonorant.core.errors import ConfigError
from sonorant.core.types import Features
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.tap import (
    TAPS,
    HierarchicalConv,
    LengthAdaptor,
    WeightedSum,
    aligned,
    build_tap,
)

LENGTHS = [9, 4, 0, 7]


def layers(count: int, dim: int, lengths: list[int], rate: float = 50.0, extra: int = 0) -> list[Features]:
    """Layers whose items are the same whatever else is in the batch, with nonsense behind them."""
    made = []
    for layer in range(count):
        values = torch.full((len(lengths), max(lengths) + extra, dim), float("nan"))
        for item, length in enumerate(lengths):
            own = torch.Generator().manual_seed(1000 * layer + length)
            values[item, :length] = torch.randn(length, dim, generator=own)
        made.append(Features(values, torch.tensor(lengths), rate))
    return made


def invariant(run: Callable[[list[int], int], Features]) -> None:
    whole = run(LENGTHS, 3)
    for item, length in enumerate(LENGTHS):
        alone = run([length], 0)
        size = int(whole.lengths[item])
        assert size == int(alone.lengths[0])
        torch.testing.assert_close(whole.values[item, :size], alone.values[0, :size], atol=1e-5, rtol=1e-5)
        assert not whole.values[item, size:].any()


@pytest.mark.parametrize("name", [name for name in TAPS if name != "layer"])
def test_a_tap_keeps_items_apart_and_trains_all_it_has(name: str) -> None:
    torch.manual_seed(0)
    tap = build_tap(name, 7, 12)
    invariant(lambda lengths, extra: tap(layers(7, 12, lengths, extra=extra)))
    out = tap(layers(7, 12, [9, 4]))
    assert out.values.shape == (2, 9, tap.dim)
    (out.values * torch.randn_like(out.values)).sum().backward()
    for label, parameter in tap.named_parameters():
        assert parameter.grad is not None, label
        assert 0 < parameter.grad.abs().max() < torch.inf, label
    short = Features(torch.ones(1, 3, 12, dtype=torch.bfloat16), torch.tensor([3]), 50.0)
    assert tap.to(torch.bfloat16)([short] * 7).values.dtype == torch.bfloat16


def test_a_chosen_layer_is_that_layer() -> None:
    given = layers(4, 3, [5])
    assert build_tap("layer", 4, 3, layer=2)(given) is given[2]
    with pytest.raises(ConfigError, match=r"\[-4, 3\]"):
        build_tap("layer", 4, 3, layer=4)


def test_a_weighted_sum_begins_as_the_mean_and_can_become_one_layer() -> None:
    given = layers(3, 4, [6])
    tap = WeightedSum(3, 4)
    torch.testing.assert_close(tap(given).values, torch.stack([layer.values for layer in given]).mean(0))
    with torch.no_grad():
        tap.weight[1] = 50.0
    torch.testing.assert_close(tap(given).values, given[1].values)


def test_normalised_layers_weigh_the_same_however_loud() -> None:
    given = layers(3, 16, [6])
    loud = [Features(layer.values * 10.0**index, layer.lengths, 50.0) for index, layer in enumerate(given)]
    tap, plain = WeightedSum(3, 16, normalise=True), WeightedSum(3, 16)
    torch.testing.assert_close(tap(loud).values, tap(given).values, atol=1e-4, rtol=0)
    assert (plain(loud).values - plain(given).values).abs().max() > 1


@pytest.mark.parametrize("count", [3, 7, 13, 25, 30])
def test_the_hierarchy_is_the_published_convolution_over_layers(count: int) -> None:
    torch.manual_seed(count)
    tap = HierarchicalConv(count, 12)
    given = layers(count, 12, [5, 5])
    stacked = torch.stack([layer.values for layer in given], dim=-1)  # (batch, frame, dim, layer)
    expected = stacked.flatten(0, 1)
    for conv in tap.convs:
        expected = torch.relu(conv(expected))
    assert len(tap.convs) == int(torch.tensor(float(count)).log() / torch.tensor(3.0).log() + 1e-6)
    torch.testing.assert_close(tap(given).values, expected.flatten(1).unflatten(0, (2, 5)))


def test_twelve_layers_of_768_come_out_768_wide() -> None:
    assert HierarchicalConv(13, 768).dim == 768
    assert HierarchicalConv(25, 1024).dim == 1023  # 25 → 9 → 3 layers, of 341 each
    with pytest.raises(ConfigError, match="at least 3"):
        HierarchicalConv(2, 8)


def test_a_tap_says_what_it_was_built_for() -> None:
    with pytest.raises(ConfigError, match="takes 3 layers.*got 2"):
        WeightedSum(3, 4)(layers(2, 4, [5]))
    with pytest.raises(ConfigError, match="takes 4 layers.*got 3"):
        build_tap("layer", 4, 4, layer=3)(layers(3, 4, [5]))
    with pytest.raises(ConfigError, match=r"width 4, got \[5\]"):
        WeightedSum(2, 4)(layers(2, 5, [5]))
    with pytest.raises(ConfigError, match="did you mean 'weighted_sum'"):
        build_tap("weigthed_sum", 2, 4)


def test_slower_layers_are_read_at_the_time_of_each_frame() -> None:
    slow = Features(torch.arange(4.0).view(1, 4, 1), torch.tensor([3]), 25.0)
    fast = Features(torch.zeros(1, 7, 1), torch.tensor([7]), 50.0)
    found = aligned([slow, fast])[0]
    assert found.values[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert found.frame_rate == 50.0


@pytest.mark.parametrize("name", ["wav2vec2_tiny", "mr_hubert_tiny", "sew_toy"])
def test_a_tap_fits_an_encoder(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name).eval()
    outputs = encoder(torch.randn(2, 8000), torch.tensor([8000, 6000]), layers=True)
    out = build_tap("weighted_sum", encoder.num_layers + 1, encoder.dim)(outputs)
    assert out.values.shape == outputs[-1].values.shape


@pytest.mark.parametrize("settings", [(1, 3, 2), (3, 3, 2), (2, 5, 3)])
def test_the_length_adaptor_thins_frames_out(settings: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    adaptor = LengthAdaptor(6, *settings)
    invariant(lambda lengths, extra: adaptor(layers(1, 6, lengths, extra=extra)[0]))
    out = adaptor(layers(1, 6, [40])[0])
    assert out.values.shape[1] == int(out.lengths[0]) == -(-40 // settings[2] ** settings[0])
    assert out.frame_rate == pytest.approx(50 / settings[2] ** settings[0])
