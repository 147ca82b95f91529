import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonorant.core.files import atomic_folder, atomic_write, file_digest, file_lock, recover_folder


def test_a_failure_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(target) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_leaves_the_old_folder_and_no_remains(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as part:
        (part / "a").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_folder(target) as part:
        (part / "a").write_text("new")
        raise RuntimeError("stop")
    assert (target / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("one", "two"):
        with atomic_folder(target) as part:
            (part / name).write_text(name)
    assert os.listdir(target) == ["two"]


def test_a_stop_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as part:
        (part / "a").write_text("old")
    os.replace(target, tmp_path / ".model.old")
    assert recover_folder(target)
    assert (target / "a").read_text() == "old"
    assert not recover_folder(target)


def test_what_is_written_bears_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"x")
        with atomic_folder(tmp_path / "b") as part:
            (part / "c").write_text("y")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b", "b/c")] == [0o640, 0o750, 0o640]


def test_a_link_is_followed(tmp_path: Path) -> None:
    for name in ("file", "folder"):
        (tmp_path / f"{name}-link").symlink_to(tmp_path / name)
    with atomic_folder(tmp_path / "folder") as part:
        (part / "a").write_text("old")
    with atomic_folder(tmp_path / "folder-link") as part:
        (part / "a").write_text("new")
    with atomic_write(tmp_path / "file-link") as file:
        file.write(b"new")
    assert (tmp_path / "folder" / "a").read_text() == (tmp_path / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["file", "file-link", "folder", "folder-link"]


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"), atomic_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "mine"


def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys; from sonorant.core.files import file_lock\n"
        "with file_lock(sys.argv[1]): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        assert lock.read_text() == str(other.pid)
        with pytest.raises(BlockingIOError), file_lock(lock, wait=False):
            pass
    finally:
        other.kill()
        other.communicate()
    with file_lock(lock, wait=False):
        assert lock.read_text() == str(os.getpid())
    assert lock.read_text() == ""


def test_a_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
