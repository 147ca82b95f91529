"""Every entry of the catalogue is a configuration, is built around an encoder, and went through the battery somewhere."""

import ast
import importlib
from pathlib import Path

import pytest
from tests.contracts.tiny_encoder import TinyEncoder

from sonorant.core.config import to_plain
from sonorant.core.errors import ConfigError
from sonorant.objectives.catalogue import OBJECTIVES, build_objective, objective_preset


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_preset_is_a_configuration(name: str) -> None:
    config = objective_preset(name)
    assert config == objective_preset(name)
    assert to_plain(config), "a configuration holds plain values"
    module = importlib.import_module(OBJECTIVES[name].partition(":")[0])
    assert callable(module.build)


def test_every_preset_is_called_in_the_tests_of_its_family() -> None:
    """The tests beside this one run the battery over configurations that the presets make."""
    called = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if "check_objective" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
            called |= {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    wanted = {line.partition(":")[2] for line in OBJECTIVES.values()}
    assert wanted <= called, f"no test makes {sorted(wanted - called)}"


def test_building_by_name() -> None:
    objective = build_objective("hubert", TinyEncoder(), num_units=12, parts={"mix": lambda batch: batch})
    assert objective.heads[0].head.num_units == 12  # type: ignore[index,union-attr]
    assert objective.mix is not None
    assert build_objective("dinosr", TinyEncoder(), top_layers=2).config.top_layers == 2  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="did you mean 'hubert'"):
        build_objective("hubrt", TinyEncoder())


def test_an_encoder_of_features_is_told_what_it_lacks() -> None:
    from sonorant.encoders.catalogue import build_encoder

    with pytest.raises(ConfigError, match=r"takes features; wrap it(.|\n)*OnSpectrum"):
        build_objective("hubert", build_encoder("conformer_tiny"))
