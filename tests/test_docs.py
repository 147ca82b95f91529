"""The documentation is true: snippets run, the worked diffs apply and pass, links lead somewhere, the pages build."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MADE = ("reference", "generated")  # by docs/make_pages.py
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in MADE)]
DIFFS = ("metric", "encoder", "corpus", "task", "recipe")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in one language. ```python runs here, one page after the other in one namespace; ```py is for what
    cannot run alone: fragments with names that the text around them explains."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- snippets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader would have it: a recording, its transcript, and a trained recogniser (small, untrained here)."""
    from sonorant.audio.io import write_audio
    from sonorant.data.synthetic.corpus import speak
    from sonorant.encoders.conformer import conformer_tiny
    from sonorant.lm.ngram import train_ngram
    from sonorant.tasks.asr.model import CtcRecogniser, FeatureConfig, ctc_config, save_recogniser
    from sonorant.tasks.asr.package import export_recogniser
    from sonorant.text.alphabet import Alphabet

    pytest.importorskip("espeakng_loader", reason="the snippets speak by the extra `synthetic`")
    pytest.importorskip("flashlight", reason="the snippets search by the extra `decode`")
    folder = tmp_path_factory.mktemp("desk")
    said = speak("turn the lamp in the kitchen off", seed=1)
    write_audio(folder / "speech.wav", said.waveform, said.sample_rate)
    (folder / "corpus.txt").write_text("turn the lamp off\nturn the lamp in the kitchen on\nthe box is green\n" * 4)
    train_ngram((folder / "corpus.txt").read_text().splitlines(), 2).save_arpa(folder / "lm.arpa")
    config = ctc_config(FeatureConfig(dim=40, normalise="utterance"), conformer_tiny(num_layers=1, dim=16, ffn_dim=16))
    model = CtcRecogniser(config, Alphabet("|abcdefghijklmnopqrstuvwxyz'")).eval()
    run = folder / "runs" / "conformer_ctc-toy"
    export_recogniser(save_recogniser(model, folder / "checkpoint"), run / "export")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_snippets_run(
    page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    code = blocks(page, "python")
    if "conformer_ctc import" in "".join(code):
        from sonorant.recipes.asr import conformer_ctc

        # The same lines, with the preset of seconds in place of the one of minutes.
        tiny = conformer_ctc.tiny()
        monkeypatch.setattr(conformer_ctc, "toy", lambda: tiny)
    names: dict[str, object] = {"__name__": "__snippet__"}
    for number, block in enumerate(code, start=1):
        exec(compile(block, f"{name_of(page)}, block {number}", "exec"), names)


def test_readme_opens_with_ten_lines_that_run_and_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    assert text.index("```python") < text.index("make demo") < text.index("make test")


# --- diffs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the five worked examples applied one after the other."""
    import shutil

    copy = tmp_path_factory.mktemp("changed")
    forget = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", copy / "src", ignore=forget)
    for name in ("contracts", "encoders", "recipes"):
        shutil.copytree(ROOT / "tests" / name, copy / "tests" / name, ignore=forget)
    for name in ("tests/conftest.py", "tests/shapechecker.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for name in DIFFS:
        diff = "".join(blocks(DOCS / "add" / f"{name}.md", "diff"))
        # One line of context suffices: pages should not break when an entry is added to a catalogue.
        done = subprocess.run(
            ["git", "apply", "-C1"], cwd=copy, input=diff, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"docs/add/{name}.md: {done.stderr}"
    return copy


@pytest.mark.parametrize(
    "tests",
    [
        ["tests/metrics/test_sentence.py", "tests/data/test_stm.py", "tests/tasks/test_keyword.py",
         "tests/encoders/test_catalogue.py::test_every_entry_has_a_case", "tests/encoders/test_tdnn.py",
         "tests/recipes/test_recipes.py::test_every_recipe_keeps_the_contract[bilstm_ctc]"],
    ],
    ids=["all"],
)  # fmt: skip
def test_worked_examples_pass_their_tests(changed: Path, tests: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=changed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# --- links and pages --------------------------------------------------------------------------------------------------


def links() -> Iterator[tuple[Path, str]]:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target and not target.startswith("#"):
                yield page, target.partition("#")[0]


def test_links_between_pages_lead_somewhere() -> None:
    lost = []
    for page, target in links():
        path = (page.parent / target).resolve()
        made = path.is_relative_to(DOCS) and path.relative_to(DOCS).parts[0] in MADE
        if not made and not path.exists():
            lost.append(f"{name_of(page)} → {target}")
    assert not lost


def test_generated_pages_name_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verb, recipe, corpus and module has its place, and a second run gives the same text."""
    from importlib.util import module_from_spec, spec_from_file_location

    from sonorant.cli.main import VERBS
    from sonorant.data.corpora.catalogue import CATALOGUE
    from sonorant.recipes.catalogue import RECIPES

    spec = spec_from_file_location("make_pages", DOCS / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    make = module_from_spec(spec)
    spec.loader.exec_module(make)
    pages = make.pages()
    assert pages == make.pages()
    for page, names in (("cli", VERBS), ("systems", RECIPES)):
        assert all(f"\n## {name}\n" in pages[f"generated/{page}.md"] for name in names)
    assert all(f"`{name}`" in pages["generated/corpora.md"] for name in CATALOGUE)
    listed = {line[4:] for text in pages.values() for line in text.splitlines() if line.startswith("::: ")}
    files = (ROOT / "src").rglob("*.py")
    public = {
        p.relative_to(ROOT / "src").with_suffix("").as_posix().replace("/", ".") for p in files if p.stem[0] != "_"
    }
    assert listed == public
    assert all(f"decisions/{path.name}" in pages["generated/decisions.md"] for path in DOCS.glob("decisions/*.md"))
