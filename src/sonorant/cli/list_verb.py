"""All recipes, with family, paper and the last verdict on their claims."""

import argparse
from pathlib import Path

from sonorant.benchmark.claims import load_result
from sonorant.cli.options import table
from sonorant.recipes.catalogue import RECIPES, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", help="only recipes of this family")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of stored proofs")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    rows = []
    for name in sorted(RECIPES):
        recipe = load_recipe(name)
        if args.family and recipe.CARD.family != args.family:
            continue
        rows.append(
            {
                "recipe": name,
                "system": recipe.CARD.title,
                "family": recipe.CARD.family,
                "paper": recipe.CARD.paper,
                "presets": ", ".join(recipe.PRESETS),
                "claims": _last(args.results / f"{name}.json"),
            }
        )
    table(rows)
    return 0


def _last(path: Path) -> str:
    result = load_result(path)
    if result is None:
        return "not proved here"
    held = sum(verdict["outcome"] == "holds" for verdict in result["verdicts"])
    return f"{held} of {len(result['verdicts'])} hold ({result['preset']}, {result['date']})"
