"""Foreign weights ↔ ours by one table that is read in both directions.

A row says `(their name, our name)`; `{}` is one part of a dotted name, the same on both sides. What differs beside names
stands in the row too: `#i` behind our name is the i-th part of a matrix that is one here and several there (queries, keys and
values), and a third entry, a `Change`, turns a tensor's shape. Keys that have no place here are listed with the reason; a key
that no row knows is an error. The tables are in `encoders/keys/`, one file a family; `Foreign` is what each of them offers.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from sonorant.core.errors import CheckpointError, ConfigError

__all__ = [
    "Change",
    "Converted",
    "Foreign",
    "KeyTable",
    "Row",
    "Weights",
    "check_fixed",
    "columns_turned",
    "under_prefix",
]

Weights = dict[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class Change:
    """How a tensor's shape or order differs beside its name."""

    ours: Callable[[Tensor], Tensor]
    """Theirs → ours."""
    theirs: Callable[[Tensor], Tensor]
    """Ours → theirs; undoes it exactly."""


Row = tuple[str, str] | tuple[str, str, Change]


@dataclass(frozen=True)
class Converted:
    """What came out of a foreign checkpoint."""

    weights: Weights
    """Under our names."""
    kept: Weights = field(default_factory=dict)
    """What is no part of an encoder but of use to others, such as the vector that stands for masked frames: `mask`."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason → their keys."""


@dataclass(frozen=True)
class KeyTable:
    """Rows of names.

    >>> table = KeyTable([("layers.{}.q.{}", "blocks.{}.joined.{}#0"), ("layers.{}.k.{}", "blocks.{}.joined.{}#1")])
    >>> theirs = {"layers.0.q.weight": torch.ones(2, 2), "layers.0.k.weight": torch.zeros(2, 2)}
    >>> ours = table.to_ours(theirs, "their.pt").weights
    >>> ours["blocks.0.joined.weight"].shape, sorted(table.to_theirs(ours)) == sorted(theirs)
    (torch.Size([4, 2]), True)
    """

    rows: Sequence[Row]
    """(theirs, ours) or (theirs, ours, change). Of two rows for one of our names the first is the one that is written; others
    are further names that are read, such as those of an older version."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Their key, `*` for any rest → why it has no place here."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Their key → name in `Converted.kept`."""
    absent: Sequence[str] = ()
    """Parts `…#i` that they lack and that change nothing: zeros on the way in, left out on the way back. (A bias of all keys
    moves a query's scores alike, which the softmax does not see.)"""

    def to_ours(self, weights: Mapping[str, Shaped[Tensor, "..."]], where: str = "the checkpoint") -> Converted:
        """Their weights under our names and in our shapes.

        Raises:
            CheckpointError: keys that no row knows, two keys for one of ours, a part without its companions, or a tensor of
                a shape that cannot be changed into ours.
        """
        parts: Weights = {}
        result = Converted({})
        left_over = []
        for name, tensor in weights.items():
            if (found := self._row(name)) is not None:
                ours, row = found
                if ours in parts:
                    raise CheckpointError(f"{where}: two keys stand for '{ours}', one of them is '{name}'")
                parts[ours] = _changed(row[2], tensor, f"{where}: '{name}'") if len(row) == 3 else tensor
            elif (kept := _first(self.kept, name)) is not None:
                result.kept[self.kept[kept]] = tensor
            elif (reason := _first(self.dropped, name)) is not None:
                result.dropped.setdefault(self.dropped[reason], []).append(name)
            else:
                left_over.append(name)
        if left_over:
            raise CheckpointError(f"{where}: no rule for {len(left_over)} keys, such as {', '.join(left_over[:5])}")
        result.weights.update(self._joined(parts, where))
        return result

    def to_theirs(self, weights: Mapping[str, Shaped[Tensor, "..."]], kept: Mapping[str, Tensor] = {}) -> Weights:
        """Our weights under their names and in their shapes; inverts `to_ours`.

        Args:
            weights: a state dict of ours.
            kept: what `Converted.kept` held.

        Raises:
            CheckpointError: a name that no row knows.
        """
        result: Weights = {}
        left_over = []
        for name, tensor in weights.items():
            rows = self._rows_for(name)
            if not rows:
                left_over.append(name)
                continue
            # Copies: parts of one matrix would share its memory, which files of weights refuse.
            pieces = tensor.chunk(len(rows)) if len(rows) > 1 else [tensor]
            for (index, row), piece in zip(sorted(rows.items()), pieces, strict=True):
                if not any(_match(pattern, f"{name}#{index}") for pattern in self.absent):
                    changed = row[2].theirs(piece) if len(row) == 3 else piece
                    result[_filled(row[1].partition("#")[0], row[0], name)] = changed.clone().contiguous()
        if left_over:
            raise CheckpointError(f"{len(left_over)} of our weights have no name there, such as {left_over[0]}")
        names = {own: theirs for theirs, own in self.kept.items()}
        return result | {names[name]: tensor for name, tensor in kept.items() if name in names}

    def _row(self, name: str) -> tuple[str, Row] | None:
        for row in self.rows:
            if _match(row[0], name):
                return _filled(row[0], row[1], name), row
        return None

    def _rows_for(self, ours: str) -> dict[int, Row]:
        """Part → the first row for it."""
        rows: dict[int, Row] = {}
        for row in self.rows:
            base, _, index = row[1].partition("#")
            if _match(base, ours):
                rows.setdefault(int(index or 0), row)
                if not index:
                    break
        return rows

    def _joined(self, parts: Weights, where: str) -> Weights:
        result: Weights = {}
        for name, tensor in parts.items():
            base, _, index = name.partition("#")
            if not index:
                result[name] = tensor
            elif base not in result:
                found = [self._part(f"{base}#{i}", parts, tensor) for i in sorted(self._rows_for(base))]
                missing = [i for i, part in enumerate(found) if part is None]
                if missing:
                    raise CheckpointError(
                        f"{where}: '{base}' needs queries, keys and values ({len(found)} parts), and part {missing[0]} is "
                        "missing"
                    )
                if len({part.shape[1:] for part in found if part is not None}) > 1:
                    sizes = ", ".join(str(tuple(part.shape)) for part in found if part is not None)
                    raise CheckpointError(f"{where}: the parts of '{base}' must be equally wide, got {sizes}")
                result[base] = torch.cat(found)  # type: ignore[arg-type]
        return result

    def _part(self, name: str, parts: Weights, like: Tensor) -> Tensor | None:
        if name not in parts and any(_match(pattern, name) for pattern in self.absent):
            return torch.zeros_like(like)
        return parts.get(name)


@dataclass(frozen=True)
class Foreign:
    """A kind of model elsewhere ↔ a family here."""

    name: str
    """transformers' `model_type`."""
    prefixes: tuple[str, ...]
    """Of the encoder's names in models with something on top; the first that is there counts."""
    read: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    """Their `config.json` and `preprocessor_config.json` → our configuration; raises `ConfigError` for a variant we lack."""
    write: Callable[[Any], dict[str, Any]]
    """Our configuration → what theirs says about the architecture; raises `ConfigError` where they lack it."""
    features: Callable[[Any], dict[str, Any]]
    """Our configuration → their `preprocessor_config.json`."""
    table: Callable[[Any], KeyTable]
    """Our configuration → rows."""
    config: type
    """Of our configuration."""
    architecture: str
    """Their class of the bare encoder."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """What may stand on top of it, as patterns of keys → why it is no part of an encoder."""
    ctc: str = ""
    """Their class with a CTC head; empty where there is none."""
    front: Callable[[Any, Mapping[str, Any]], Any] = lambda config, features: None
    """Our configuration of an encoder of features, and their `preprocessor_config.json` → the `FrontConfig` of the features
    that it was trained on."""
    head: str = "lm_head"
    """Name of that head."""
    spare: Callable[[Any], Weights] = lambda config: {"mask": torch.zeros(config.dim)}
    """Our configuration → what is written for `KeyTable.kept` where there is nothing better."""
    check: Callable[[Converted, str], Any] = lambda converted, where: None
    """Looks at what is kept; raises `CheckpointError` where it is not as it must be."""


# --- for tables -------------------------------------------------------------------------------------------------------


def check_fixed(values: Mapping[str, Any], fixed: Mapping[str, Any], what: str) -> None:
    """Refuses a foreign configuration that asks for what we lack.

    Args:
        values: theirs.
        fixed: field → the one value that we have; a field that is not there has it.
        what: kind of model, for the message.

    Raises:
        ConfigError: naming field, value, and what is known.
    """
    for name, ours in fixed.items():
        if values.get(name, ours) != ours:
            raise ConfigError(f"a {what} encoder with {name}={values[name]!r} is not known here, only {ours!r}")


def columns_turned(rows: int) -> Change:
    """Columns that count (row, column) of a table with so many rows there, and by column first here."""

    def turned(matrix: Tensor, rows: int) -> Tensor:
        return matrix.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1)

    return Change(lambda matrix: turned(matrix, rows), lambda matrix: turned(matrix, matrix.shape[1] // rows))


def under_prefix(weights: Mapping[str, Tensor], *prefixes: str) -> tuple[Weights, Weights]:
    """Weights below the first prefix that is there, with it taken off, and all others; without any, all are inside."""
    for prefix in prefixes:
        start = f"{prefix}."
        inside = {name.removeprefix(start): tensor for name, tensor in weights.items() if name.startswith(start)}
        if inside:
            return inside, {name: tensor for name, tensor in weights.items() if not name.startswith(start)}
    return dict(weights), {}


def _changed(change: Change, tensor: Tensor, what: str) -> Tensor:
    try:
        return change.ours(tensor)
    except (IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{what} has the size {tuple(tensor.shape)}, which is not what its place takes ({error}); do weights and "
            "configuration belong together?"
        ) from None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"([^.#]+)").replace(r"\*", ".*"))


def _match(template: str, name: str) -> re.Match[str] | None:
    return _pattern(template).fullmatch(name)


def _first(templates: Iterable[str], name: str) -> str | None:
    return next((template for template in templates if _match(template, name)), None)


def _filled(source: str, target: str, name: str) -> str:
    """`target` with its `{}` filled by the parts of `name` that `source` names."""
    found = _match(source, name)
    assert found is not None
    for part in found.groups():
        target = target.replace("{}", part, 1)
    return target
