"""Every entry of the catalogue has a case in the tests of its family, which run the contract over it."""

import ast
import json
from pathlib import Path

import pytest

from sonorant.core.errors import ConfigError
from sonorant.encoders.catalogue import ENCODERS, build_encoder, encoder_preset
from sonorant.encoders.checkpoint import describe_config, described_config


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
def test_every_preset_is_a_configuration_that_a_checkpoint_can_tell(name: str) -> None:
    config = encoder_preset(name)
    told = json.loads(json.dumps(describe_config(config)))
    assert described_config(told) == config


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'conformer_tiny'"):
        build_encoder("conformer_tinny")
