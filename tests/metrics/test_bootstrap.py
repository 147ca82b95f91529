import numpy as np
import pytest
from scipy import stats

from sonorant.core.errors import DataError
from sonorant.metrics.bootstrap import (
    approximate_randomisation,
    bootstrap_interval,
    bootstrap_statistic,
    paired_bootstrap,
)
from sonorant.metrics.matched_pairs import error_segments, mapsswe


def _utterances(generator: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors and lengths; the rate varies from utterance to utterance, as recognisers' do."""
    lengths = generator.integers(4, 20, count)
    return generator.binomial(lengths, generator.beta(2, 2 / rate - 2, count)), lengths


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100(method: str) -> None:
    generator = np.random.default_rng(7)
    inside = 0
    for trial in range(400):
        errors, lengths = _utterances(generator, 80, rate=0.2)
        low, high = bootstrap_interval(errors, lengths, num_resamples=400, method=method, seed=trial)
        inside += low <= 0.2 <= high
    # binomial spread of 400 trials at 0.95 is 0.011; the bootstrap of 80 items is known to be slightly narrow
    assert 0.90 <= inside / 400 <= 0.985


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_equal_scipys(method: str) -> None:
    errors, lengths = _utterances(np.random.default_rng(1), 120, rate=0.1)
    ours = bootstrap_interval(errors, lengths, num_resamples=20_000, method=method)
    theirs = stats.bootstrap(
        (errors, lengths),
        lambda e, n, axis: e.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=1_000,
        method="BCa" if method == "bca" else "percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.0015)


def test_intervals_are_repeatable_and_narrow_with_more_items() -> None:
    errors, lengths = _utterances(np.random.default_rng(3), 2_000, rate=0.15)
    small = bootstrap_interval(errors[:100], lengths[:100], seed=5)
    assert small == bootstrap_interval(errors[:100], lengths[:100], seed=5)
    assert small != bootstrap_interval(errors[:100], lengths[:100], seed=6)
    large = bootstrap_interval(errors, lengths, seed=5)
    assert (large.high - large.low) == pytest.approx((small.high - small.low) / 20**0.5, rel=0.35)
    wide = bootstrap_interval(errors, lengths, level=0.99)
    assert wide.low < large.low < large.high < wide.high


def test_edges() -> None:
    assert bootstrap_interval([1], [4]) == (0.25, 0.25)
    assert bootstrap_interval([0, 0, 0], [5, 5, 5], method="bca") == (0, 0)
    low, high = bootstrap_interval([1, 0, 1], [0, 0, 5])  # resamples without any reference are left out
    assert low <= 0.4 <= high < np.inf
    with pytest.raises(DataError, match="at least one item"):
        bootstrap_interval([], [])
    with pytest.raises(ValueError, match="2 names for 3"):
        bootstrap_interval([1, 1, 1], [2, 2, 2], groups=["a", "b"])


def test_any_function_of_sums_can_be_bootstrapped_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from sonorant.metrics import bootstrap

    rows = np.random.default_rng(0).integers(0, 9, (50, 3))
    whole = bootstrap_statistic(rows, lambda sums: sums[..., 0] * sums[..., 2] / sums[..., 1], num_resamples=300)
    monkeypatch.setattr(bootstrap, "_BLOCK", 50 * 7)
    in_blocks = bootstrap_statistic(rows, lambda sums: sums[..., 0] * sums[..., 2] / sums[..., 1], num_resamples=300)
    assert in_blocks == pytest.approx(whole, rel=0.1)


def _two_systems(generator: np.random.Generator, better: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of two systems that find the same utterances hard."""
    lengths = generator.integers(5, 15, 100)
    hard = generator.beta(1, 5, 100)
    return generator.binomial(lengths, hard * better), generator.binomial(lengths, hard), lengths


def test_equal_systems_are_called_different_about_5_times_in_100() -> None:
    generator = np.random.default_rng(11)
    found = np.zeros(2)
    for trial in range(300):
        a, b, lengths = _two_systems(generator, better=1.0)
        found[0] += paired_bootstrap(a, b, lengths, num_resamples=400, seed=trial).p_value < 0.05
        found[1] += approximate_randomisation(a, b, num_resamples=400, seed=trial) < 0.05
    assert np.all(found / 300 >= 0.02)
    assert np.all(found / 300 <= 0.09), found / 300


def test_a_better_system_is_found() -> None:
    generator = np.random.default_rng(12)
    found = np.zeros(2)
    for trial in range(60):
        a, b, lengths = _two_systems(generator, better=0.6)
        comparison = paired_bootstrap(a, b, lengths, num_resamples=400, seed=trial)
        assert comparison.low <= comparison.difference <= comparison.high
        found[0] += comparison.p_value < 0.05 and comparison.improved > 0.95
        found[1] += approximate_randomisation(a, b, num_resamples=400, seed=trial) < 0.05
    assert np.all(found >= 0.85 * 60)


def test_swapping_the_systems_mirrors_the_comparison() -> None:
    a, b, lengths = _two_systems(np.random.default_rng(13), better=0.7)
    one, other = paired_bootstrap(a, b, lengths, seed=1), paired_bootstrap(b, a, lengths, seed=1)
    assert one.difference == -other.difference
    assert one.improved == pytest.approx(1 - other.improved, abs=0.02)
    assert approximate_randomisation(a, b) == approximate_randomisation(b, a)
    same = paired_bootstrap(a, a, lengths)
    assert (same.difference, same.p_value, same.improved) == (0, 1, 0.5)
    with pytest.raises(ValueError, match="same utterances"):
        paired_bootstrap(a, b[:-1], lengths)
    with pytest.raises(ValueError, match="same utterances"):
        approximate_randomisation(a, b[:-1])


def test_the_randomisation_test_is_the_exact_one() -> None:
    # six utterances, A better by one error on each: 2 of 64 swaps are as extreme
    assert approximate_randomisation([0] * 6, [1] * 6, num_resamples=40_000) == pytest.approx(2 / 64, abs=0.004)


def _corrupt(generator: np.random.Generator, words: list[str], rate: float) -> list[str]:
    result: list[str] = []
    for word in words:
        draw = generator.random()
        result += (
            [word] if draw > rate else [] if draw < rate / 3 else ["wrong"] if draw < 2 * rate / 3 else [word, "um"]
        )
    return result


def test_segments_hold_all_errors_and_are_parted_by_right_words() -> None:
    def segments(a: str, b: str) -> list[tuple[int, int]]:
        return error_segments("abcdefgh", a, b)

    assert segments("abxdefgh", "abcdefgh") == [(1, 0)]
    # c wrong in A, d right in both, e wrong in B: one right word does not part them, two do
    assert segments("abxdefgh", "abcdxfgh") == [(1, 1)]
    assert segments("abxdefgh", "abcdexgh") == [(1, 0), (0, 1)]
    assert segments("abcdefgh", "abcdefgh") == []
    assert error_segments([], ["x"], []) == [(1, 0)]
    # an insertion between two right words starts a segment of its own
    assert segments("ab?cdefxh", "abcdefgh") == [(1, 0), (1, 0)]


def test_segments_lose_no_error() -> None:
    from sonorant.metrics.edit import edit_counts

    generator = np.random.default_rng(0)
    for _ in range(100):
        reference = [str(generator.integers(50)) for _ in range(20)]
        a, b = _corrupt(generator, reference, 0.3), _corrupt(generator, reference, 0.2)
        segments = error_segments(reference, a, b)
        assert sum(left for left, _ in segments) == edit_counts(reference, a).edits
        assert sum(right for _, right in segments) == edit_counts(reference, b).edits
        assert all(left + right > 0 for left, right in segments)


def _triples(generator: np.random.Generator, rate_a: float, rate_b: float) -> list:
    references = [[f"w{index}-{word}" for word in range(10)] for index in range(60)]
    return [(words, _corrupt(generator, words, rate_a), _corrupt(generator, words, rate_b)) for words in references]


def test_mapsswe_false_alarms_and_power() -> None:
    generator = np.random.default_rng(5)
    alarms = sum(mapsswe(_triples(generator, 0.15, 0.15)).p_value < 0.05 for _ in range(160))
    assert 0.01 <= alarms / 160 <= 0.1
    results = [mapsswe(_triples(generator, 0.08, 0.2)) for _ in range(20)]
    assert sum(result.p_value < 0.05 and result.difference < 0 for result in results) >= 18


def test_mapsswe_edges() -> None:
    same = mapsswe([(["a", "b"], ["a", "x"], ["a", "x"])])
    assert (same.p_value, same.difference, same.num_segments) == (1, 0, 1)
    with pytest.raises(DataError, match="utterances"):
        mapsswe([])
