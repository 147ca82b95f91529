"""A model on disk: a folder with `model.safetensors` (weights) and `checkpoint.json` (what they are), loading with no flags.

Nothing is ever unpickled. The JSON bears a schema version; older ones pass `MIGRATIONS` on the way in. Weights that do not
fit a model raise a `GeometryReport`: which tensors differ in which size, what can be kept, and the option that does so.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from sonorant.core.config import content_hash, to_plain
from sonorant.core.errors import CheckpointError
from sonorant.core.files import atomic_folder, file_digest, recover_folder

__all__ = [
    "SCHEMA", "Checkpoint", "GeometryReport", "checkpoint_digest", "compare_weights", "load_checkpoint", "load_weights",
    "save_checkpoint",
]  # fmt: skip

SCHEMA = 2
WEIGHTS_FILE, META_FILE = "model.safetensors", "checkpoint.json"
Weights = dict[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` returns; all on the CPU."""

    kind: str
    """Name of the builder that makes the model, such as `"asr.ctc"`."""
    weights: Weights
    config: dict[str, Any]
    """Plain."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Vocabulary, labels, normaliser, scores, provenance: whatever the model needs to be used with no flags."""


def save_checkpoint(
    folder: str | Path,
    *,
    kind: str,
    weights: Mapping[str, Shaped[Tensor, "..."]],
    config: Any,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint; the folder appears whole or keeps what it had.

    Args:
        folder: where; replaced if it exists and is a checkpoint or empty.
        kind: name of the builder that can make the model again.
        weights: name → tensor on any device; tensors that share memory are stored once each.
        config: dataclass or plain mapping.
        extra: plain values, such as `{"vocabulary": tokenizer.to_plain()}`.

    Raises:
        CheckpointError: the folder holds something that is not a checkpoint.
    """
    from safetensors.torch import save_file

    from sonorant import __version__

    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / META_FILE).exists():
        raise CheckpointError(f"{folder} holds files that are no checkpoint; give a new or empty folder")
    with atomic_folder(folder) as part:
        # A copy of each tensor: safetensors refuses shared memory, and what is tied stays right when loaded twice.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
        save_file(tensors, part / WEIGHTS_FILE)
        meta = {
            "schema": SCHEMA,
            "sonorant": __version__,
            "kind": kind,
            "config": to_plain(config),
            "extra": to_plain(dict(extra or {})),
            "weights": {
                "file": WEIGHTS_FILE,
                "bytes": (part / WEIGHTS_FILE).stat().st_size,
                "sha256": file_digest(part / WEIGHTS_FILE),
            },
        }
        (part / META_FILE).write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load_checkpoint(folder: str | Path, *, kind: str | None = None, verify: bool = True) -> Checkpoint:
    """Reads a checkpoint of this or an older schema.

    Args:
        folder: what `save_checkpoint` wrote.
        kind: refuse any other kind.
        verify: compare the checksum of the weights (one pass over the file).

    Raises:
        CheckpointError: nothing there, damaged, of another kind, or written by a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    recover_folder(folder)
    meta = _read_meta(folder)
    file = folder / WEIGHTS_FILE
    _check_file(file, meta.get("weights", {}), verify)
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    meta, weights = _migrated(meta, weights, folder)
    if kind is not None and meta["kind"] != kind:
        raise CheckpointError(f"{folder} holds a model of kind '{meta['kind']}', expected '{kind}'")
    return Checkpoint(meta["kind"], weights, meta["config"], meta["extra"])


def checkpoint_digest(folder: str | Path) -> str:
    """Sixteen hexadecimal digits for a checkpoint's content: weights, configuration and vocabulary; not its place.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    _check_file(folder / WEIGHTS_FILE, meta.get("weights", {}), verify=False)
    # The checksum that was written is taken on trust; older schemas have none.
    weights = meta.get("weights", {}).get("sha256") or file_digest(folder / WEIGHTS_FILE)
    return content_hash(weights, {name: value for name, value in meta.items() if name not in ("sonorant", "weights")})


# --- weights that do or do not fit ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GeometryReport:
    """How a checkpoint's weights compare with a model's."""

    fits: tuple[str, ...]
    differ: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, size in the checkpoint, size in the model."""
    missing: tuple[str, ...]
    """In the model only."""
    unexpected: tuple[str, ...]
    """In the checkpoint only."""

    @property
    def ok(self) -> bool:
        return not (self.differ or self.missing or self.unexpected)

    def skip_patterns(self) -> list[str]:
        """The fewest top-level patterns that leave out all that does not fit."""
        names = [*(row[0] for row in self.differ), *self.missing, *self.unexpected]
        return sorted({_widest(name, self.fits) for name in names})

    def message(self, where: str = "the checkpoint", limit: int = 8, remedy: str = "") -> str:
        """The report in words: what differs, what can be kept, which option does so, or another `remedy`."""
        total = len(self.fits) + len(self.differ) + len(self.missing)
        lines = [f"{where} does not fit this model: {len(self.fits)} of the model's {total} tensors fit."]
        rows = [f"  {name}: checkpoint {_size(old)}, model {_size(new)}" for name, old, new in self.differ]
        rows += [f"  {name}: not in the checkpoint" for name in self.missing]
        rows += [f"  {name}: not in the model" for name in self.unexpected]
        lines += rows[:limit]
        if len(rows) > limit:
            lines.append(f"  … and {len(rows) - limit} more")
        if remedy:
            lines.append(remedy)
        elif self.fits:
            options = " ".join(f"--skip '{pattern}'" for pattern in self.skip_patterns())
            lines.append(f"To keep the {len(self.fits)} that fit and start the rest anew: --init-from DIR {options}")
        else:
            lines.append("Nothing fits: was it made by another architecture? Give the checkpoint's own configuration.")
        return "\n".join(lines)


def compare_weights(model: nn.Module | Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> GeometryReport:
    """Compares names and sizes; values are not looked at."""
    own = model.state_dict() if isinstance(model, nn.Module) else model
    both = [name for name in own if name in weights]
    return GeometryReport(
        fits=tuple(name for name in both if own[name].shape == weights[name].shape),
        differ=tuple(
            (name, tuple(weights[name].shape), tuple(own[name].shape))
            for name in both
            if own[name].shape != weights[name].shape
        ),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
    )


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Shaped[Tensor, "..."]],
    *,
    skip: Iterable[str] = (),
    where: str = "the checkpoint",
    remedy: str = "",
) -> GeometryReport:
    """Loads weights into a model, all of them but those that match a pattern in `skip` (`"head.*"`).

    Args:
        model: what takes them.
        weights: name → tensor.
        skip: patterns of names that are left as they are.
        where: what the weights come from, for the message.
        remedy: what to do if they do not fit, where it is not to skip some of them.

    Returns:
        The comparison, patterns left out, for the log.

    Raises:
        CheckpointError: something outside `skip` does not fit; nothing was loaded. The message is the geometry report.
    """
    patterns = list(skip)
    own = model.state_dict()
    report = compare_weights(_without(own, patterns), _without(weights, patterns))
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in [*own, *weights]):
            tops = sorted({name.partition(".")[0] for name in own})
            raise CheckpointError(f"--skip '{pattern}' matches no tensor; the model's parts are {', '.join(tops)}")
    if not report.ok:
        raise CheckpointError(report.message(where, remedy=remedy))
    model.load_state_dict({**own, **{name: weights[name] for name in report.fits}})
    return report


# --- migrations -------------------------------------------------------------------------------------------------------

Meta = dict[str, Any]


def _from_1(meta: Meta, weights: Weights) -> tuple[Meta, Weights]:
    """Schema 1 had `model` for `kind` and the vocabulary beside the configuration."""
    vocabulary = meta.get("vocabulary")
    extra = {} if vocabulary is None else {"vocabulary": vocabulary}
    return {**meta, "kind": meta["model"], "config": meta["config"], "extra": extra}, weights


MIGRATIONS: dict[int, Callable[[Meta, Weights], tuple[Meta, Weights]]] = {1: _from_1}
"""Schema → function that leads to the next; each is tested on a file frozen when it was written."""


def _migrated(meta: Meta, weights: Weights, folder: Path) -> tuple[Meta, Weights]:
    for schema in range(meta["schema"], SCHEMA):
        try:
            meta, weights = MIGRATIONS[schema](meta, weights)
        except KeyError as error:
            raise CheckpointError(f"{folder / META_FILE} of schema {schema} lacks {error}") from None
    for name, kind in (("kind", str), ("config", dict), ("extra", dict)):
        if name not in meta:
            raise CheckpointError(f"{folder / META_FILE} lacks '{name}'")
        if not isinstance(meta[name], kind):
            raise CheckpointError(
                f"{folder / META_FILE}: '{name}' must be a {kind.__name__}, got {str(meta[name])[:60]}"
            )
    return meta, weights


# --- inside -----------------------------------------------------------------------------------------------------------


def _read_meta(folder: Path) -> Meta:
    file = folder / META_FILE
    if not file.is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected {META_FILE} and {WEIGHTS_FILE} in that folder")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        schema = meta["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    if not isinstance(meta.get("weights", {}), dict):
        raise CheckpointError(f"{file} is damaged: 'weights' must be an object, got {str(meta['weights'])[:60]}")
    if not isinstance(schema, int) or schema < 1:
        raise CheckpointError(f"{file} has schema {schema!r}; expected a whole number from 1 to {SCHEMA}")
    if schema > SCHEMA:
        writer = meta.get("sonorant", "a newer version")
        raise CheckpointError(
            f"{folder} was written by Sonorant {writer} (schema {schema}); this one reads up to {SCHEMA}: upgrade it"
        )
    return meta


def _check_file(file: Path, expected: Mapping[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file.parent} has {META_FILE} but no {WEIGHTS_FILE}")
    size = file.stat().st_size
    if "bytes" in expected and size != expected["bytes"]:
        raise CheckpointError(f"{file} is cut short or changed: {size} bytes, written as {expected['bytes']}")
    if verify and "sha256" in expected and file_digest(file) != expected["sha256"]:
        raise CheckpointError(f"{file} is damaged: its checksum differs from the one in {META_FILE}")


def _without(weights: Mapping[str, Tensor], patterns: list[str]) -> dict[str, Tensor]:
    return {n: t for n, t in weights.items() if not any(fnmatch.fnmatchcase(n, p) for p in patterns)}


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _widest(name: str, fits: tuple[str, ...]) -> str:
    """The widest `prefix.*` that takes in `name` and nothing that fits; the name itself where there is none."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        prefix = ".".join(parts[:depth]) + "."
        if not any(fit.startswith(prefix) for fit in fits):
            return prefix + "*"
    return name
