"""Plans: every item once, within the budget, little padding, the same everywhere; schedules: equal, disjoint, resumable."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.core.errors import ConfigError, DataError
from sonorant.data.planning import Budget, deal, padding_share, plan_batches, plan_in_order
from sonorant.data.sampling import Packing, PlannedSampler, Schedule
from sonorant.data.shards import CutTable, mixture, random_order


def durations_like_speech(count: int, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).lognormal(1.6, 0.7, count), 0.5, 30.0)


def table(count: int, seed: int = 0, prefix: str = "i") -> CutTable:
    seconds = durations_like_speech(count, seed).tolist()
    return CutTable([SimpleNamespace(id=f"{prefix}{i}", duration=d) for i, d in enumerate(seconds)])


def schedules(source: object, world_size: int = 1, train: bool = True, **packing: object) -> list[Schedule]:
    how = Packing(**{"budget": Budget(max_seconds=60.0), **packing})  # type: ignore[arg-type]
    return [Schedule(source, how, seed=3, train=train, rank=r, world_size=world_size) for r in range(world_size)]  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    durations=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=200),
    max_items=st.none() | st.integers(1, 9),
    num_buckets=st.integers(1, 12),
    ranks=st.integers(1, 4),
    phase=st.integers(0, 3),
    worst_first=st.booleans(),
)
def test_plan_holds_each_item_once_and_keeps_the_budget(
    durations: list[float], max_items: int | None, num_buckets: int, ranks: int, phase: int, worst_first: bool
) -> None:
    seconds = np.array(durations)
    tokens = (seconds * 7).astype(int)
    budget = Budget(max_seconds=20.0, max_items=max_items, max_tokens=200)
    load = budget.load(seconds, tokens)
    plan = plan_batches(seconds, load, num_buckets=num_buckets, seed=5)
    plan = deal(plan, seconds, ranks=ranks, phase=phase % ranks, seed=5, worst_first=worst_first)
    assert sorted(plan.order.tolist()) == list(range(len(durations)))
    for k in range(len(plan)):
        items = plan[k]
        assert len(items) * seconds[items].max() <= 20.0 * (1 + 1e-6)
        assert len(items) * tokens[items].max() <= 200
        assert max_items is None or len(items) <= max_items


def test_plan_is_a_function_of_its_seed_alone() -> None:
    seconds = durations_like_speech(500)
    load = Budget(max_seconds=60.0).load(seconds)
    first, same, other = (plan_batches(seconds, load, num_buckets=10, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.order, same.order)
    assert {frozenset(first[k].tolist()) for k in range(len(first))} != {
        frozenset(other[k].tolist()) for k in range(len(other))
    }


def test_random_order_is_fixed_for_all_time() -> None:
    # A checkpoint of today must find its place with the numpy and torch of years to come.
    assert random_order(8, 42).tolist() == [2, 4, 0, 7, 1, 6, 3, 5]


@pytest.mark.parametrize("count, most", [(1000, 0.12), (20_000, 0.02)])
def test_padding_is_a_fraction_of_that_of_random_batches(count: int, most: float) -> None:
    seconds = durations_like_speech(count)
    load = Budget(max_seconds=200.0).load(seconds)
    plan = plan_batches(seconds, load, num_buckets=30, seed=1)
    assert padding_share(plan, seconds) < most
    assert padding_share(plan_in_order(load, random_order(count, 1)), seconds) > 0.3


def test_batch_mates_change_between_epochs() -> None:
    seconds = durations_like_speech(2000)
    load = Budget(max_seconds=100.0).load(seconds)

    def pairs(seed: int) -> set[tuple[int, int]]:
        plan = plan_batches(seconds, load, num_buckets=30, seed=seed)
        return {pair for k in range(len(plan)) for pair in itertools.combinations(sorted(plan[k].tolist()), 2)}

    first, second = pairs(1), pairs(2)
    assert len(first & second) < 0.4 * len(first)


def test_equal_durations_are_mixed_over_the_whole_corpus() -> None:
    seconds = np.ones(400)
    plan = plan_batches(seconds, Budget(max_seconds=20.0).load(seconds), num_buckets=30, seed=1)
    assert all(len(plan[k]) == 20 for k in range(len(plan)))
    assert padding_share(plan, seconds) == 0
    assert np.std([plan[k].mean() for k in range(len(plan))]) < 60


def test_worst_batch_comes_first_and_only_in_the_first_epoch() -> None:
    source = table(800)
    schedule = schedules(source)[0]
    steps = list(itertools.islice(schedule.steps(schedule.start()), 2 * schedule.num_steps()))

    def seconds(step: object) -> list[float]:
        return [source.cut(ref).duration for ref in step.items()[0]]  # type: ignore[attr-defined]

    first = [step for step in steps if step.epoch == 0]
    areas = [len(seconds(s)) * max(seconds(s)) for s in first]
    longest = max(max(seconds(s)) for s in first)
    assert areas[0] == pytest.approx(max(areas))
    assert max(seconds(first[0]) + seconds(first[1])) == longest
    second = [len(seconds(s)) * max(seconds(s)) for s in steps if s.epoch == 1]
    assert second[0] != max(second) or max(seconds(steps[len(first) + 1])) != longest


def test_quadratic_seconds_make_batches_of_long_items_smaller() -> None:
    seconds = np.array([1.0] * 40 + [20.0] * 12)
    plain = plan_in_order(Budget(max_seconds=80.0).load(seconds))
    squared = plan_in_order(Budget(max_seconds=80.0, quadratic_seconds=20.0).load(seconds))
    assert plain[len(plain) - 1].size == 4
    assert squared[len(squared) - 1].size == 2


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_make_equal_steps_on_disjoint_items(world_size: int, drop_last: bool) -> None:
    source = table(700)
    ranks = [list(s.epoch_steps(s.start())) for s in schedules(source, world_size, drop_last=drop_last)]
    assert len({len(steps) for steps in ranks}) == 1
    seen = [ref for steps in ranks for step in steps for ref in step.items()[0]]
    if drop_last:
        assert len(seen) == len(set(seen))
        assert len(set(seen)) >= 700 - 60 * (world_size - 1)
    else:
        assert set(seen) == set(range(700))
    # All ranks work on similar durations at the same time.
    spread = [
        np.ptp([max(source.cut(ref).duration for ref in step.items()[0]) for step in together])
        for together in zip(*ranks)
    ]
    assert np.median(spread) < 1.5


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_hands_out_each_item_once_in_order(world_size: int) -> None:
    ranks = [list(s.steps(s.start())) for s in schedules(table(101), world_size, train=False)]
    batches = [step.items()[0] for together in itertools.zip_longest(*ranks) for step in together if step is not None]
    assert list(itertools.chain.from_iterable(batches)) == list(range(101))


def test_evaluation_by_duration_begins_with_the_longest() -> None:
    source = table(50)
    schedule = schedules(source, train=False, by_duration=True)[0]
    refs = [ref for step in schedule.steps(schedule.start()) for ref in step.items()[0]]
    seconds = [source.cut(ref).duration for ref in refs]
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("world_size, drop_last", [(1, False), (3, False), (4, True)])
def test_every_position_leads_to_the_same_steps(world_size: int, drop_last: bool) -> None:
    schedule = schedules(table(300), world_size, drop_last=drop_last)[-1]
    steps = list(itertools.islice(schedule.steps(schedule.start()), 60))
    assert steps[-1].epoch > 0
    for k, step in enumerate(steps[:-2]):
        again = schedules(table(300), world_size, drop_last=drop_last)[-1]
        after = next(again.steps(step.after))
        assert (after.items(), after.after) == (steps[k + 1].items(), steps[k + 1].after)


def test_positions_agree_between_ranks() -> None:
    ranks = schedules(table(300), 3)
    rows = zip(*(itertools.islice(s.steps(s.start()), 40) for s in ranks))
    assert all(len({repr(step.after) for step in row}) == 1 for row in rows)


def test_going_on_costs_the_same_everywhere_in_a_large_corpus() -> None:
    class Large:
        seconds = durations_like_speech(300_000)

        def cursor_of(self, epoch: int) -> int:
            return epoch

        def window(self, cursor: int, seed: int, shuffle: bool) -> object:
            from sonorant.data.shards import Window

            count = len(self.seconds)
            return Window(np.arange(count), self.seconds, np.full(count, cursor), True, cursor + 1)

        def cut(self, ref: int) -> object:
            return SimpleNamespace(id=str(ref), duration=float(self.seconds[ref]))

        def filled(self, cut: object, ref: int) -> object:
            return cut

        def fingerprint(self) -> str:
            return "large"

    from sonorant.data.sampling import Position

    times = []
    for offset in (0, 10_000):
        schedule = schedules(Large(), budget=Budget(max_seconds=150.0))[0]
        start = time.perf_counter()
        next(schedule.steps(Position(4, offset, epoch=4, step=9)))
        times.append(time.perf_counter() - start)
    # Far above what it takes (0.2 s), so that a busy machine does not fail it; replaying would take tens of seconds.
    assert max(times) < 3.0


def test_limits_are_counted_and_listed() -> None:
    cuts = [SimpleNamespace(id=f"{d}", duration=d) for d in (0.1, 1.0, 2.0, 9.0, 100.0)]
    schedule = schedules(CutTable(cuts), min_item_seconds=0.5, max_item_seconds=70.0)[0]
    schedule.num_steps()
    assert schedule.excluded.counts == {"too short": 1, "too long": 1}
    large = schedules(CutTable(cuts))[0]
    large.num_steps()
    assert large.excluded.listed == {"100.0": "over budget: 100.000 s"}
    # Evaluation leaves nothing out: what does not fit gets a batch of its own.
    whole = schedules(CutTable(cuts), train=False)[0]
    assert [len(step.items()[0]) for step in whole.steps(whole.start())] == [4, 1]


def test_no_item_within_the_limits_is_an_error_and_not_an_endless_loop() -> None:
    short = CutTable([SimpleNamespace(id=str(i), duration=1.0) for i in range(20)])
    with pytest.raises(DataError, match="20 items too short"):
        none = schedules(short, min_item_seconds=2.0)[0]
        next(none.steps(none.start()))
    with pytest.raises(DataError, match="corpus is empty"):
        empty = schedules(CutTable([]))[0]
        next(empty.steps(empty.start()))
    with pytest.raises(DataError, match="drop_last=False"):
        few = schedules(table(3), world_size=8, drop_last=True)[0]
        next(few.steps(few.start()))


def test_fewer_batches_than_ranks_are_repeated() -> None:
    ranks = [next(s.steps(s.start())).items()[0] for s in schedules(table(2), world_size=5)]
    assert set(itertools.chain.from_iterable(ranks)) == {0, 1}
    assert all(ranks)


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="max_items"):
        Budget(max_seconds=10.0, max_items=0)
    with pytest.raises(ConfigError, match="rank=2"):
        Schedule(table(2), Packing(budget=Budget(max_seconds=10.0)), rank=2, world_size=2)


# --- mixtures ---


def counted(mixed: object, steps: int) -> dict[str, float]:
    schedule = schedules(mixed)[0]
    seconds = {"a": 0.0, "b": 0.0}
    for step in itertools.islice(schedule.steps(schedule.start()), steps):
        for ref in step.items()[0]:
            cut = mixed.cut(ref)  # type: ignore[attr-defined]
            seconds[cut.id[0]] += cut.duration
    return {name: value / sum(seconds.values()) for name, value in seconds.items()}


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.8])
def test_mixture_keeps_its_shares_of_seconds(weight: float) -> None:
    mixed = mixture([(table(40, prefix="a"), weight), (table(2000, 1, prefix="b"), 1 - weight)], window_seconds=3600.0)
    assert counted(mixed, 2000)["a"] == pytest.approx(weight, abs=0.02)


def test_temperature_makes_shares_more_equal() -> None:
    small, large = table(100, prefix="a"), table(1000, 1, prefix="b")
    plain = mixture([(small, None), (large, None)])
    assert plain.shares[0] == pytest.approx(small.seconds / (small.seconds + large.seconds))
    flat = mixture([(small, None), (large, None)], temperature=5.0)
    assert plain.shares[0] < flat.shares[0] < 0.5
    assert counted(flat, 3000)["a"] == pytest.approx(flat.shares[0], abs=0.02)


def test_mixture_reads_a_corpus_whole_before_it_repeats_an_item() -> None:
    mixed = mixture([(table(50, prefix="a"), 0.5), (table(500, 1, prefix="b"), 0.5)])
    schedule = schedules(mixed)[0]
    seen: dict[tuple[str, int], int] = {}
    for step in itertools.islice(schedule.steps(schedule.start()), 200):
        for ref, done in zip(*step.items()):
            key = (mixed.cut(ref).id, done)
            seen[key] = seen.get(key, 0) + 1
    # Each item at most once in each pass of its corpus, so its random draws differ each time it is met.
    assert set(seen.values()) == {1}
    assert len([key for key in seen if key[0][0] == "a" and key[1] == 0]) == 50


def test_mixture_goes_on_exactly() -> None:
    def mixed() -> object:
        return mixture([(table(30, prefix="a"), 0.3), (table(300, 1, prefix="b"), 0.7)], window_seconds=600.0)

    schedule = schedules(mixed(), 2)[1]
    steps = list(itertools.islice(schedule.steps(schedule.start()), 40))
    for k in (0, 7, 20, 38):
        again = schedules(mixed(), 2)[1]
        assert next(again.steps(steps[k].after)).items() == steps[k + 1].items()


def test_mixture_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        mixture([(table(3), 0.0)])
    with pytest.raises(ConfigError, match="temperature"):
        mixture([(table(3), None)], temperature=0.0)
    with pytest.raises(ConfigError, match="at least one"):
        mixture([])
    with pytest.raises(DataError, match="empty"):
        mixed = mixture([(table(3), 1.0), (CutTable([]), 1.0)])
        mixed.window(mixed.cursor_of(0), 0, True)


# --- lhotse's protocol ---


def test_sampler_for_lhotse_yields_cut_sets_and_jumps() -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.testing.dummies import dummy_cut

    cuts = [dummy_cut(i, duration=1.0 + i % 5) for i in range(60)]
    sampler = PlannedSampler(schedules(CutTable(cuts))[0])
    epoch = list(sampler)
    assert all(isinstance(batch, lhotse.CutSet) for batch in epoch)
    assert sorted(cut.id for batch in epoch for cut in batch) == sorted(cut.id for cut in cuts)
    sampler.set_epoch(3)
    walk = iter(sampler)
    next(walk)
    state = sampler.state_dict()
    rest = [[cut.id for cut in batch] for batch in walk]
    again = PlannedSampler(schedules(CutTable(cuts))[0])
    again.load_state_dict(state)
    assert [[cut.id for cut in batch] for batch in again] == rest
    assert again.state_dict()["epoch"] == 4
