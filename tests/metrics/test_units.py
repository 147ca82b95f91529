import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.metrics import check_metric

from sonorant.core.errors import DataError
from sonorant.metrics.units import (
    MEASURES,
    CodeCounts,
    UnitAgreement,
    bitrate,
    cluster_purity,
    entropy,
    mutual_information,
    nmi,
    phone_purity,
    pnmi,
)

DRAWS = np.random.default_rng(0)


def spoken(count: int, faults: float) -> list[tuple[np.ndarray, np.ndarray]]:
    items = []
    for _ in range(count):
        phones = DRAWS.integers(0, 5, 30 + int(DRAWS.integers(20)))
        units = np.where(DRAWS.random(len(phones)) < faults, DRAWS.integers(0, 5, len(phones)), phones)
        items.append((phones, units))
    return items


@pytest.mark.parametrize("measure", list(MEASURES))
def test_contract(measure: str) -> None:
    check_metric(lambda: UnitAgreement(measure), spoken(12, 0.5), perfect=spoken(4, 0.0), best=1.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=8, max_size=60))
def test_measures_are_their_definitions(pairs: list[tuple[int, int]]) -> None:
    phones, units = np.array(pairs).T
    table = np.zeros((4, 6), dtype=np.int64)
    np.add.at(table, (phones, units), 1)
    best = {u: np.bincount(phones[units == u]).argmax() for u in set(units.tolist())}
    assert float(phone_purity(table)) == pytest.approx(np.mean([best[u] == p for p, u in pairs]))
    assert float(cluster_purity(table)) == pytest.approx(float(phone_purity(table.T)))
    share = table / table.sum()
    independent = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    told = sum(p * np.log2(p / q) for p, q in zip(share.ravel(), independent.ravel()) if p > 0)
    assert float(mutual_information(table)) == pytest.approx(told, abs=1e-9)
    if len(set(phones.tolist())) > 1:
        assert float(pnmi(table)) == pytest.approx(told / float(entropy(table.sum(1))), abs=1e-9)


def test_normalised_information_is_scikit_learns() -> None:
    cluster = pytest.importorskip("sklearn.metrics.cluster")
    ((phones, units),) = spoken(1, 0.6)
    table = np.zeros((5, 5), dtype=np.int64)
    np.add.at(table, (phones, units), 1)
    assert float(nmi(table)) == pytest.approx(cluster.normalized_mutual_info_score(phones, units))
    assert float(mutual_information(table)) == pytest.approx(cluster.mutual_info_score(phones, units) / np.log(2))


def test_names_of_units_mean_nothing_and_units_that_know_nothing_score_nothing() -> None:
    plain, renamed, blind = UnitAgreement(), UnitAgreement(), UnitAgreement()
    for phones, units in spoken(10, 0.5):
        plain.update(phones, units)
        renamed.update([f"p{p}" for p in phones], [f"u{7 - u}" for u in units])
        blind.update(phones, np.zeros(len(phones), dtype=int))
    assert plain.score().value == pytest.approx(renamed.score().value)
    assert blind.score().value == 0.0
    assert set(plain.values()) == set(MEASURES)
    assert plain.values()["pnmi"] == plain.score().value


def test_an_interval_over_utterances_is_wider_than_its_frames_would_make_it() -> None:
    alike, mixed = UnitAgreement("phone_purity"), UnitAgreement("phone_purity")
    for index in range(40):
        phones = np.arange(50) % 5
        alike.update(phones, phones if index % 2 else phones * 0)
        mixed.update(phones, np.where(np.arange(50) // 5 % 2, phones, 0))
    widths = [score.high - score.low for score in (alike.score(), mixed.score())]  # type: ignore[operator]
    assert widths[0] > 5 * widths[1]


def test_refusals() -> None:
    metric = UnitAgreement()
    with pytest.raises(DataError, match="got 1 for 2 frames"):
        metric.update([1, 2], [1])
    metric.update([1, 1], [1, 2])
    with pytest.raises(DataError, match="same phone"):
        metric.score()


def test_codes_are_counted_as_a_stream() -> None:
    codes = DRAWS.integers(0, 100, 5000)
    whole, left, right = CodeCounts(128), CodeCounts(128), CodeCounts(128)
    whole.update(codes.reshape(50, 100))
    left.update(codes[:1000])
    right.update(codes[1000:])
    left.merge(right)
    assert left.perplexity == whole.perplexity == pytest.approx(np.exp(-sum(
        p * np.log(p) for p in np.bincount(codes) / len(codes) if p
    )))  # fmt: skip
    assert whole.usage == 100 / 128
    even = CodeCounts(8)
    assert (even.entropy, even.usage) == (0.0, 0.0)
    even.update(np.arange(8))
    assert even.perplexity == pytest.approx(8)
    with pytest.raises(DataError, match="0 … 7"):
        even.update([8])


def test_bitrate_adds_streams_and_rewards_merged_runs() -> None:
    assert bitrate([50, 25], [256, 16], seconds=1.0) == 50 * 8 + 25 * 4
    assert bitrate([30], [256], seconds=1.0) < bitrate([50], [256], seconds=1.0)
    with pytest.raises(DataError, match="above 0"):
        bitrate([1], [2], seconds=0.0)


def test_the_interval_lies_around_the_value_though_resamples_hold_less() -> None:
    metric = UnitAgreement("pnmi")
    for _ in range(30):
        metric.update(DRAWS.integers(0, 40, 60), DRAWS.integers(0, 50, 60))
    score = metric.score()
    assert score.low is not None
    assert score.high is not None
    assert score.value - score.low == pytest.approx(score.high - score.value, rel=0.7)
