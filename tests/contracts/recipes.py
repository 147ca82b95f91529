"""The contract of a recipe: `check_recipe(name, folder)` runs it tiny and asks what every recipe must keep."""

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from sonorant.benchmark.workspace import Workspace
from sonorant.core.config import describe, from_plain, to_plain
from sonorant.core.errors import ConfigError
from sonorant.core.types import Score
from sonorant.encoders.checkpoint import describe_config, described_module
from sonorant.recipes.catalogue import load_recipe, preset

__all__ = ["check_recipe"]


def check_recipe(name: str, folder: Path) -> list[Score]:
    """Card, configuration, presets, claims; a tiny run whose scores are named and kept, and which goes on from its stages.

    Args:
        name: of the catalogue.
        folder: empty.

    Returns:
        The scores of the tiny run with every arm that the claims name.
    """
    recipe = load_recipe(name)
    _check_card(recipe)
    _check_configs(recipe)
    arms = {arm for claim in recipe.CLAIMS for arm in (claim.of, claim.other) if isinstance(arm, str)}
    work = Workspace(folder=folder, progress=False, arms=tuple(sorted(arms)))
    scores = recipe.run(preset(recipe, "tiny"), work)
    names = {score.name for score in scores}
    assert len(names) == len(scores), "two scores bear the same name"
    assert all(re.fullmatch(r"[^/]+/[^/]+", score.name) for score in scores), "a score is named arm/metric"
    for claim in recipe.CLAIMS:
        wanted = {f"{arm}/{claim.metric}" for arm in (claim.of, claim.other) if isinstance(arm, str)}
        assert wanted <= names, f"claim '{claim}' needs {wanted - names}, which the run did not give"
    again = replace(work, done=[])
    assert recipe.run(preset(recipe, "tiny"), again) == scores, "a second run in the same folder gives other scores"
    assert not any(stage.fresh for stage in again.done), "a second run in the same folder made a stage anew"
    return scores


def _check_card(recipe: object) -> None:
    assert recipe.__doc__, "a recipe cites its paper and says where it differs"
    for field in ("system", "title", "paper", "family", "headline"):
        assert getattr(recipe.CARD, field), f"the card lacks {field}"  # type: ignore[attr-defined]
    assert any(claim.must_fail for claim in recipe.CLAIMS), "one claim is a control that must fail"  # type: ignore[attr-defined]


def _check_configs(recipe: object) -> None:
    assert is_dataclass(recipe.Config)  # type: ignore[attr-defined]
    assert {"toy", "tiny"} <= set(recipe.PRESETS), "every recipe has presets toy and tiny"  # type: ignore[attr-defined]
    for name in recipe.PRESETS:  # type: ignore[attr-defined]
        config = preset(recipe, name)  # type: ignore[arg-type]
        assert from_plain(type(config), to_plain(config)) == config, f"preset {name} does not survive a YAML file"
        if name != "paper":  # published sizes take seconds each
            _build_encoders(config, f"preset {name}")
        missing = [field.name for field in describe(config) if not field.doc]
        assert not missing, f"fields without a line beneath them: {missing}"


def _build_encoders(config: object, where: str) -> None:
    """Every network that a preset names can be made: a size that fits no other shows only when it is built."""
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if type(value).__module__.startswith("sonorant.encoders."):
            try:
                described_module(describe_config(value))
            except ConfigError as error:
                raise AssertionError(f"{where}, {field.name}: {error}") from None
