"""Run a recipe.

  sonorant run conformer_ctc                                  preset toy, the built-in corpus, minutes
  sonorant run conformer_ctc --preset librispeech --corpus prepared:DIR
  sonorant run deepspeech --encoder.dropout 0.1 --training.steps 2000

  sonorant run deepspeech --init-from runs/other --skip 'head.*'

Every option of the recipe can be given as --name value; `sonorant show RECIPE` lists them. A run that was stopped goes on
when it is started again with the same --out.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sonorant.benchmark.workspace import Workspace
from sonorant.cli.options import add_run_options, overrides, table
from sonorant.core.config import Dotted, load_config, override
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.score import Score
from sonorant.recipes.catalogue import Recipe, load_recipe, preset

TAKES_OPTIONS = True
log = logging.getLogger("sonorant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a recipe; `sonorant list` has them all")
    add_run_options(parser)
    parser.add_argument(
        "--arm", action="append", default=[], help="a baseline or control that the claims name, to be run too; or `all`"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    recipe = load_recipe(args.name)
    config = resolve(recipe, args.preset, args.config, overrides(rest))
    work = workspace(args, default=Path("runs") / f"{args.name}-{args.preset}")
    work = replace(work, arms=chosen_arms(recipe, args.arm))
    with work.locked():
        work.write_config(config)
        scores = recipe.run(config, work)
    if not work.first:
        return 0
    table(score_rows(scores), f"{recipe.CARD.title}, preset {args.preset}")
    table(cost_rows(work), "Cost by stage")
    log.info("everything is in %s", work.folder)
    return 0


def claimed_arms(recipe: Recipe) -> tuple[str, ...]:
    """Every arm that a claim names."""
    return tuple(sorted({arm for claim in recipe.CLAIMS for arm in (claim.of, claim.other) if isinstance(arm, str)}))


def chosen_arms(recipe: Recipe, names: list[str]) -> tuple[str, ...]:
    """The arms that the user asked for.

    Raises:
        ConfigError: a name that no claim has.
    """
    known = claimed_arms(recipe)
    for name in names:
        if name not in (*known, "all"):
            raise ConfigError(unknown_name(f"arm of {recipe.CARD.title}", name, [*known, "all"]))
    return known if "all" in names else tuple(names)


def resolve(recipe: Recipe, name: str, file: Path | None, options: Dotted) -> Any:
    """Preset, then the values of a file, then those of the command line."""
    config = preset(recipe, name)
    if file is not None:
        config = load_config(type(config), file, base=config)
    return override(config, options) if options else config


def workspace(args: argparse.Namespace, default: Path) -> Workspace:
    """The workspace that the options ask for."""
    work = Workspace(folder=args.out or default)
    return replace(
        work,
        corpus=args.corpus,
        seed=args.seed,
        devices=args.workers,
        num_workers=args.loaders,
        accelerator=args.accelerator,
        progress=not args.quiet,
        resume=args.resume,
    )


def score_rows(scores: list[Score]) -> list[dict[str, Any]]:
    """Scores as rows of a table."""
    return [
        {
            "score": score.name,
            "value": score.value,
            "95 % interval": "" if score.low is None else f"{score.low:.4g} to {score.high:.4g}",
            "items": score.num_items,
            "better": score.better,
        }
        for score in scores
    ]


def cost_rows(work: Workspace) -> list[dict[str, Any]]:
    """What each stage cost."""
    return [
        {
            "stage": stage.name,
            "seconds": stage.cost.seconds,
            "cpu seconds": stage.cost.cpu_seconds,
            "peak MB": stage.cost.peak_memory_mb,
            "made": "now" if stage.fresh else "earlier",
        }
        for stage in work.done
    ]
