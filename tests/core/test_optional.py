import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from sonorant.core.errors import MissingPackage
from sonorant.core.optional import require

SRC = Path(__file__).resolve().parents[2] / "src"
IMPORT_ALL = """
import importlib, json, sys

hidden, modules = json.loads(sys.argv[1])


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hide())
failed = []
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        failed.append(f"{module}: {error!r}")
sys.exit(chr(10).join(failed) or 0)
"""


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


def test_every_module_imports_without_the_extras() -> None:
    """What `pip install sonorant` alone brings suffices to import all; an extra is missed where it is used."""
    known = metadata.packages_distributions().items()
    extras = {re.match(r"[\w.-]+", line)[0].lower() for line in _extras()}  # type: ignore[index]
    hidden = sorted(module for module, names in known if extras & {name.lower().replace("_", "-") for name in names})
    assert {"lightning", "av", "flashlight", "espeakng_loader"} <= set(hidden)
    modules = [
        ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((SRC / "sonorant").rglob("*.py"))
        if file.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps([hidden, modules])],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _extras() -> list[str]:
    extras = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [line for lines in extras.values() for line in lines if not line.startswith("sonorant")]
