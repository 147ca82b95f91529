"""Labels of a batch's items, put together by kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonorant.core.errors import DataError
from sonorant.core.lengths import pad
from sonorant.core.types import Segment, Segments

__all__ = ["collate_labels"]


def collate_labels(name: str, values: Sequence[Any], ids: Sequence[str]) -> dict[str, Any]:
    """One label of all items of a batch.

    Integers or floats become a tensor (batch); lists of integers, arrays and tensors are padded with zeros on axis 1 and
    their lengths stand beside them as `<name>_lengths`; `Segments` of one item, or non-empty lists of `Segment`, become
    `Segments`; anything else (text, speakers) stays a list.

    >>> sorted(collate_labels("tokens", [[1, 2], [3]], ["a", "b"])["tokens"].tolist())
    [[1, 2], [3, 0]]
    """
    kinds = {_kind(value) for value in values}
    if "empty" in kinds:
        # An empty list is one of whatever the others are.
        kinds = (kinds - {"empty"}) or {"array"}
    if len(kinds) > 1:
        rows = ", ".join(f"'{i}': {_kind(value)}" for i, value in list(zip(ids, values))[:4])
        raise DataError(f"label '{name}' must be of one kind in all items, got {rows}")
    kind = kinds.pop()
    if kind == "segments":
        return {name: Segments(tuple(_segments(value) for value in values))}
    if kind == "number":
        whole = all(isinstance(value, int | np.integer) for value in values)
        return {name: torch.tensor(values, dtype=torch.int64 if whole else torch.float32)}
    if kind == "array":
        padded, lengths = pad(_same_type([torch.as_tensor(value) for value in values]))
        return {name: padded, f"{name}_lengths": lengths}
    return {name: list(values)}


def _kind(value: Any) -> str:
    if isinstance(value, Segments) or (isinstance(value, list | tuple) and value and isinstance(value[0], Segment)):
        return "segments"
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return "number"
    if isinstance(value, list | tuple) and not value:
        return "empty"
    if isinstance(value, Tensor | np.ndarray):
        return "array"
    if isinstance(value, list | tuple) and isinstance(value[0], int | float | np.number):
        return "array"
    return "other"


def _segments(value: Any) -> tuple[Segment, ...]:
    return value[0] if isinstance(value, Segments) else tuple(value)


def _same_type(items: list[Tensor]) -> list[Tensor]:
    """Whole numbers as int64 and others as float32; an empty list has the others' shape behind axis 0."""
    filled = [item for item in items if item.numel()]
    dtype = torch.float32 if any(item.is_floating_point() for item in filled) else torch.int64
    rest = filled[0].shape[1:] if filled else ()
    return [item.to(dtype) if item.numel() else torch.zeros(0, *rest, dtype=dtype) for item in items]
