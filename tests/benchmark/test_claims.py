from pathlib import Path

import pytest

from sonorant.benchmark.claims import Claim, judge, load_result, save_result
from sonorant.core.errors import ConfigError
from sonorant.core.types import Score


def runs(*rows: dict[str, float]) -> list[dict[str, Score]]:
    return [{name: Score(name, value, "lower") for name, value in row.items()} for row in rows]


BETTER = runs({"a/wer": 0.2, "b/wer": 0.30}, {"a/wer": 0.25, "b/wer": 0.36}, {"a/wer": 0.4, "b/wer": 0.5})
NOISE = runs({"a/wer": 0.2, "b/wer": 0.3}, {"a/wer": 0.3, "b/wer": 0.2}, {"a/wer": 0.25, "b/wer": 0.26})


def test_a_steady_difference_holds_though_the_arms_overlap() -> None:
    verdict = judge(Claim("wer", "a", below="b"), BETTER)
    assert verdict.outcome == "holds"
    assert verdict.difference == pytest.approx(-0.31 / 3)
    assert verdict.low < verdict.difference < verdict.high < 0


def test_noise_does_not_hold_and_neither_does_the_wrong_way() -> None:
    assert judge(Claim("wer", "a", below="b"), NOISE).outcome == "does not hold"
    assert judge(Claim("wer", "a", above="b"), BETTER).outcome == "does not hold"


def test_a_control_holds_when_the_comparison_fails() -> None:
    assert judge(Claim("wer", "a", below="b", must_fail=True), NOISE).outcome == "holds"
    assert judge(Claim("wer", "a", below="b", must_fail=True), BETTER).outcome == "does not hold"


@pytest.mark.parametrize("must_fail", [False, True])
def test_what_is_not_finite_shows_nothing(must_fail: bool) -> None:
    for value in (float("inf"), float("nan")):
        broken = runs({"a/wer": 0.2, "b/wer": value}, {"a/wer": value, "b/wer": 0.4})
        assert judge(Claim("wer", "a", below="b", must_fail=must_fail), broken).outcome == "does not hold"


def test_a_number_can_be_the_other_side() -> None:
    assert judge(Claim("wer", "a", below=0.9), BETTER).outcome == "holds"
    assert judge(Claim("wer", "a", below=0.3), BETTER).outcome == "does not hold"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown score 'c/wer'"):
        judge(Claim("wer", "c", below="b"), BETTER)
    with pytest.raises(ConfigError, match="at least 2 seeds"):
        judge(Claim("wer", "a", below="b"), BETTER[:1])
    with pytest.raises(ConfigError, match="either below or above"):
        Claim("wer", "a")


def test_results_are_stored_with_their_provenance(tmp_path: Path) -> None:
    claim = Claim("wer", "a", below="b")
    save_result(
        tmp_path / "r.json", recipe="r", preset="toy", command="sonorant prove r", config={"x": 1}, runs=BETTER,
        verdicts=[judge(claim, BETTER)], seconds=1.0, machine="m",
    )  # fmt: skip
    found = load_result(tmp_path / "r.json")
    assert found is not None
    assert (found["verdicts"][0]["outcome"], len(found["runs"]), found["config"]) == ("holds", 3, {"x": 1})
    assert found["commit"]
    assert load_result(tmp_path / "absent.json") is None
    (tmp_path / "other.json").write_text("[1]")
    assert load_result(tmp_path / "other.json") is None
