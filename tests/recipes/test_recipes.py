from pathlib import Path

import pytest

from contracts.recipes import check_recipe
from sonorant.core.errors import ConfigError
from sonorant.recipes.catalogue import RECIPES, load_recipe, preset


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_keeps_the_contract(name: str, tmp_path: Path) -> None:
    check_recipe(name, tmp_path)


def test_unknown_names_point_to_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'deepspech'; did you mean 'deepspeech'"):
        load_recipe("deepspech")
    with pytest.raises(ConfigError, match="unknown preset of Deep Speech 'tony'; did you mean 'toy'"):
        preset(load_recipe("deepspeech"), "tony")


def test_a_dash_in_a_name_is_forgiven() -> None:
    assert load_recipe("conformer-ctc").CARD.title == "Conformer-CTC"
