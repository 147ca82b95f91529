"""Label checks: what passes, and what each refusal says and names."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Batch
from sonorant.objectives.labels import check_labels
from sonorant.objectives.masked_prediction import UnitHead
from sonorant.units.checks import VarietyLimits

HEAD = UnitHead(num_units=8)


def batches(**labels: Any) -> list[Batch]:
    made = [batch_of((f"a{i}", f"b{i}"), units={"units": (8, 20), "fast": (8, 10)}) for i in range(6)]
    return [replace(batch, labels={**batch.labels, **labels}) for batch in made]


def with_units(change: Any) -> list[Batch]:
    return [replace(b, labels={**b.labels, "units": change(b.labels["units"])}) for b in batches()]


def test_good_labels_pass_with_their_figures() -> None:
    reports = check_labels(TinyEncoder(), (HEAD, UnitHead(stream="fast", num_units=8, label_rate=100.0)), batches())
    report = reports["units"]
    counts = sum(torch.bincount(b.labels["units"][i, :n], minlength=8) for b in batches()
                 for i, n in enumerate(b.labels["units_lengths"].tolist()))  # fmt: skip
    assert report.counts.counts.tolist() == counts.tolist()
    shares = counts.double() / counts.sum()
    assert report.counts.entropy == pytest.approx(float(-(shares * shares.log2()).sum()))
    assert report.counts.perplexity == pytest.approx(2**report.counts.entropy)
    assert report.counts.usage == 1.0
    assert report.num_items == 12
    assert reports["fast"].num_frames > 1.9 * report.num_frames


def test_another_rate_is_told_with_the_item() -> None:
    head = UnitHead(stream="fast", num_units=8)
    message = (
        r"2 of 2 items have labels 'fast' of another length than their audio: 'a0' lasts 0\.\d+ s and has \d+ labels, "
    )
    with pytest.raises(DataError, match=message + r"(.|\n)*9\d\.\d a second(.|\n)*at 50 a second(.|\n)*label_rate"):
        check_labels(TinyEncoder(), (head,), batches())


def test_one_item_that_was_cut_is_named() -> None:
    found = batches()
    lengths = found[3].labels["units_lengths"].clone()
    lengths[1] -= 4
    found[3] = replace(found[3], labels={**found[3].labels, "units_lengths": lengths})
    with pytest.raises(DataError, match=r"1 of 2 items(.|\n)*'b3' lasts"):
        check_labels(TinyEncoder(), (HEAD,), found)
    check_labels(TinyEncoder(), (HEAD,), found, max_mismatch=6)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda units: torch.zeros_like(units), r"unit 0 stands for 100.0% of \d+ frames"),
        (lambda units: units.clamp(max=1), r"25% of 8 units occur in \d+ frames"),
        (lambda units: torch.full_like(units, -1), r"labels 'units' of 12 items: not one label"),
        (lambda units: units + 3, r"item '..' holds unit 10 in 'units', and its head knows units 0 to 7"),
    ],
)
def test_what_says_nothing_is_refused(change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_labels(TinyEncoder(), (HEAD,), with_units(change))


def test_low_entropy_is_refused() -> None:
    def mostly_one(units: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(units.shape[1]) % 5 > 0, 2, units)

    with pytest.raises(DataError, match=r"a perplexity of \d\.\d with 8 units, \d\.\d\d bits a frame"):
        check_labels(TinyEncoder(), (HEAD,), with_units(mostly_one), VarietyLimits(min_perplexity_share=0.5))


def test_too_few_frames_are_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    check_labels(TinyEncoder(), (UnitHead(num_units=500),), batches())
    assert "too few to judge 500 units by" in caplog.text
    with pytest.raises(ConfigError, match="max_share must lie in"):
        VarietyLimits(max_share=2)
