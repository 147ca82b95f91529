"""Run a recipe under several seeds and judge its claims; the result is stored as JSON.

sonorant prove conformer_ctc
sonorant prove --all
"""

import argparse
import os
import platform
import shlex
import time
from dataclasses import replace
from pathlib import Path

from sonorant.benchmark.claims import judge, save_result
from sonorant.cli.options import add_run_options, overrides, table
from sonorant.cli.run_verb import claimed_arms, resolve, workspace
from sonorant.core.config import to_plain
from sonorant.core.errors import ConfigError
from sonorant.recipes.catalogue import RECIPES, load_recipe

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a recipe; `sonorant list` has them all")
    parser.add_argument("--all", action="store_true", help="every recipe")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the stored results")
    add_run_options(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if bool(args.name) == args.all:
        raise ConfigError("give one recipe, or --all")
    if args.seeds < 2:
        raise ConfigError(f"--seeds must be at least 2 for an interval, got {args.seeds}")
    held = [_prove(name, args, rest) for name in (sorted(RECIPES) if args.all else [args.name])]
    return 0 if all(held) else 1


def _prove(name: str, args: argparse.Namespace, rest: list[str]) -> bool:
    recipe = load_recipe(name)
    config = resolve(recipe, args.preset, args.config, overrides(rest))
    base = workspace(args, default=Path("runs") / f"prove-{name}-{args.preset}")
    if args.all and args.out:
        base = replace(base, folder=args.out / name)
    runs, start = [], time.perf_counter()
    for seed in range(args.seed, args.seed + args.seeds):
        folder, corpora = base.folder / f"seed-{seed}", base.folder / "corpora"
        work = replace(base, folder=folder, corpora=corpora, seed=seed, arms=claimed_arms(recipe), done=[])
        with work.locked():
            work.write_config(config)
            runs.append({score.name: score for score in recipe.run(config, work)})
    verdicts = [judge(claim, runs) for claim in recipe.CLAIMS]
    if not base.first:
        return True
    save_result(
        args.results / f"{name}.json",
        recipe=name,
        preset=args.preset,
        command=_command(name, args, rest),
        config=config,
        runs=runs,
        verdicts=verdicts,
        seconds=time.perf_counter() - start,
        machine=_machine(),
    )
    table([to_plain(verdict) for verdict in verdicts], f"{recipe.CARD.title}: {args.seeds} seeds, preset {args.preset}")
    return all(verdict.outcome == "holds" for verdict in verdicts)


def _command(name: str, args: argparse.Namespace, rest: list[str]) -> str:
    """What leads to the same result, with every option that has a part in it."""
    words = ["sonorant", "prove", name, "--preset", args.preset, "--seeds", str(args.seeds), "--seed", str(args.seed)]
    words += ["--corpus", args.corpus] if args.corpus else []
    words += ["--config", str(args.config)] if args.config else []
    words += ["--workers", str(args.workers)] if args.workers > 1 else []
    return shlex.join([*words, *rest])


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    return f"{platform.machine()}, {platform.system()}, {device}, Python {platform.python_version()}"
