"""Files and folders that appear whole or not at all, checksums of what lies on the disk, and locks between processes.

A file is written beside its place under another name, forced to the disk, and renamed; a reader, or a run that starts after
a crash, sees the old one or the new one and never half of one. A link is followed: what it points to is replaced.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sonorant.core.errors import DataError

__all__ = ["atomic_folder", "atomic_write", "file_digest", "file_lock", "read_text", "recover_folder", "sync_folder"]


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write into, which takes the place of `path` when the block ends without an error.

    Args:
        path: where; folders that are missing are made.
        sync: force it to the disk first, so that it survives a power cut too. Without, thousands of small files are
            written many times as fast, and only a crash of the machine can leave an empty one.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_write(target) as file:
    ...     _ = file.write(b"whole")
    >>> target.read_bytes()
    b'whole'
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        # Readable too: writers of audio look back at what they have written. "x" lets the system apply the umask.
        with part.open("xb+") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(part, path)
        if sync:
            sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` when the block ends without an error.

    Folders cannot be exchanged in one step everywhere, so the old one moves aside first; `recover_folder` puts it back
    should the machine stop just between.

    Raises:
        NotADirectoryError: a file stands there.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; give the name of a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.mkdir()
    try:
        yield part
        for place, _, names in os.walk(part):
            for name in names:
                _sync(Path(place, name))
            sync_folder(Path(place))
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
    path = Path(os.path.realpath(path))
    if path.exists() or not _aside(path).exists():
        return False
    os.replace(_aside(path), path)
    return True


def sync_folder(path: Path) -> None:
    """Forces a folder's entries to the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        _sync(path)


def read_text(path: str | Path) -> str:
    """A text file that a user named.

    Raises:
        DataError: no such file, or it is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"no file {path}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal digits, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def file_lock(path: str | Path, *, wait: bool = True) -> Iterator[None]:
    """One process at a time is within the block; the system lets go of the lock of one that dies.

    The file stays afterwards: were it removed, two processes could each hold the lock of a file of that name. While the
    lock is held it holds the number of the process. Without `fcntl` (Windows) nothing is locked.

    Args:
        path: the lock's file; made where it is missing.
        wait: for another process to leave the block, however long that takes.

    Raises:
        BlockingIOError: another process is in the block, and `wait` is False.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            yield
        finally:
            file.truncate(0)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
