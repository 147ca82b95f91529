"""Files below a folder: hidden ones are left out, links are followed, and none is visited twice by a circle of links."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["files_below"]


def files_below(folder: Path, leave_out: Collection[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Path and status of each file below a folder; broken links are left out.

    Args:
        folder: where to look.
        leave_out: paths of files and folders that do not count, spelt as they are met from `folder`.
    """
    waiting = [str(folder)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        here = waiting.pop()
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            # In order of names, so that of two links to one folder it is always the same that counts.
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                if entry.name.startswith(".") or entry.path in leave_out:
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_file():
                    yield entry.path, entry.stat()
