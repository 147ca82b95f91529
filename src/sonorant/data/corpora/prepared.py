"""A prepared corpus on disk: one manifest of cuts a split, and `corpus.json`, which says what they were made from.

`prepared` is the door: it hands out what lies in a folder when that is whole and still fits its source, and makes it anew
otherwise, saying why. A folder appears whole or not at all; two processes that ask at once wait for one another. The
manifests of the same source are the same bytes every time, so their checksums name the data a result was made with.
"""

import gzip
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.serialization import deserialize_item

from sonorant.core.config import differences, from_plain, to_plain
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.files import atomic_folder, file_digest, file_lock, recover_folder
from sonorant.data.corpora.corpus import Card, Corpus, Fault, SplitSummary
from sonorant.data.corpora.walk import files_below

__all__ = ["SCHEMA", "SourceState", "open_prepared", "prepared", "source_state", "stale_reason", "write_prepared"]

SCHEMA = 1
# Above this many cuts a manifest is read as a stream: a million cuts as objects take several gigabytes.
_EAGER_ITEMS = 300_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceState:
    """The state of a source: a hash over names, sizes and times of change of its files."""

    fingerprint: str
    num_files: int
    num_bytes: int


def source_state(roots: Iterable[Path], leave_out: Path | None = None) -> SourceState:
    """Looks at every file under the given files and folders, without reading them.

    Args:
        roots: files and folders; what is hidden in a folder does not count.
        leave_out: a prepared folder that may lie inside, and what lies beside it under its name.

    Raises:
        DataError: one of them does not exist.
    """
    digest, count, size = hashlib.sha256(), 0, 0
    own = str(leave_out.absolute()) if leave_out else ""
    for root in roots:
        if not root.exists():
            raise DataError(f"no file or folder at {root}; give the place of the corpus' source")
        root = root.absolute()
        found = (
            files_below(root, (own, f"{own}.recipe", f"{own}.audio")) if root.is_dir() else [(str(root), root.stat())]
        )
        for name, status in sorted(found, key=lambda pair: pair[0]):
            digest.update(f"{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
            count += 1
            size += status.st_size
    return SourceState(digest.hexdigest()[:16], count, size)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_prepared(
    corpus: Corpus,
    folder: Path,
    *,
    kind: str,
    options: Mapping[str, Any] | None = None,
    state: SourceState | None = None,
) -> Corpus:
    """Writes a corpus as a prepared folder, which appears whole or not at all, and returns it as read back from there.

    Args:
        corpus: the corpus; its splits are gone through once.
        folder: where to write; an older preparation there is replaced, anything else is left alone.
        kind: the importer that made it.
        options: its options.
        state: the source's state when it was read.

    Raises:
        DataError: the folder holds something other than a preparation, or the corpus holds no item.
    """
    _refuse_foreign(folder)
    with atomic_folder(folder) as part:
        splits = {}
        for name, cuts in corpus.splits.items():
            file = part / f"cuts.{_safe(name)}.jsonl.gz"
            size = _write_cuts(cuts, file)
            splits[name] = {"file": file.name, "sha256": file_digest(file), **to_plain(size)}
        if not any(split["num_items"] for split in splits.values()):
            raise DataError(f"corpus '{corpus.name}' from {corpus.card.source} holds no item{_why_empty(corpus)}")
        entry = {
            "schema": SCHEMA, "sonorant": _version(), "kind": kind, "name": corpus.name, "card": to_plain(corpus.card),
            "options": to_plain(dict(options or {})), "source_state": to_plain(state), "splits": splits,
            "faults": [to_plain(fault) for fault in corpus.faults],
        }  # fmt: skip
        (part / "corpus.json").write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return open_prepared(folder)


def _write_cuts(cuts: CutSet, path: Path) -> SplitSummary:
    items, seconds, words = 0, 0.0, 0
    speakers: set[str] = set()
    sentences: set[str] = set()
    # No time and no name in the gzip header: the same cuts give the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        for cut in cuts:
            file.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode())
            items += 1
            seconds += cut.duration
            speakers.update(s.speaker for s in cut.supervisions if s.speaker)
            texts = [s.text for s in cut.supervisions if s.text]
            sentences.update(texts)
            words += sum(len(text.split()) for text in texts)
    return SplitSummary(items, seconds, len(speakers), len(sentences), words)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
    foreign = [n for n in names if not (n == "corpus.json" or (n.startswith("cuts.") and n.endswith(".jsonl.gz")))]
    if foreign or not folder.is_dir():
        shown = ", ".join(sorted(foreign)[:3]) or folder.name
        raise DataError(f"{folder} holds other things than a prepared corpus ({shown}); give an empty or new folder")


def _why_empty(corpus: Corpus) -> str:
    if not corpus.faults:
        return "; is it the right folder and the right kind?"
    fault = corpus.faults[0]
    return f"; {len(corpus.faults)} faults, the first: {fault.id}: {fault.reason} {fault.detail}".rstrip()


# --- reading ----------------------------------------------------------------------------------------------------------


def open_prepared(folder: Path, *, lazy: bool | None = None) -> Corpus:
    """Reads a prepared folder after checking that it is whole.

    Args:
        folder: the prepared folder.
        lazy: read cuts as a stream each time they are gone through; None decides by their number.

    Raises:
        DataError: not a prepared folder, half-written, damaged, or of a newer schema.
    """
    entry = _read_entry(folder)
    damage = _damage(folder, entry)
    if damage:
        raise DataError(f"the prepared corpus at {folder} cannot be used: {damage}; prepare it again")
    splits, sizes = {}, {}
    try:
        for name, split in entry["splits"].items():
            stream = split["num_items"] > _EAGER_ITEMS if lazy is None else lazy
            splits[name] = _read_cuts(folder / split["file"], stream)
            sizes[name] = SplitSummary(**{k: v for k, v in split.items() if k not in ("file", "sha256")})
        card = from_plain(Card, entry["card"])
        faults = tuple(Fault(**fault) for fault in entry["faults"])
        return Corpus(entry["name"], splits, card, faults, sizes)
    except (KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{folder / 'corpus.json'} is damaged ({error!r}); prepare the corpus again") from None


def _read_cuts(path: Path, lazy: bool) -> CutSet:
    if lazy:
        return CutSet.from_jsonl_lazy(path)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return CutSet.from_cuts(deserialize_item(json.loads(line)) for line in lines)


def _read_entry(folder: Path) -> dict[str, Any]:
    recover_folder(folder)
    path = folder / "corpus.json"
    if not path.is_file():
        raise DataError(f"{folder} is not a prepared corpus: it has no corpus.json (never finished, or another folder)")
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        schema = int(entry["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); prepare the corpus again") from None
    if schema > SCHEMA:
        raise DataError(f"{path} has schema {schema} and this version reads up to {SCHEMA}; update sonorant")
    return entry


def _damage(folder: Path, entry: Mapping[str, Any]) -> str | None:
    for name, split in entry.get("splits", {}).items():
        file = folder / Path(str(split.get("file"))).name
        if not file.is_file() or file.name != split["file"]:
            return f"the manifest of split '{name}' is missing ({file.name})"
        if file_digest(file) != split.get("sha256"):
            return f"the manifest of split '{name}' is not what was written ({file.name}: another checksum)"
    return None


def stale_reason(folder: Path, *, options: Mapping[str, Any], state: SourceState | None, kind: str) -> str | None:
    """Why a prepared folder cannot be used as it is, or None where it can."""
    try:
        entry = _read_entry(folder)
    except DataError as error:
        if "update sonorant" in str(error):
            raise
        return str(error)
    if entry["schema"] != SCHEMA:
        return f"it has schema {entry['schema']}, now {SCHEMA}"
    if entry["kind"] != kind:
        return f"it was made as '{entry['kind']}', now '{kind}'"
    changed = differences(entry["options"], to_plain(dict(options)))
    if changed:
        return "options changed: " + ", ".join(f"{name}: {old} → {new}" for name, old, new in changed)
    if state is not None and entry["source_state"] != to_plain(state):
        old = entry["source_state"] or {"num_files": 0}
        return f"the source changed ({old['num_files']} → {state.num_files} files, or their sizes or times)"
    return _damage(folder, entry)


def prepared(
    folder: Path,
    build: Callable[[], Corpus],
    *,
    kind: str,
    options: Mapping[str, Any] | None = None,
    roots: Callable[[], Iterable[Path]] = tuple,
    generated: bool = False,
) -> Corpus:
    """The corpus in a prepared folder; built first where the folder is absent, half-written, damaged or stale.

    Args:
        folder: the prepared folder.
        build: makes the corpus from its source.
        kind: the importer's name.
        options: what the result depends on beside the source's files.
        roots: gives the files and folders of the source.
        generated: `build` writes the source itself, so its state is taken afterwards. A given source's is taken before:
            should it change while it is read, the next call sees so.
    """
    # One process at a time prepares a folder; the others wait and then find it done.
    with file_lock(folder.parent / f".{folder.name}.lock"):
        recover_folder(folder)
        for leftover in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        state = source_state(roots(), folder)
        if folder.exists():
            reason = stale_reason(folder, options=options or {}, state=state, kind=kind)
            if reason is None:
                return open_prepared(folder)
            _log.warning("preparing %s again: %s", folder, reason)
        else:
            _log.info("preparing %s", folder)
        corpus = build()
        return write_prepared(
            corpus, folder, kind=kind, options=options, state=source_state(roots()) if generated else state
        )


def _safe(name: str) -> str:
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return kept if kept == name else f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _version() -> str:
    from sonorant import __version__

    return __version__
