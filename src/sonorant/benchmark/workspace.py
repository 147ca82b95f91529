"""What a recipe is handed: the corpus, the seed, the device, and stages whose results are kept.

A stage is a folder under a hash of its inputs. It is made once; a run that was stopped goes on where it was, and a change of
any input makes another folder rather than a mixture of two.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonorant.benchmark.cost import Cost, measured
from sonorant.core.config import content_hash, save_config, to_plain
from sonorant.core.errors import SonorantError
from sonorant.core.files import atomic_write

if TYPE_CHECKING:
    from sonorant.data.corpora.corpus import Corpus

__all__ = ["Stage", "Workspace"]

log = logging.getLogger("sonorant")
STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str
    folder: Path
    cost: Cost
    fresh: bool
    """False where an earlier run had made it."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a recipe works, and with what."""

    folder: Path
    """Holds `stages/`, `config.yaml` and whatever the recipe writes."""
    corpus: str = ""
    """A corpus as the command line names it, such as `pack:DIR`; empty for the recipe's own."""
    seed: int = 0
    devices: int = 1
    """Processes to train with."""
    accelerator: str = "auto"
    num_workers: int = 0
    """Processes that load data."""
    progress: bool = True
    arms: tuple[str, ...] = ()
    """Baselines and controls to run beside the system itself; `prove` asks for those that the claims name."""
    done: list[Stage] = field(default_factory=list)
    """The stages of this run, in order; a report reads their costs."""

    def stage(
        self,
        name: str,
        make: Callable[[Path], Any],
        inputs: Any = (),
        *,
        resumable: bool = False,
        collective: bool = False,
    ) -> Path:
        """The folder of a finished stage, made now unless it is there.

        Args:
            name: what the stage makes, as part of a folder name.
            make: fills the folder it is given.
            inputs: plain values or configurations that the result depends on; the seed counts among them.
            resumable: `make` can go on in a folder that an earlier run left half done (as `train.fit` does); without it
                such a folder is emptied first.
            collective: every process of a distributed run calls `make`; without it the first one does, and the others
                wait for the stage to be finished.

        Raises:
            SonorantError: whatever `make` raised, passed on; the folder is kept for a resumable stage.
        """
        plain = {"stage": name, "seed": self.seed, "inputs": to_plain(inputs)}
        folder = self.folder / "stages" / f"{name}-{content_hash(plain)}"
        found = _finished(folder)
        if found is not None:
            log.info("stage %s: found in %s", name, folder)
            self.done.append(Stage(name, folder, found, fresh=False))
            return folder
        if not (collective or _is_first()):
            return _awaited(folder)
        if folder.exists() and not resumable:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        log.info("stage %s: making it in %s", name, folder)
        with measured() as cost:
            make(folder)
        if not _is_first():
            return folder
        record = {**plain, "cost": to_plain(cost.value), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        with atomic_write(folder / STAGE_FILE) as file:
            file.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
        self.done.append(Stage(name, folder, cost.value, fresh=True))
        return folder

    def open_corpus(self, default: str = "synthetic") -> "Corpus":
        """The corpus that the user named, or the recipe's own."""
        from sonorant.data.corpora.catalogue import open_corpus

        return open_corpus(self.corpus or default, self.folder / "corpora", num_workers=self.num_workers)

    def write_config(self, config: Any) -> None:
        """Writes the resolved configuration beside the results."""
        save_config(config, self.folder / "config.yaml")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run out of the same folder while the block lasts.

        Raises:
            SonorantError: another run that is alive holds the folder.
        """
        if not _is_first():
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / ".lock"
        holder = _holder(lock)
        if holder is not None:
            raise SonorantError(f"{self.folder} is in use by process {holder}; wait for it, or give another --out")
        lock.write_text(str(os.getpid()))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _finished(folder: Path) -> Cost | None:
    try:
        record = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        return Cost(**record["cost"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def _awaited(folder: Path, poll_seconds: float = 0.5) -> Path:
    """Waits until the first process has finished a stage; torchrun ends this process should the first one fail."""
    while _finished(folder) is None:
        time.sleep(poll_seconds)
    return folder


def _holder(lock: Path) -> int | None:
    """The process that holds a lock, if it is alive and another one."""
    try:
        number = int(lock.read_text())
        os.kill(number, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        return number
    return None if number == os.getpid() else number
