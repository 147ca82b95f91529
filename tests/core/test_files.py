import os
from pathlib import Path

import pytest

from sonorant.core.files import atomic_folder, atomic_write, recover_folder


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
