"""Some items of a batch as a batch, and back into it after they were changed, with every kind of label."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sonorant.audio.augment.items import with_duration
from sonorant.core.errors import DataError
from sonorant.core.types import Batch, Segment, Segments

__all__ = ["put_items", "take_items"]


def take_items(batch: Batch, index: Int[Tensor, " part"]) -> Batch:
    """The items `index` of a batch, with their labels, ids and seeds; not trimmed."""
    where = index.tolist()
    return replace(
        batch,
        waveform=batch.waveform[index.to(batch.waveform.device)],
        lengths=batch.lengths[index.to(batch.lengths.device)],
        labels={name: _taken(label, index, where) for name, label in batch.labels.items()},
        ids=tuple(batch.ids[item] for item in where) if batch.ids else (),
        seeds=None if batch.seeds is None else batch.seeds[index.to(batch.seeds.device)],
    )


def _taken(label: Any, index: Tensor, where: list[int]) -> Any:
    if isinstance(label, Tensor):
        return label[index.to(label.device)]
    if isinstance(label, Segments):
        return Segments(tuple(label[item] for item in where))
    if isinstance(label, list | tuple):
        return type(label)(label[item] for item in where)
    return label


def put_items(batch: Batch, index: Int[Tensor, " part"], part: Batch) -> Batch:
    """The batch with its items `index` replaced; the waveform is as long as its longest item where lengths changed.

    Raises:
        DataError: a tensor among the labels has changed its shape.
    """
    here = index.to(batch.lengths.device)
    lengths = batch.lengths.index_copy(0, here, part.lengths.to(batch.lengths))
    same = torch.equal(lengths, batch.lengths) and part.waveform.shape[-1] == batch.waveform.shape[-1]
    size = batch.waveform.shape[-1] if same else int(lengths.max())
    whole = with_duration(batch.waveform, size)
    waveform = whole.index_copy(0, index.to(whole.device), with_duration(part.waveform, size).to(whole))
    labels = {name: _put(name, batch, index.tolist(), label) for name, label in part.labels.items()}
    return replace(batch, waveform=waveform, lengths=lengths, labels={**batch.labels, **labels})


def _put(name: str, batch: Batch, where: list[int], new: Any) -> Any:
    old = batch.labels.get(name)
    if isinstance(new, Segments):
        stretches: list[tuple[Segment, ...]] = list(old) if isinstance(old, Segments) else [()] * len(batch)
        for item, segments in zip(where, new, strict=True):
            stretches[item] = segments
        return Segments(tuple(stretches))
    if isinstance(new, Tensor):
        if not isinstance(old, Tensor) or old.shape[1:] != new.shape[1:]:
            raise DataError(
                f"label '{name}' changed to shape {tuple(new.shape)} for some items of a batch; an augmentation "
                "inside OneOf, or inside a Chain with prob < 1, must keep the shapes of labels"
            )
        return old.index_copy(0, torch.tensor(where, device=old.device), new.to(old))
    if isinstance(new, list | tuple):
        items: list[Any] = list(old) if isinstance(old, list | tuple) else [None] * len(batch)
        for item, value in zip(where, new, strict=True):
            items[item] = value
        return type(new)(items)
    return new
