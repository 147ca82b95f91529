"""What a recipe is handed: the corpus, the seed, the device, and stages whose results are kept.

A stage is a folder under a hash of its inputs. It is made once; a run that was stopped goes on where it was, and a change of
any input makes another folder rather than a mixture of two. The log says which inputs those were.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sonorant.benchmark.cost import Cost, measured
from sonorant.core.config import content_hash, differences, save_config, to_plain
from sonorant.core.errors import SonorantError
from sonorant.core.files import atomic_folder, atomic_write, file_lock

if TYPE_CHECKING:
    from sonorant.data.corpora.corpus import Corpus

__all__ = ["Stage", "Workspace"]

log = logging.getLogger("sonorant")
STAGE_FILE, INPUTS_FILE = "stage.json", "inputs.json"


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
    corpora: Path | None = None
    """Where prepared corpora are kept; `corpora/` in the folder where None. Runs that differ in their seed share one."""
    seed: int = 0
    devices: int = 1
    """Processes to train with."""
    accelerator: str = "auto"
    num_workers: int = 0
    """Processes that load data."""
    progress: bool = True
    arms: tuple[str, ...] = ()
    """Baselines and controls to run beside the system itself; `prove` asks for those that the claims name."""
    resume: Literal["auto", "ignore-config"] = "auto"
    """ignore-config: a resumable stage whose inputs have changed goes on from what the newest of its name had reached."""
    done: list[Stage] = field(default_factory=list)
    """The stages of this run, in order; a report reads their costs."""

    @property
    def first(self) -> bool:
        """Whether this is the first of the processes that torchrun started, or the only one: the one that writes."""
        return int(os.environ.get("RANK", "0")) == 0

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
            collective: every process of a distributed run calls `make`, which must be resumable; without it the first one
                does. The others come back when the first has finished the stage.

        Raises:
            SonorantError: whatever `make` raised, passed on; the folder is kept for a resumable stage.
        """
        assert resumable or not collective, "several processes cannot empty a folder that they fill together"
        plain = {"stage": name, "seed": self.seed, "inputs": to_plain(inputs)}
        folder = self.folder / "stages" / f"{name}-{content_hash(plain)}"
        cost, fresh = _finished(folder), False
        if cost is not None:
            log.info("stage %s: found in %s", name, folder)
        elif self.first:
            self._opened(folder, plain, resumable)
            cost, fresh = self._made(folder, plain, make), True
        else:
            if collective:
                _awaited(lambda: _inputs_of(folder))
                make(folder)
            cost, fresh = _awaited(lambda: _finished(folder)), True
        self.done.append(Stage(name, folder, cost, fresh))
        return folder

    def open_corpus(self, default: str = "synthetic") -> "Corpus":
        """The corpus that the user named, or the recipe's own."""
        return self.open_further(self.corpus or default)

    def open_further(self, spec: str) -> "Corpus":
        """Another corpus, named as the command line names one."""
        from sonorant.data.corpora.catalogue import open_corpus

        return open_corpus(spec, self.corpora or self.folder / "corpora", num_workers=self.num_workers)

    def write_config(self, config: Any) -> None:
        """Writes the resolved configuration beside the results."""
        save_config(config, self.folder / "config.yaml")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run out of the same folder while the block lasts; the lock dies with the process that holds it.

        Raises:
            SonorantError: another run that is alive holds the folder.
        """
        if not self.first:
            yield
            return
        path = self.folder / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, wait=False))
            except BlockingIOError:
                where = f"{self.folder} is in use by process {path.read_text() or 'that has just begun'}"
                raise SonorantError(f"{where}; wait for it, or give another --out") from None
            yield

    # --- a stage's folder ---------------------------------------------------------------------------------------------

    def _opened(self, folder: Path, plain: Mapping[str, Any], resumable: bool) -> None:
        """Makes the folder ready to be filled, and says what is new about it."""
        if folder.exists() and not resumable:
            shutil.rmtree(folder)
        if not folder.exists():
            earlier = self._earlier(folder, plain)
            changed = [] if earlier is None else differences(_inputs_of(earlier), plain)
            if earlier is not None and changed:
                rows = "; ".join(f"{name}: {_short(old)} → {_short(new)}" for name, old, new in changed[:5])
                more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
                log.info("stage %s: inputs changed since %s (%s%s)", plain["stage"], earlier.name, rows, more)
                if resumable and self.resume == "ignore-config":
                    log.info("stage %s: going on from what %s had reached", plain["stage"], earlier.name)
                    with atomic_folder(folder) as part:
                        shutil.copytree(earlier, part, dirs_exist_ok=True)
                        (part / STAGE_FILE).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / INPUTS_FILE) as file:
            file.write(json.dumps(plain, indent=1, ensure_ascii=False).encode())

    def _earlier(self, folder: Path, plain: Mapping[str, Any]) -> Path | None:
        """The newest stage of the same name and seed, whatever its inputs."""
        found = []
        for file in folder.parent.glob(f"{plain['stage']}-*/{INPUTS_FILE}"):
            inputs = _inputs_of(file.parent)
            if inputs is not None and (inputs.get("stage"), inputs.get("seed")) == (plain["stage"], plain["seed"]):
                found.append((file.stat().st_mtime_ns, file.parent))
        return max(found)[1] if found else None

    def _made(self, folder: Path, plain: Mapping[str, Any], make: Callable[[Path], Any]) -> Cost:
        log.info("stage %s: making it in %s", plain["stage"], folder)
        with measured() as cost:
            make(folder)
        finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"stage": plain["stage"], "seed": plain["seed"], "cost": to_plain(cost.value), "finished": finished}
        with atomic_write(folder / STAGE_FILE) as file:
            file.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
        return cost.value


def _finished(folder: Path) -> Cost | None:
    try:
        record = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        return Cost(**record["cost"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _inputs_of(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / INPUTS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _awaited(look: Callable[[], Any], poll_seconds: float = 0.5) -> Any:
    """What `look` sees once there is something; torchrun ends this process should the first one fail."""
    while (seen := look()) is None:
        time.sleep(poll_seconds)
    return seen


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
