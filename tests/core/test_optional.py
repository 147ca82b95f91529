import sys
from pathlib import Path

import pytest

from sonorant.core.errors import MissingPackage
from sonorant.core.optional import require


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(
        MissingPackage, match=r"nowhere is needed to fly and not installed: pip install 'sonorant\[decode\]'"
    ):
        require("nowhere.at.all", extra="decode", purpose="to fly")


def test_a_fault_inside_an_installed_package_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_package.py").write_text("import not_there_either")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_either") as caught:
        require("faulty_package", extra="decode")
    assert not isinstance(caught.value, MissingPackage)
    sys.modules.pop("faulty_package", None)
