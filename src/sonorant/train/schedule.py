"""Learning rate schedules: pure functions of the step, giving what the base learning rate is multiplied by.

The step counts from 0 and is the one about to be made, so that a warm-up of w steps reaches 1 at step w − 1 and the very
first step already learns. Nothing here holds state: a resumed run needs only its step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sonorant.core.config import at_least, one_of, within

__all__ = [
    "SCHEDULES", "Schedule", "ScheduleConfig", "build_schedule", "constant", "eden", "noam", "tri_stage", "warmup_cosine",
    "warmup_linear",
]  # fmt: skip

Schedule = Callable[[int], float]


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """Linear warm-up, then 1.

    >>> [constant(step, warmup_steps=4) for step in (0, 3, 100)]
    [0.25, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / max(1, warmup_steps))


def warmup_cosine(step: int, *, total_steps: int, warmup_steps: int = 0, final_scale: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to `final_scale` at `total_steps` (arXiv:1608.03983, equation 5, one period).

    >>> [round(warmup_cosine(step, total_steps=11, warmup_steps=1), 3) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = _share(step + 1, warmup_steps, total_steps)
    return final_scale + (1 - final_scale) * 0.5 * (1 + math.cos(math.pi * done))


def warmup_linear(step: int, *, total_steps: int, warmup_steps: int = 0, final_scale: float = 0.0) -> float:
    """Linear warm-up, then a straight line down to `final_scale` at `total_steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 1 + (final_scale - 1) * _share(step + 1, warmup_steps, total_steps)


def noam(step: int, *, warmup_steps: int) -> float:
    """Linear warm-up, then the inverse square root of the step (arXiv:1706.03762, equation 3), scaled to a peak of 1.

    The base learning rate is therefore the peak one; the paper's factor is base · sqrt(dim · warmup_steps).

    >>> [noam(step, warmup_steps=100) for step in (49, 99, 399)]
    [0.5, 1.0, 0.5]
    """
    now, warmup = step + 1, max(1, warmup_steps)
    return min(now / warmup, math.sqrt(warmup / now))


def tri_stage(
    step: int,
    *,
    warmup_steps: int,
    hold_steps: int,
    decay_steps: int,
    init_scale: float = 0.01,
    final_scale: float = 0.05,
) -> float:
    """Linear warm-up from `init_scale`, hold at 1, exponential decay to `final_scale` (arXiv:1904.08779, section 4.2).

    >>> stages = dict(warmup_steps=10, hold_steps=5, decay_steps=10, final_scale=0.01)
    >>> [round(tri_stage(step, **stages), 3) for step in (0, 10, 14, 20, 30)]
    [0.01, 1.0, 1.0, 0.1, 0.01]
    """
    if step < warmup_steps:
        return init_scale + (1 - init_scale) * step / warmup_steps
    since = step - warmup_steps - hold_steps
    if since <= 0:
        return 1.0
    return final_scale ** min(1.0, since / max(1, decay_steps))


def eden(step: int, *, step_scale: float, epoch_scale: float, warmup_steps: int = 0, init_scale: float = 0.5) -> float:
    """Two slow falls, one by the step and one by the epoch (arXiv:2310.11230, equation 9), after a linear warm-up.

    Each factor is (1 + (t / scale)²)^-¼: flat at first, then as t^-½. Where we differ from the paper: epochs are counted in
    steps, so that the schedule needs nothing but its step, and both falls begin at the end of the warm-up, so that the
    base learning rate is the peak one, as it is everywhere here.

    Args:
        step: from 0.
        step_scale: steps after which the first factor bends (the paper's α_step, 7500).
        epoch_scale: steps after which the second one does (the paper's α_epoch, 3.5 epochs).
        warmup_steps: of a straight line from `init_scale` to 1 (the paper's 500, from 0.5).
        init_scale: where the warm-up begins.

    >>> [round(eden(step, step_scale=100, epoch_scale=1000, warmup_steps=11), 3) for step in (0, 5, 10, 110, 1010)]
    [0.5, 0.75, 1.0, 0.839, 0.265]
    """
    if step < warmup_steps:
        return init_scale + (1 - init_scale) * step / max(1, warmup_steps - 1)
    since = step + 1 - warmup_steps
    return ((1 + (since / step_scale) ** 2) * (1 + (since / epoch_scale) ** 2)) ** -0.25


def _share(step: int, start: int, end: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, end - start)))


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Which schedule, and its stages as shares of the whole training, so that a preset may change the number of steps."""

    name: str = "warmup_cosine"
    """constant, eden, noam, tri_stage, warmup_cosine or warmup_linear."""
    warmup: float = 0.1
    """Share of all steps."""
    hold: float = 0.4
    """Share of all steps; tri_stage only."""
    init_scale: float = 0.01
    """Multiplier of the first step; tri_stage only."""
    final_scale: float = 0.0
    """Multiplier at the last step; all but constant, eden and noam (tri_stage needs one above 0)."""
    step_scale: int = 7500
    """Steps after which eden begins to fall (arXiv:2310.11230, section 4.1)."""
    epoch_scale: float = 0.1
    """Share of all steps after which eden begins to fall a second time (3.5 epochs of some 30 to 40 in the paper)."""

    def __post_init__(self) -> None:
        one_of("name", self.name, sorted(SCHEDULES))
        within("warmup", self.warmup, 0, 1)
        within("hold", self.hold, 0, 1 - self.warmup)
        within("init_scale", self.init_scale, 0, 1)
        within("final_scale", self.final_scale, 0, 1)
        at_least("step_scale", self.step_scale, 1)
        within("epoch_scale", self.epoch_scale, 1e-6, 1)
        if self.name == "tri_stage":
            at_least("final_scale", self.final_scale, 1e-9)


def _tri_stage(config: ScheduleConfig, steps: int, warmup: int) -> Schedule:
    hold = round(config.hold * steps)
    decay = max(1, steps - warmup - hold)
    return partial(
        tri_stage,
        warmup_steps=warmup,
        hold_steps=hold,
        decay_steps=decay,
        init_scale=config.init_scale,
        final_scale=config.final_scale,
    )


def _eden(config: ScheduleConfig, steps: int, warmup: int) -> Schedule:
    # The warm-up is short and from one half in the paper; `init_scale` is of tri_stage, whose steps are not relative.
    return partial(
        eden, step_scale=config.step_scale, epoch_scale=max(1.0, config.epoch_scale * steps), warmup_steps=warmup
    )


SCHEDULES: dict[str, Callable[[ScheduleConfig, int, int], Schedule]] = {
    "constant": lambda config, steps, warmup: partial(constant, warmup_steps=warmup),
    "eden": _eden,
    "noam": lambda config, steps, warmup: partial(noam, warmup_steps=warmup),
    "tri_stage": _tri_stage,
    "warmup_cosine": lambda config, steps, warmup: partial(
        warmup_cosine, total_steps=steps, warmup_steps=warmup, final_scale=config.final_scale
    ),
    "warmup_linear": lambda config, steps, warmup: partial(
        warmup_linear, total_steps=steps, warmup_steps=warmup, final_scale=config.final_scale
    ),
}
"""Name → builder from (config, all steps, steps of warm-up)."""


def build_schedule(config: ScheduleConfig, steps: int) -> Schedule:
    """The schedule of a training of `steps` steps.

    >>> build_schedule(ScheduleConfig(name="noam", warmup=0.1), steps=1000)(99)
    1.0
    """
    return SCHEDULES[config.name](config, steps, round(config.warmup * steps))
