"""Every entry of the catalogue has a case in the tests of its family, which run the contract over it."""

import ast
from pathlib import Path

import pytest

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import ENCODERS, build_encoder, encoder_preset


def _cases() -> list[str]:
    """The keys of every `CASES = {…}` in the tests beside this one, read without running them."""
    names = []
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            if any(isinstance(target, ast.Name) and target.id == "CASES" for target in targets):
                assert isinstance(node.value, ast.Dict), f"CASES of {file.name} must be written out"
                names += [ast.literal_eval(key) for key in node.value.keys if key is not None]
    return names


def test_every_entry_has_a_case() -> None:
    names = _cases()
    assert sorted(names) == sorted(set(names)), "an entry has two cases"
    assert set(names) == set(ENCODERS)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_preset_is_a_configuration(name: str) -> None:
    assert encoder_preset(name) == encoder_preset(name)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'conformer_tiny'"):
        build_encoder("conformer_tinny")
