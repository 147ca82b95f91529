"""One recipe: what it is, its presets, options and claims."""

import argparse
import inspect
import sys
from typing import cast

from sonorant.cli.options import table
from sonorant.core.config import describe
from sonorant.recipes.catalogue import load_recipe, preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a recipe; `sonorant list` has them all")
    parser.add_argument("--preset", default="toy", help="whose values the options show (default: toy)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    recipe = load_recipe(args.name)
    card = recipe.CARD
    sys.stdout.write(f"{card.title} ({card.paper})\n{card.headline}\n\n{inspect.getdoc(cast(object, recipe))}\n\n")
    rows = [
        {
            "option": f"--{field.name.replace('_', '-')}",
            args.preset: field.default,
            "type": field.type,
            "what": field.doc,
        }
        for field in describe(preset(recipe, args.preset))
    ]
    table(rows, f"Options of preset {args.preset}; others: {', '.join(recipe.PRESETS)}")
    table([{"claim": str(claim), "why": claim.why} for claim in recipe.CLAIMS], "Claims")
    return 0
