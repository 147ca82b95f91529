"""Any plain tree comes back the same from JSON and tensors."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sonorant.core.errors import CheckpointError
from sonorant.train.document import join_document, split_document

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@given(trees)
def test_round_trip(tree: Any) -> None:
    plain, tensors = split_document(tree)
    assert join_document(json.loads(json.dumps(plain)), tensors) == tree
    assert not tensors


def test_tensors_and_arrays() -> None:
    tree = {"a": [torch.arange(3), (np.arange(4, dtype=np.int64),)], 7: {"b": torch.tensor(2.0)}, "n": np.float64(1.5)}
    plain, tensors = split_document(tree, "x")
    assert sorted(tensors) == ["x.7.b", "x.a.0", "x.a.1.0"]
    back = join_document(json.loads(json.dumps(plain)), tensors)
    assert torch.equal(back["a"][0], torch.arange(3))
    assert np.array_equal(back["a"][1][0], np.arange(4))
    assert (float(back[7]["b"]), back["n"]) == (2.0, 1.5)


def test_what_is_not_plain_is_named() -> None:
    with pytest.raises(CheckpointError, match="'state.a.1' cannot be stored: .* got object"):
        split_document({"a": [1, object()]})
