"""What several verbs share: `--a.b value` as overrides, the options of a run, and tables."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sonorant.core.errors import ConfigError

__all__ = ["add_run_options", "columns", "hot_words", "overrides", "table", "write"]


def overrides(words: Sequence[str]) -> dict[str, str | list[str]]:
    """`["--optim.lr", "1e-3", "--num-layers=6"]` as names and values; an option that is repeated gets a list of them.

    >>> overrides(["--optim.lr", "1e-3", "--skip", "head.*", "--skip=encoder.0.*"])
    {'optim.lr': '1e-3', 'skip': ['head.*', 'encoder.0.*']}
    """
    found: dict[str, str | list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"unexpected '{word}'; an option is written --name value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"option --{name} needs a value: --{name} VALUE")
            value = rest.pop(0)
        name = name.replace("-", "_")
        earlier = found.get(name, [])
        found[name] = [*([earlier] if isinstance(earlier, str) else earlier), value] if earlier else value
    return found


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of every verb that runs recipes."""
    parser.add_argument("--preset", default="toy", help="which of the recipe's configurations (default: toy)")
    parser.add_argument("--config", type=Path, help="YAML file with values that replace the preset's")
    parser.add_argument(
        "--corpus", default="", help="pack:DIR, prepared:DIR, csv:FILE, folder:DIR, kaldi:DIR, synthetic"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/RECIPE-PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that train together on this machine")
    parser.add_argument("--loaders", type=int, default=0, help="processes that load data for each of them")
    parser.add_argument(
        "--resume", choices=["auto", "ignore-config"], default="auto",
        help="ignore-config: trainings go on from where they were though options have changed",
    )  # fmt: skip
    parser.add_argument("--accelerator", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def hot_words(words: Sequence[str]) -> dict[str, float]:
    """`["sonorant=4"]` as word → bonus; a word without a bonus gets 3.

    >>> hot_words(["new york=2.5", "sonorant"])
    {'new york': 2.5, 'sonorant': 3.0}
    """
    found = {}
    for text in words:
        word, equals, bonus = text.partition("=")
        try:
            found[word.strip()] = float(bonus) if equals else 3.0
        except ValueError:
            raise ConfigError(f"--hot-word '{text}': expected WORD=BONUS with a number, such as sonorant=4") from None
    return found


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all columns, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def table(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Prints rows as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    # Piped output is read by programs and editors: give it width, not line breaks in the middle of a path.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
    grid = Table(title=title or None, title_justify="left", header_style="bold")
    names = columns(rows)
    for name in names:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(row.get(name, "")) for name in names))
    console.print(grid)


def write(text: str, path: Path | None = None) -> None:
    """Text to a file, atomically, or to standard output."""
    if path is None:
        sys.stdout.write(text)
        return
    from sonorant.core.files import atomic_write

    with atomic_write(path) as file:
        file.write(text.encode())


def _cell(value: Any) -> str:
    from rich.markup import escape

    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
