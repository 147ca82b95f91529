"""Writes the pages that are made from the code and from stored results: the reference, the command line, and the tables.

    python docs/make_pages.py

What comes out depends on the sources, `results/*.json` and `bench/README.md` alone: a second run changes nothing. Everything
lands in `docs/reference/` and `docs/generated/`, which git ignores. `docs/nav.py` puts the pages into the site's navigation.
"""

import ast
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGE = ROOT / "src" / "sonorant"
os.environ["COLUMNS"] = "110"  # argparse asks for the terminal's width, which the page must not depend on
sys.path.insert(0, str(ROOT / "src"))


def pages() -> dict[str, str]:
    """Path below docs → text, of every page."""
    return {**reference(), **command_line(), **recipes(), **corpora(), **benches(), **decisions()}


def main() -> None:
    """Writes all pages anew."""
    made = pages()
    for folder in ("reference", "generated"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    for name, text in made.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip() + "\n", encoding="utf-8")


# --- the reference ----------------------------------------------------------------------------------------------------


def floors() -> list[list[str]]:
    """Packages level by level, from the bottom up, as the import contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[name.strip() for name in layer.split("|")] for layer in reversed(layers)]


def reference() -> dict[str, str]:
    """One page for each package that holds modules, and the index of all levels."""
    index = ["# Reference", "", "Built from the docstrings, one page a package, from the bottom of the house up.", ""]
    found: dict[str, str] = {}
    for level, names in enumerate(floors()):
        rows = []
        for folder in (folder for name in names for folder in packages(PACKAGE / name)):
            dotted = folder.relative_to(PACKAGE.parent).as_posix().replace("/", ".")
            page = f"reference/{dotted.removeprefix('sonorant.')}.md"
            found[page] = package_page(dotted, folder)
            rows.append(f"| [`{dotted}`]({Path(page).name}) | {first_line(folder / '__init__.py')} |")
        if rows:
            index += [f"## Level {level}", "", "| package | holds |", "|---|---|", *rows, ""]
    return {"reference/index.md": "\n".join(index), **found}


def packages(folder: Path) -> list[Path]:
    """The folder and those within it, as far as they hold modules."""
    found = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return [path for path in found if path.is_dir() and modules(path)]


def modules(folder: Path) -> list[Path]:
    """Public modules of a folder."""
    return [file for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]


def package_page(dotted: str, folder: Path) -> str:
    """The directives for every module of one package."""
    lines = [f"# {dotted}", "", first_line(folder / "__init__.py"), ""]
    for file in modules(folder):
        lines += [f"::: {dotted}.{file.stem}", ""]
    return "\n".join(lines)


def first_line(file: Path) -> str:
    """What a module's docstring begins with."""
    if not file.is_file():
        return ""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.sub(r"^Level \d: ", "", text.split("\n\n")[0].replace("\n", " "))


# --- the command line -------------------------------------------------------------------------------------------------


def command_line() -> dict[str, str]:
    """What `sonorant --help` and `sonorant VERB --help` say."""
    from sonorant.cli.main import VERBS, help_text, verb_parser

    lines = [
        "# Command line", "", "Made from the programs' own help.", "", *fence(help_text()),
        "Exit status: 0, or 1 for an error that a user can mend (one line says which), 2 for wrong usage, 128 + n where",
        "signal n stopped it (130 for Ctrl-C).",
        "`SONORANT_LOG=debug` says more, `SONORANT_LOG=warning` less.", "",
    ]  # fmt: skip
    for verb, summary in VERBS.items():
        lines += [f"## {verb}", "", f"{sentence(summary)}", "", *fence(verb_parser(verb).format_help())]
    return {"generated/cli.md": "\n".join(lines)}


def fence(text: str, language: str = "text") -> list[str]:
    """A block of code."""
    return [f"```{language}", text.rstrip(), "```", ""]


def sentence(text: str) -> str:
    """With a capital and a full stop; what follows a colon as code."""
    head, colon, tail = text.partition(": sonorant ")
    shown = f"{head}: `sonorant {tail}`" if colon else head
    return f"{shown[0].upper()}{shown[1:]}."


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipes() -> dict[str, str]:
    """The table of systems, then each with its presets, claims and last verdicts."""
    from sonorant.benchmark.claims import load_result
    from sonorant.recipes.catalogue import RECIPES, load_recipe

    found = {name: (load_recipe(name), load_result(ROOT / "results" / f"{name}.json")) for name in sorted(RECIPES)}
    rows = [
        {
            "recipe": f"[`{name}`](#{name})",
            "system": recipe.CARD.title,
            "family": recipe.CARD.family,
            "source": paper(recipe.CARD.paper),
            "what the source reports": recipe.CARD.headline,
            "claims here": held(result),
        }
        for name, (recipe, result) in found.items()
    ]
    lines = [
        "# Systems", "",
        "Made from the recipes' cards and from what `sonorant prove` stored in `results/`. A claim that does not hold "
        "is shown as such; one that was never tried says so. [What a recipe is](../recipes.md).", "", *table(rows),
    ]  # fmt: skip
    for name, (recipe, result) in found.items():
        lines += recipe_section(name, recipe, result)
    return {"generated/systems.md": "\n".join(lines)}


def held(result: Mapping[str, Any] | None) -> str:
    """How many claims hold."""
    if result is None:
        return "not proved yet"
    outcomes = [verdict["outcome"] for verdict in result["verdicts"]]
    return f"{outcomes.count('holds')} of {len(outcomes)} hold (`{result['preset']}`)"


def recipe_section(name: str, recipe: Any, result: Mapping[str, Any] | None) -> list[str]:
    """One recipe."""
    presets = [{"preset": f"`{key}`", "what": one_line(make.__doc__)} for key, make in recipe.PRESETS.items()]
    verdicts = {verdict["claim"]: verdict for verdict in (result or {}).get("verdicts", ())}
    claims = [{"claim": f"`{claim}`", "why": claim.why, **verdict(verdicts.get(str(claim)))} for claim in recipe.CLAIMS]
    lines = [f"## {name}", "", linked(recipe.__doc__.strip()), "", *table(presets), *table(claims)]
    if result is not None:
        lines += [
            f"Proved {result['date']} by `{result['command']}` in {result['seconds']:.0f} s, commit {result['commit']}, "
            f"{result['machine']}.", "", *table(arms(result["runs"])),
        ]  # fmt: skip
    return lines


def verdict(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What several seeds said of a claim."""
    if found is None:
        return {"verdict": "not proved yet", "difference (95 % interval)": ""}
    figures = f"{found['difference']:+.3g} ({found['low']:+.3g} to {found['high']:+.3g}), {found['num_seeds']} seeds"
    return {"verdict": f"**{found['outcome']}**", "difference (95 % interval)": figures}


def arms(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Each score with its value under every seed."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for score in run:
            values.setdefault(score["name"], []).append(score["value"])
    return [{"score": f"`{name}`", "by seed": ", ".join(f"{v:.4g}" for v in seeds)} for name, seeds in values.items()]


def paper(source: str) -> str:
    """A link where the source is an arXiv id or an address."""
    return f"[{source}]({source})" if source.startswith("http") else linked(source)


def linked(text: str) -> str:
    """arXiv ids as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def one_line(text: str | None) -> str:
    """The first paragraph of a docstring."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as Markdown; columns in order of first appearance."""
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body, ""]


def cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


# --- corpora, benches and decisions -----------------------------------------------------------------------------------


def corpora() -> dict[str, str]:
    """Every corpus that can be read, with the options of its importer."""
    from sonorant.data.corpora.catalogue import CATALOGUE

    rows = [{"corpus": f"`{name}`", "reads": entry.summary} for name, entry in sorted(CATALOGUE.items())]
    lines = [
        "# Corpora that can be read", "",
        f"`sonorant prepare --list` prints the same {len(rows)} names; `sonorant prepare NAME --options` the options of one. "
        "[How corpora are opened, prepared and checked](../data.md).", "", *table(rows),
    ]  # fmt: skip
    return {"generated/corpora.md": "\n".join(lines)}


def benches() -> dict[str, str]:
    """`bench/README.md`, without its links within the page: headings get other anchors here."""
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    return {"generated/benches.md": re.sub(r"\[([^\]\n]*)\]\(#[^)\n]*\)", r"\1", text)}


def decisions() -> dict[str, str]:
    """The titles of `docs/decisions/*.md`."""
    lines = ["# Decisions", "", "Why things are as they are, half a page each, with what was measured.", ""]
    for file in sorted((DOCS / "decisions").glob("*.md")):
        title = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}](../decisions/{file.name})")
    return {"generated/decisions.md": "\n".join(lines)}


if __name__ == "__main__":
    main()
