"""The contract battery of self-supervised objectives: what every entry of their catalogue must keep.

A third party runs it on its own: `check_objective(lambda: MyObjective(encoder), make_batch)`.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from sonorant.core.seed import derive, item_seeds
from sonorant.core.types import Batch, Loss
from sonorant.train.config import DoctorConfig
from sonorant.train.doctor import Diagnosis, Doctor

__all__ = ["MakeBatch", "batch_of", "check_objective", "item_of"]

MakeBatch = Callable[[Sequence[str], int], Batch]
"""(ids of the items, extra padding) → a batch whose items are functions of their ids alone, with seeds and labels."""


def batch_of(
    ids: Sequence[str],
    extra: int = 0,
    *,
    sample_rate: int = 1000,
    seconds: tuple[float, float] = (0.6, 1.2),
    units: dict[str, tuple[int, int]] | None = None,
) -> Batch:
    """Items made of a few tones each that change four times a second, so that units follow from the sound.

    Args:
        ids: of the items; each item is a function of its id.
        extra: samples of padding beyond the longest item.
        sample_rate: Hz.
        seconds: shortest and longest item.
        units: name of a stream → (number of units, samples a unit); a stretch of one tone is one unit.
    """
    units = units or {}
    waves, streams = [], {name: [] for name in units}
    for name in ids:
        generator = torch.Generator().manual_seed(derive(0, "item", name) % 2**31)
        low, high = (int(s * sample_rate) for s in seconds)
        size = int(torch.randint(low, high, (), generator=generator))
        tones = torch.randint(0, 8, (size // 80 + 1,), generator=generator).repeat_interleave(80)[:size]
        time = torch.arange(size) / sample_rate
        noise = 0.05 * torch.randn(size, generator=generator)
        waves.append(torch.sin(2 * math.pi * (40 + 45 * tones) * time) * 0.5 + noise)
        for stream, (count, hop) in units.items():
            streams[stream].append(tones[hop // 2 :: hop] % count)
    lengths = torch.tensor([len(wave) for wave in waves])
    labels: dict[str, Any] = {}
    for stream, rows in streams.items():
        labels[stream] = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels[f"{stream}_lengths"] = torch.tensor([len(row) for row in rows])
    waveform = nn.functional.pad(nn.utils.rnn.pad_sequence(waves, batch_first=True), (0, extra))
    return Batch(waveform, lengths, sample_rate, labels, tuple(ids), item_seeds(0, 0, list(ids)))


def item_of(batch: Batch, item: int) -> Batch:
    """One item of a batch, without padding."""
    length = int(batch.lengths[item])
    labels = {}
    for name, value in batch.labels.items():
        sizes = batch.labels.get(f"{name}_lengths")
        labels[name] = value[item : item + 1] if sizes is None else value[item : item + 1, : int(sizes[item])]
    part = slice(item, item + 1)
    seeds = None if batch.seeds is None else batch.seeds[part]
    return replace(
        batch,
        waveform=batch.waveform[part, :length],
        lengths=batch.lengths[part],
        labels=labels,
        ids=batch.ids[part],
        seeds=seeds,
    )


IDS = ("a", "b", "c", "d")


def _loss(objective: Any, batch: Batch) -> Loss:
    losses = objective.losses(batch)
    assert set(losses) == {"model"}
    return losses["model"]


def _close(loss: Loss, other: Loss, what: str, tolerance: float = 1e-4) -> None:
    assert int(loss.count) == int(other.count), f"{what}: {int(loss.count)} targets against {int(other.count)}"
    mean, expected = float(loss.mean.detach()), float(other.mean.detach())
    assert abs(mean - expected) <= tolerance * max(1.0, abs(expected)), f"{what}: {mean} against {expected}"


def _check_sums(objective: nn.Module, make: MakeBatch) -> None:
    """Padding, what stands in it, the order of the items and the batch that they are in change nothing."""
    objective.eval()
    with torch.no_grad():
        batch = make(IDS, 0)
        whole = _loss(objective, batch)
        assert int(whole.count) > 0, "no targets"
        assert whole.total.isfinite()
        assert whole.total.dtype in (torch.float32, torch.float64)
        _close(_loss(objective, make(IDS, 137)), whole, "with more padding")
        dirty = make(IDS, 137)
        for item, length in enumerate(dirty.lengths.tolist()):
            dirty.waveform[item, length:] = torch.tensor([float("nan"), float("inf"), -1e20, 3.0])[item % 4]
        _close(_loss(objective, dirty), whole, "with garbage in the padding")
        _close(_loss(objective, make(IDS[::-1], 0)), whole, "in another order")


def _check_items(objective: nn.Module, make: MakeBatch) -> None:
    objective.eval()
    with torch.no_grad():
        batch = make(IDS, 0)
        alone = [_loss(objective, item_of(batch, item)) for item in range(len(batch))]
        _close(sum(alone[1:], alone[0]), _loss(objective, batch), "the sum of the items alone")


def _check_gradients(objective: nn.Module, make: MakeBatch) -> None:
    objective.train()
    objective.zero_grad()
    _loss(objective, make(IDS, 20)).total.backward()
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, f"{name} does not learn and has a gradient"
            continue
        assert parameter.grad is not None, f"no gradient reaches {name}"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        assert parameter.grad.abs().max() > 0, f"the gradient of {name} is zero"


def _check_precision(objective: nn.Module, make: MakeBatch) -> None:
    objective.eval()
    batch = make(IDS, 0)
    exact = _loss(objective, batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = _loss(objective, batch)
    mixed.total.backward()
    assert mixed.total.dtype == torch.float32
    _close(mixed, exact, "under bfloat16", tolerance=0.05)
    objective.zero_grad()


def _step(objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    loss = _loss(objective, batch)
    optimizer.zero_grad()
    loss.mean.backward()
    optimizer.step()
    return loss.mean.detach()


def _check_state(build: Callable[[], nn.Module], make: MakeBatch) -> None:
    """Weights, teachers, codebooks, schedules: all that the next step depends on is in the state dict."""
    torch.manual_seed(0)
    first = build().train()
    optimizer = torch.optim.SGD([p for p in first.parameters() if p.requires_grad], lr=0.01)
    for index in range(3):
        torch.manual_seed(index)
        _step(first, optimizer, make((f"s{index}", f"t{index}"), 0))
    second = build().train()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    results = []
    for module in (first, second):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.01)
        torch.manual_seed(9)
        results.append([_step(module, optimizer, make(IDS, 0)), _step(module, optimizer, make(IDS[:2], 0))])
    assert torch.equal(torch.stack(results[0]), torch.stack(results[1])), "training goes on otherwise after loading"
    for (name, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        if isinstance(value, Tensor):
            assert torch.equal(value, other), f"{name} differs after loading and two steps"


@contextmanager
def _unchecked() -> Iterator[None]:
    """No shape checking within: of many equal calls, the first few have had it, and it takes most of their time."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _check_learning(objective: nn.Module, make: MakeBatch, steps: int, lr: float, fall: float) -> None:
    """One small batch can be learnt by heart."""
    objective.train()
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=lr)
    batch = make(IDS[:2], 0)
    torch.manual_seed(0)
    with _unchecked():
        losses = [float(_step(objective, optimizer, batch)) for _ in range(steps)]
    start, end = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    assert end < fall * start, f"one batch is not learnt: {start:.4g} becomes {end:.4g} in {steps} steps"


def _check_collapse(objective: Any, make: MakeBatch) -> None:
    """A healthy beginning is not called collapsed; an encoder that says nothing is, with words."""
    objective.eval()
    batch = make(IDS, 0)
    doctor = Doctor(DoctorConfig(collapse_checks=1))
    with torch.no_grad():
        statistics = objective.diagnose(batch)
        assert statistics
        assert all(math.isfinite(value) for value in statistics.values())
        doctor.examine(1, statistics)
        assert statistics["frame_variation"] > 1e-3
        for parameter in objective.encoder.parameters():
            parameter.zero_()
        statistics = objective.diagnose(batch)
    with pytest.raises(Diagnosis, match="collapsed"):
        doctor.examine(10**6, statistics)


def check_objective(
    build: Callable[[], nn.Module],
    make: MakeBatch,
    *,
    chance: tuple[float, float] | None = None,
    additive: bool = True,
    steps: int = 60,
    lr: float = 5e-3,
    fall: float = 0.7,
) -> None:
    """Everything that the toolkit promises of a self-supervised objective.

    Args:
        build: makes it, with random weights and an `encoder`.
        make: batches; see `MakeBatch`.
        chance: lowest and highest mean loss that may stand at the beginning.
        additive: the loss of a batch is the sum over its items; not so with negatives from other items or batch norms.
        steps: of learning one batch by heart.
        lr: of Adam, there.
        fall: share of the first loss that must be fallen below.
    """
    torch.manual_seed(0)
    objective = build()
    if chance is not None:
        with torch.no_grad():
            start = float(_loss(copy.deepcopy(objective).eval(), make(IDS, 0)).mean)
        assert chance[0] <= start <= chance[1], f"the loss begins at {start}, outside of {chance}"
    _check_sums(copy.deepcopy(objective), make)
    if additive:
        _check_items(copy.deepcopy(objective), make)
    _check_gradients(copy.deepcopy(objective), make)
    _check_precision(copy.deepcopy(objective), make)
    with _unchecked():
        _check_state(build, make)
    _check_learning(copy.deepcopy(objective), make, steps, lr, fall)
    _check_collapse(copy.deepcopy(objective), make)
