"""The contract battery of augmentations: what every entry of the catalogue must keep.

A third party runs it on its own: `check_augmentation(lambda prob: MyNoise(prob=prob))`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sonorant.audio.augment.draws import Augmentation
from sonorant.core.errors import ConfigError
from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch, Features, Segment, Segments

__all__ = ["check_augmentation", "check_feature_augmentation", "speech_like"]

TOLERANCE = 1e-5
LOUDEST = 5.0
"""Sane: no augmentation of a signal within [-0.5, 0.5] goes beyond this."""


def speech_like(lengths: list[int], sample_rate: int, channels: int | None = None, seed: int = 0) -> Tensor:
    """Harmonics of a gliding pitch with a little noise and a pause, from and to near silence, zero beyond each length."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for item, length in enumerate(lengths):
        time = torch.arange(length, dtype=torch.float64) / sample_rate
        phase = 2 * torch.pi * ((110 + 30 * item) * time + 10 * time**2)
        voice = sum(torch.sin(k * phase + k) / k for k in range(1, 12))
        syllables = (torch.sin(2 * torch.pi * 3 * time) > -0.6).double()
        noise = 0.02 * torch.randn(channels or 1, length, generator=generator, dtype=torch.float64)
        edge = torch.minimum(time, length / sample_rate - time).clamp(max=0.08) / 0.08
        row = (0.2 * (voice * syllables)[None] + noise) * 10 ** (-3 * (1 - edge))
        rows.append(torch.nn.functional.pad(row, (0, max(lengths) - length)))
    waveform = (0.4 * torch.stack(rows) / torch.stack(rows).abs().amax()).float()
    return waveform if channels else waveform[:, 0]


def _batch(sample_rate: int = 16000, channels: int | None = None, epoch: int = 0) -> Batch:
    lengths = [round(seconds * sample_rate) for seconds in (0.7, 1.2, 0.43, 0.9)]
    ids = ("ann-1", "bob-2", "cat-3", "dan-4")
    words = []
    for length in lengths:
        end = length / sample_rate
        words.append((Segment(0.05, 0.1, "one"), Segment(0.2, 0.15, "two", 0.5), Segment(end - 0.05, 0.05, "three")))
    return Batch(
        speech_like(lengths, sample_rate, channels),
        torch.tensor(lengths),
        sample_rate,
        labels={"text": list(ids), "segments": Segments(tuple(words)), "tokens": torch.arange(8).view(4, 2)},
        ids=ids,
        seeds=item_seeds(1, epoch, ids),
    )


def _items(batch: Batch, where: list[int], extra: int = 0) -> Batch:
    """Some items in some order, cut to the longest of them and padded by `extra`."""
    lengths = batch.lengths[where]
    waveform = batch.waveform[where][..., : int(lengths.max())]
    segments = batch.labels["segments"]
    return replace(
        batch,
        waveform=torch.nn.functional.pad(waveform, (0, extra)),
        lengths=lengths,
        labels={"segments": Segments(tuple(segments[item] for item in where))},
        ids=tuple(batch.ids[item] for item in where),
        seeds=batch.seeds[where],
    )


def _assert_item(left: Batch, i: int, right: Batch, j: int, what: str) -> None:
    assert int(left.lengths[i]) == int(right.lengths[j]), what
    length = int(left.lengths[i])
    difference = float((left.waveform[i, ..., :length] - right.waveform[j, ..., :length]).abs().max())
    assert difference <= TOLERANCE, f"{what}: item {left.ids[i]} differs by {difference}"
    for one, other in zip(left.labels["segments"][i], right.labels["segments"][j], strict=True):
        assert one.label == other.label, what
        assert one.start == pytest.approx(other.start, abs=1e-6), what
        assert one.duration == pytest.approx(other.duration, abs=1e-6), what


def check_augmentation(
    build: Callable[..., Augmentation],
    *,
    gradient: bool = True,
    alone: bool = True,
    drawn: bool = True,
    sample_rates: tuple[int, ...] = (16000, 8000),
) -> None:
    """Raises AssertionError where an augmentation breaks the contract.

    Args:
        build: makes it, taking `prob`.
        gradient: whether a gradient must reach every item's waveform.
        alone: whether an item must come out the same alone as in a batch; False for those that take sounds from other items.
        drawn: whether it draws anything but whom to change; False where every item gets the same.
        sample_rates: to be run at; the first one is used for the costly checks.
    """
    always = build(prob=1.0)
    batch = _batch(sample_rates[0])
    _check_draws(build, always, batch, alone)
    if drawn:
        _check_seeds(always, batch)
    _check_batching(always, batch, alone)
    for rate in sample_rates:
        for channels in (None, 2):
            _check_result(always, _batch(rate, channels))
    _check_types(always, batch)
    if gradient:
        _check_gradient(always, batch)


def _check_draws(build: Callable[..., Augmentation], always: Augmentation, batch: Batch, alone: bool) -> None:
    with pytest.raises(ConfigError, match="item_seeds"):
        always(replace(batch, seeds=None))
    before = batch.waveform.clone()
    first, second = always(batch), always(batch)
    assert torch.equal(batch.waveform, before), "the batch that was given was changed in place"
    assert torch.equal(first.waveform, second.waveform), "the same seeds gave another result"
    unchanged = build(prob=0.0)(batch)
    assert torch.equal(unchanged.waveform, batch.waveform), "prob=0 changed a waveform"
    assert unchanged.labels["segments"] == batch.labels["segments"], "prob=0 changed a label"
    for item in range(len(batch)):
        size = min(first.waveform.shape[-1], batch.waveform.shape[-1])
        same = torch.equal(first.waveform[item, ..., :size], batch.waveform[item, ..., :size])
        assert not same, f"prob=1 left item {item} as it was"
    some = build(prob=0.5)(batch)
    assert some.ids == batch.ids
    assert len(some) == len(batch)
    for item in range(len(batch)):
        length = int(batch.lengths[item])
        kept = int(some.lengths[item]) == length and torch.equal(
            some.waveform[item, :length], batch.waveform[item, :length]
        )
        if not kept and alone:
            _assert_item(some, item, first, item, "prob=0.5 gave a changed item another change than prob=1")


def _check_seeds(always: Augmentation, batch: Batch) -> None:
    first = always(batch)
    draws = [always(_batch(batch.sample_rate, epoch=epoch)) for epoch in range(1, 7)]
    for item in range(len(batch)):
        same = [
            draw.lengths[item] == first.lengths[item]
            and torch.equal(draw.waveform[item, : first.lengths[item]], first.waveform[item, : first.lengths[item]])
            for draw in draws
        ]
        # A few discrete factors may well agree by chance once or twice, but not six times.
        assert not all(same), f"six other seeds gave item {item} the same result"
    other_place = [always(batch, f"place{k}") for k in range(6)]
    differs = [not torch.equal(o.waveform[..., :4000], first.waveform[..., :4000]) for o in other_place]
    assert any(differs), "the place in the chain does not enter the draws"


def _check_batching(always: Augmentation, batch: Batch, alone: bool) -> None:
    whole = always(batch)
    order = [2, 0, 3, 1]
    turned = always(_items(batch, order))
    for place, item in enumerate(order):
        _assert_item(turned, place, whole, item, "the order of items plays a part")
    padded = always(_items(batch, [0, 1, 2, 3], extra=1234))
    for item in range(len(batch)):
        _assert_item(padded, item, whole, item, "padding plays a part")
        if alone:
            _assert_item(always(_items(batch, [item])), 0, whole, item, "alone is not as in a batch")


def _check_result(always: Augmentation, batch: Batch) -> None:
    result = always(batch)
    assert result.waveform.shape[:-1] == batch.waveform.shape[:-1]
    assert result.lengths.dtype == batch.lengths.dtype
    assert int(result.lengths.min()) > 0
    assert int(result.lengths.max()) <= result.waveform.shape[-1]
    assert torch.isfinite(result.waveform).all()
    assert float(result.waveform.abs().max()) < LOUDEST
    assert (result.sample_rate, result.ids) == (batch.sample_rate, batch.ids)
    assert torch.equal(result.seeds, batch.seeds)
    assert result.labels["text"] == batch.labels["text"]
    assert torch.equal(result.labels["tokens"], batch.labels["tokens"])
    for item, length in enumerate(result.lengths.tolist()):
        assert not result.waveform[item, ..., length:].any(), "padding is not zero"
        assert float(result.waveform[item, ..., :length].abs().max()) > 0, "an item fell silent"
        seconds = length / result.sample_rate
        assert result.labels["segments"][item], "all segments were lost"
        for segment in result.labels["segments"][item]:
            assert segment.start >= 0
            assert segment.duration >= 0
            assert segment.end <= seconds + 1e-6, "a segment ends after its item"
    silent = replace(batch, waveform=torch.zeros_like(batch.waveform))
    assert torch.isfinite(always(silent).waveform).all(), "silence gave a number that is not finite"


def _check_types(always: Augmentation, batch: Batch) -> None:
    double = always(replace(batch, waveform=batch.waveform.double()))
    assert double.waveform.dtype == torch.float64
    half = always(replace(batch, waveform=batch.waveform.bfloat16()))
    assert half.waveform.dtype == torch.bfloat16
    assert torch.isfinite(half.waveform.float()).all()
    if torch.cuda.is_available():
        there = always(batch.to("cuda"))
        assert there.waveform.device.type == there.lengths.device.type == "cuda"


def _check_gradient(always: Augmentation, batch: Batch) -> None:
    waveform = batch.waveform.clone().requires_grad_()
    result = always(replace(batch, waveform=waveform))
    weight = torch.randn(result.waveform.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((result.waveform * weight).sum(), waveform)
    assert torch.isfinite(gradient).all(), "the gradient is not finite"
    for item, length in enumerate(batch.lengths.tolist()):
        reached = (gradient[item, :length] != 0).float().mean()
        assert reached > 0.3, f"the gradient reaches {float(reached):.0%} of item {item}"


def check_feature_augmentation(build: Callable[..., Callable[..., Features]], dim: int = 40) -> None:
    """The same for `(Features, seeds) -> Features`."""
    lengths = [120, 77, 200]
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(3, 200, dim)
    for item, length in enumerate(lengths):
        values[item, :length] = torch.randn(length, dim, generator=generator)
    features, seeds = Features(values, torch.tensor(lengths), 100.0), item_seeds(1, 0, ["a", "b", "c"])
    always = build(prob=1.0)
    with pytest.raises(ConfigError, match="item_seeds"):
        always(features, None)
    whole = always(features, seeds)
    assert torch.equal(whole.values, always(features, seeds).values)
    assert torch.equal(build(prob=0.0)(features, seeds).values, values)
    assert not torch.equal(always(features, seeds + 1).values, whole.values)
    assert not torch.equal(always(features, seeds, "elsewhere").values, whole.values)
    for item, length in enumerate(lengths):
        alone = always(
            Features(values[item : item + 1, :length], torch.tensor([length]), 100.0), seeds[item : item + 1]
        )
        assert torch.allclose(alone.values[0], whole.values[item, :length], atol=TOLERANCE)
        assert not whole.values[item, length:].any(), "padding is not zero"
        assert not torch.equal(whole.values[item], values[item]), "prob=1 left an item as it was"
    asked = values.clone().requires_grad_()
    always(replace(features, values=asked), seeds).values.square().sum().backward()
    assert torch.isfinite(asked.grad).all()
    assert (asked.grad[:, :60] != 0).float().mean() > 0.3
