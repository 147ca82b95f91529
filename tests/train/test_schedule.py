"""Schedules: their peaks, ends and monotone stretches; every named one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonorant.core.errors import ConfigError
from sonorant.train.schedule import SCHEDULES, ScheduleConfig, build_schedule, eden, noam, tri_stage, warmup_cosine

NAMES = sorted(SCHEDULES)


@given(name=st.sampled_from(NAMES), steps=st.integers(1, 5000), warmup=st.floats(0, 1))
def test_within_bounds_and_peak_at_the_end_of_warmup(name: str, steps: int, warmup: float) -> None:
    config = ScheduleConfig(name=name, warmup=warmup, hold=0.0, final_scale=0.01)
    schedule = build_schedule(config, steps)
    values = [schedule(step) for step in range(0, steps, max(1, steps // 50))]
    assert all(0 <= value <= 1 and math.isfinite(value) for value in values)
    peak = round(warmup * steps)
    if 0 < peak < steps:
        # tri_stage warms up from init_scale and is at its peak one step later.
        assert max(schedule(peak - 1), schedule(peak)) == pytest.approx(1.0, abs=2 / max(1, steps - peak) ** 0.5)
        rising = [schedule(step) for step in range(peak)]
        assert rising == sorted(rising)
    falling = [schedule(step) for step in range(peak, steps)]
    assert falling == sorted(falling, reverse=True)


def test_ends() -> None:
    for name in ("warmup_cosine", "warmup_linear", "tri_stage"):
        schedule = build_schedule(ScheduleConfig(name=name, hold=0.1, final_scale=0.05), 1000)
        assert schedule(999) == pytest.approx(0.05, rel=0.02)


def test_the_paper_s_noam() -> None:
    # Equation 3 of arXiv:1706.03762 with dim 512 and 4000 steps, over its own value at the peak.
    def paper(step: int) -> float:
        return 512**-0.5 * min(step**-0.5, step * 4000**-1.5)

    for step in (1, 100, 4000, 100_000):
        assert noam(step - 1, warmup_steps=4000) == pytest.approx(paper(step) / paper(4000))


def test_tri_stage_holds_and_decays_exponentially() -> None:
    stages = {"warmup_steps": 100, "hold_steps": 200, "decay_steps": 700, "final_scale": 0.01}
    assert tri_stage(250, **stages) == 1.0
    ratios = [tri_stage(s + 1, **stages) / tri_stage(s, **stages) for s in range(400, 900, 100)]
    assert ratios == pytest.approx([0.01 ** (1 / 700)] * 5)


def test_cosine_is_half_way_at_half_time() -> None:
    assert warmup_cosine(499, total_steps=1000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "warmup_cosin"}, "did you mean 'warmup_cosine'"),
        ({"warmup": 1.2}, "warmup must lie in"),
        ({"warmup": 0.5, "hold": 0.6}, "hold must lie in"),
        ({"name": "tri_stage", "final_scale": 0.0}, "final_scale must be at least"),
    ],
)
def test_nonsense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**options)


def test_the_paper_s_eden() -> None:
    """Equation 9 of arXiv:2310.11230 with 7500 steps and 3.5 epochs of 1000 steps, but for where counting starts."""

    def paper(step: int) -> float:
        epoch = step / 1000
        return ((step**2 + 7500**2) / 7500**2) ** -0.25 * ((epoch**2 + 3.5**2) / 3.5**2) ** -0.25

    for step in (1, 500, 3500, 30_000):
        assert eden(step - 1, step_scale=7500, epoch_scale=3500) == pytest.approx(paper(step))
    warmed = [eden(step, step_scale=7500, epoch_scale=3500, warmup_steps=500) for step in (0, 499, 500)]
    assert warmed == pytest.approx([0.5, 1.0, paper(1)])
