"""All recipes: name → module. Importing this file imports none of them.

A recipe is a module with `CARD`, a frozen `Config`, `PRESETS` (name → function that makes a configuration), `CLAIMS` and
`run(config, work) -> list[Score]`; scores bear names `arm/metric`.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.score import Score

__all__ = ["RECIPES", "Recipe", "load_recipe", "preset"]

RECIPES: dict[str, str] = {
    "conformer_ctc": "sonorant.recipes.asr.conformer_ctc",
    "deepspeech": "sonorant.recipes.asr.deepspeech",
    "digits": "sonorant.recipes.asr.digits",
    "hubert": "sonorant.recipes.ssl.hubert",
    "fast_hubert": "sonorant.recipes.ssl.fast_hubert",
    "ms_hubert": "sonorant.recipes.ssl.ms_hubert",
    "npc": "sonorant.recipes.ssl.npc",
    "tera": "sonorant.recipes.ssl.tera",
    "dinosr": "sonorant.recipes.ssl.dinosr",
    "data2vec_aqc": "sonorant.recipes.ssl.data2vec_aqc",
    "k2ssl": "sonorant.recipes.ssl.k2ssl",
    "mr_hubert": "sonorant.recipes.ssl.mr_hubert",
    "nest": "sonorant.recipes.ssl.nest",
    "pretext_zoo": "sonorant.recipes.ssl.pretext_zoo",
    "wav2vec2": "sonorant.recipes.ssl.wav2vec2",
    "vq_wav2vec": "sonorant.recipes.ssl.vq_wav2vec",
    "bert_codes": "sonorant.recipes.ssl.bert_codes",
    "pase": "sonorant.recipes.ssl.pase",
}


@runtime_checkable
class Recipe(Protocol):
    """What a recipe's module holds."""

    CARD: Card
    Config: type
    PRESETS: Mapping[str, Callable[[], Any]]
    CLAIMS: Sequence[Claim]

    def run(self, config: Any, work: Workspace) -> list[Score]: ...


def load_recipe(name: str) -> Recipe:
    """The module of a recipe.

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    key = name.replace("-", "_")
    if key not in RECIPES:
        raise ConfigError(unknown_name("recipe", name, RECIPES))
    return cast(Recipe, importlib.import_module(RECIPES[key]))


def preset(recipe: Recipe, name: str) -> Any:
    """The configuration of a preset.

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    if name not in recipe.PRESETS:
        raise ConfigError(unknown_name(f"preset of {recipe.CARD.title}", name, recipe.PRESETS))
    return recipe.PRESETS[name]()
