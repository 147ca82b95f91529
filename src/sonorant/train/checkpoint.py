"""The training state on disk: `checkpoints/step-00001000/` with safetensors and one JSON; nothing is pickled.

A checkpoint is written under another name, forced to the disk and renamed, so it is whole or absent. The files `last` and
`best` beside the checkpoints hold a name each and are renamed into place too. Checksums tell a damaged checkpoint from a
good one on the way in, and an older one is taken instead, with a warning.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from sonorant.core.checkpoint import load_weights
from sonorant.core.errors import CheckpointError, TrainingError
from sonorant.core.files import atomic_folder, atomic_write, file_digest
from sonorant.train.document import join_document, split_document

__all__ = ["Checkpoints", "TrainingState", "disk_errors", "restore_weights"]

SCHEMA = 1
STATE_FILE = "state.json"
Tensors = Mapping[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to go on; tensors whole and on the CPU."""

    step: int
    model: Tensors
    """Parameters and buffers."""
    average: Tensors
    """Moving average of the parameters; empty without one."""
    optimizers: Mapping[str, Any]
    """Name → tree of tensors and numbers by parameter name."""
    rest: Mapping[str, Any]
    """Position in the data, counters, best score, configuration."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: the run's folder.
        keep: newest checkpoints that stay, beside the best.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        self.folder = Path(folder) / "checkpoints"
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that stand there, oldest first."""
        found = (path.name.removeprefix("step-") for path in self.folder.glob("step-*") if path.is_dir())
        return sorted(int(name) for name in found if name.isdigit())

    def pointed(self, name: str) -> Path | None:
        """The checkpoint that `last` or `best` names."""
        file = self.folder / name
        if not file.is_file():
            return None
        return self.folder / file.read_text(encoding="utf-8").strip()

    def write(self, state: TrainingState, best: bool = False) -> Path:
        """Writes a checkpoint, points `last` (and `best`) at it, and removes those that need not stay.

        Raises:
            TrainingError: the disk is full or cannot be written; the previous checkpoint stands as it was.
        """
        path = self.path(state.step)
        with disk_errors(f"the checkpoint of step {state.step}", self._standing()):
            with atomic_folder(path) as part:
                _write_files(part, state)
            self._point("last", path)
            if best:
                self._point("best", path)
        self._prune()
        return path

    def latest(self) -> TrainingState | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Raises:
            CheckpointError: there are some and all are damaged.
        """
        faults: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            try:
                state = read_state(self.path(step))
            except CheckpointError as error:
                faults.append((step, str(error)))
                continue
            for damaged, fault in faults:
                warnings.warn(f"{fault}; going on from step {step} instead", stacklevel=2)
                self._set_aside(damaged)
            return state
        if faults:
            told = "; ".join(fault for _, fault in faults)
            raise CheckpointError(f"no checkpoint under {self.folder} can be read: {told}")
        return None

    def sweep(self) -> None:
        """Removes what a run that was killed while it wrote has left."""
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)

    def _standing(self) -> str:
        steps = self.steps()
        return f"the checkpoint of step {steps[-1]} stands as it was" if steps else "there is no earlier checkpoint"

    def _set_aside(self, step: int) -> None:
        # It must not count as one of the `keep` newest, which would push out a good one.
        aside = self.folder / f"damaged-{self.path(step).name}"
        shutil.rmtree(aside, ignore_errors=True)
        self.path(step).rename(aside)

    def _point(self, name: str, path: Path) -> None:
        with atomic_write(self.folder / name) as file:
            file.write(f"{path.name}\n".encode())

    def _prune(self) -> None:
        needed = {self.pointed("last"), self.pointed("best"), *(self.path(step) for step in self.steps()[-self.keep :])}
        for step in self.steps():
            if self.path(step) not in needed:
                shutil.rmtree(self.path(step), ignore_errors=True)


def _write_files(part: Path, state: TrainingState) -> None:
    from safetensors.torch import save_file

    plain, tensors = split_document({"optimizers": state.optimizers, "rest": state.rest})
    groups = {"model": state.model, "average": state.average, "state": tensors}
    files = {}
    for name, group in groups.items():
        if not group and name != "model":
            continue
        file = part / f"{name}.safetensors"
        save_file(_separate(group), file)
        files[file.name] = {"bytes": file.stat().st_size, "sha256": file_digest(file)}
    document = {"schema": SCHEMA, "step": state.step, "files": files, **plain}
    (part / STATE_FILE).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_state(path: Path) -> TrainingState:
    """Reads one checkpoint and compares sizes and checksums.

    Raises:
        CheckpointError: absent, cut short, damaged, or of a newer schema.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        document = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        if document["schema"] > SCHEMA:
            raise CheckpointError(
                f"{path} was written by a newer version (schema {document['schema']}); upgrade sonorant"
            )
        for name, expected in document["files"].items():
            _check(path / name, expected)
        groups = {Path(name).stem: load_file(path / name) for name in document["files"]}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the checkpoint {path} is damaged ({type(error).__name__}: {error})") from None
    tensors = groups.get("state", {})
    return TrainingState(
        step=document["step"],
        model=groups["model"],
        average=groups.get("average", {}),
        optimizers=join_document(document["optimizers"], tensors),
        rest=join_document(document["rest"], tensors),
    )


def restore_weights(objective: nn.Module, folder: str | Path, which: str = "best", average: bool = True) -> int:
    """Loads the weights of a training into its objective.

    Args:
        objective: the module that was trained.
        folder: the run's folder.
        which: `"best"` (`"last"` where no validation chose one) or `"last"`.
        average: take the moving average where the training kept one.

    Returns:
        The step at which they were written.

    Raises:
        CheckpointError: there is no such checkpoint, or it does not fit.
    """
    checkpoints = Checkpoints(folder)
    path = checkpoints.pointed(which) or checkpoints.pointed("last")
    if path is None:
        raise CheckpointError(f"no training checkpoint under {checkpoints.folder}")
    state = read_state(path)
    load_weights(objective, {**state.model, **(state.average if average else {})}, where=str(path))
    return state.step


@contextmanager
def disk_errors(what: str, standing: str) -> Iterator[None]:
    """Turns an error of the disk into one that says what could not be written, what stands, and what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{what} could not be written ({error}); {standing}. Make room on the disk and run the same command: the "
            "training goes on from there"
        ) from error


def _separate(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors that share no memory, which is what safetensors asks for; tied weights are stored under each name."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size()
        result[name] = tensor if whole and storage.data_ptr() not in seen else tensor.clone().contiguous()
        seen.add(storage.data_ptr())
    return result


def _check(file: Path, expected: Mapping[str, Any]) -> None:
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise CheckpointError(
            f"the checkpoint {file.parent} is damaged: {file.name} has {size} of {expected['bytes']} bytes"
        )
    if file_digest(file) != expected["sha256"]:
        raise CheckpointError(f"the checkpoint {file.parent} is damaged: the checksum of {file.name} differs")
