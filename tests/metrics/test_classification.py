import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from tests.contracts.metrics import check_metric

from sonorant.core.errors import DataError
from sonorant.metrics.classification import F1, Accuracy, confusion_matrix

PAIRS = [("a", "a"), ("a", "b"), ("b", "b"), ("c", "a"), ("c", "c"), ("b", "c")]
PERFECT = [("a", "a"), ("b", "b"), ("b", "b")]


@pytest.mark.parametrize(
    "make",
    [Accuracy, F1, lambda: F1(average="micro"), lambda: F1(average="positive", positive="b")],
    ids=["accuracy", "macro", "micro", "positive"],
)
def test_contract(make: object) -> None:
    check_metric(make, PAIRS, perfect=PERFECT, best=1.0)


LABELS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(LABELS)
def test_scores_equal_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    given_, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    accuracy = Accuracy(num_resamples=1)
    accuracy.update(given_, predicted)
    assert accuracy.score().value == pytest.approx(reference.accuracy_score(given_, predicted))
    for average in ("macro", "micro"):
        f1 = F1(average=average, num_resamples=1)
        f1.update(np.array(given_), np.array(predicted))
        theirs = reference.f1_score(given_, predicted, average=average, zero_division=0)
        assert f1.score().value == pytest.approx(theirs)
    labels = sorted({*given_, *predicted})
    theirs = reference.confusion_matrix(given_, predicted, labels=labels) if len(labels) > 1 else [[len(pairs)]]
    assert np.array_equal(confusion_matrix(given_, predicted, labels), theirs)


def test_unequal_numbers_and_unknown_labels_are_refused() -> None:
    with pytest.raises(DataError, match="got 1 for 2"):
        Accuracy().update(["a", "b"], ["a"])
    with pytest.raises(DataError, match="x"):
        confusion_matrix(["a"], ["x"], ["a"])
