"""Files and folders that appear whole or not at all.

A file is written beside its place under another name, forced to the disk, and renamed; a reader, or a run that starts after
a crash, sees the old one or the new one and never half of one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_folder", "atomic_write", "recover_folder", "sync_folder"]


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write into, which takes the place of `path` when the block ends without an error.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_write(target) as file:
    ...     _ = file.write(b"whole")
    >>> target.read_bytes()
    b'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` when the block ends without an error.

    Folders cannot be exchanged in one step everywhere, so the old one moves aside first; `recover_folder` puts it back
    should the machine stop just between.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        part.chmod(0o777 & ~_umask())
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _sync(file)
        sync_folder(part)
        aside = _aside(path)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
        os.replace(part, path)
        sync_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        recover_folder(path)
        raise


def recover_folder(path: str | Path) -> bool:
    """Puts back the folder that `atomic_folder` had moved aside when it was stopped; True where it did."""
    path = Path(path)
    if path.exists() or not _aside(path).exists():
        return False
    os.replace(_aside(path), path)
    return True


def sync_folder(path: Path) -> None:
    """Forces a folder's entries to the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        _sync(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
