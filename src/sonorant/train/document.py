"""Plain trees ↔ JSON and tensors apart, so that training state is stored with nothing pickled.

Lists, tuples, dictionaries with any plain keys, numbers, strings, None, tensors and numpy arrays go in and come out the same.
Tensors are taken out of the tree and named by their place in it (`optimizer.state.layer.weight.exp_avg`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonorant.core.errors import CheckpointError

__all__ = ["join_document", "split_document"]

TENSOR, ARRAY, TUPLE, PAIRS = "$tensor", "$array", "$tuple", "$pairs"


def split_document(value: Any, name: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """A tree as JSON-ready values and the tensors that were in it.

    Args:
        value: the tree.
        name: what the tensors' names begin with.

    Raises:
        CheckpointError: something that is neither plain nor a tensor, with its place.

    >>> plain, tensors = split_document({"a": [1, torch.ones(2)]})
    >>> plain, list(tensors)
    ({'a': [1, {'$tensor': 'state.a.1'}]}, ['state.a.1'])
    """
    tensors: dict[str, Tensor] = {}
    return _split(value, name, tensors), tensors


def join_document(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `split_document` took apart."""
    if isinstance(value, list):
        return [join_document(item, tensors) for item in value]
    if not isinstance(value, Mapping):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if ARRAY in value:
        return tensors[value[ARRAY]].numpy()
    if TUPLE in value:
        return tuple(join_document(item, tensors) for item in value[TUPLE])
    if PAIRS in value:
        return {join_document(key, tensors): join_document(item, tensors) for key, item in value[PAIRS]}
    return {key: join_document(item, tensors) for key, item in value.items()}


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {ARRAY: name}
    if isinstance(value, list | tuple):
        items = [_split(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return _split_mapping(value, name, tensors)
    raise CheckpointError(
        f"'{name}' cannot be stored: a training state holds plain values and tensors, got {type(value).__name__}"
    )


def _split_mapping(value: Mapping[Any, Any], name: str, tensors: dict[str, Tensor]) -> Any:
    items = {key: _split(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if all(isinstance(key, str) and not key.startswith("$") for key in items):
        return items
    # JSON knows text as keys only; optimisers and samplers also count with numbers and tuples.
    return {PAIRS: [[_split(key, f"{name}.key", tensors), item] for key, item in items.items()]}
