"""The catalogue: its table of lhotse's recipes fits the installed lhotse, and the adapter reads what they give."""

import gzip
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path

import lhotse.recipes
import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from sonorant.core.errors import ConfigError, DataError
from sonorant.data.corpora import lhotse_adapter
from sonorant.data.corpora.catalogue import CATALOGUE, entry_options, open_corpus, prepare
from sonorant.data.corpora.corpus import text_of
from sonorant.data.corpora.lhotse_table import INTERNAL, RECIPES, Recipe
from sonorant.data.corpora.options import from_text


def recipe_functions() -> dict[tuple[str, str], object]:
    """(module, function) of everything in lhotse that prepares something."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in pkgutil.iter_modules(lhotse.recipes.__path__):
            module = importlib.import_module(f"lhotse.recipes.{info.name}")
            for name, function in vars(module).items():
                own = inspect.isfunction(function) and function.__module__ == module.__name__
                if own and name.startswith("prepare_"):
                    found[info.name, name] = function
    return found


FUNCTIONS = recipe_functions()


@pytest.mark.parametrize("name", RECIPES)
def test_each_line_of_the_table_fits_lhotse(name: str) -> None:
    recipe = RECIPES[name]
    assert (recipe.module, recipe.function) in FUNCTIONS
    parameters = inspect.signature(FUNCTIONS[recipe.module, recipe.function]).parameters
    assert recipe.source in parameters
    assert recipe.output in parameters
    filled = {recipe.source, recipe.output, "num_jobs", "nj"}
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.name not in filled]
    assert sorted(needed) == sorted(recipe.needs)
    if recipe.manifests:
        assert recipe.manifests in parameters
    assert "List" in str(parameters[recipe.source].annotation) or not recipe.many
    assert CATALOGUE[name].recipe == recipe
    assert set(recipe.needs) <= set(entry_options(name))


def test_no_recipe_of_lhotse_is_missing() -> None:
    table = {(recipe.module, recipe.function) for recipe in RECIPES.values()}
    assert set(FUNCTIONS) - table - INTERNAL == set()
    assert set(FUNCTIONS) >= INTERNAL, "a name in INTERNAL is no longer there"
    assert not table & INTERNAL
    exported = {name for name in lhotse.recipes.__all__ if name.startswith("prepare_")}
    assert exported <= {function for _, function in table}
    assert len(RECIPES) > 100


def test_entries_lead_to_readers() -> None:
    for name, entry in CATALOGUE.items():
        module = importlib.import_module(f"sonorant.data.corpora.{entry.module}")
        assert callable(getattr(module, entry.reader)), name
        assert callable(module.roots), name
        assert entry.summary


def test_the_table_costs_no_import() -> None:
    code = "import sys, sonorant.data.corpora.lhotse_table; print('lhotse' in sys.modules, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]


# --- real recipes on small sources ------------------------------------------------------------------------------------


def tone(path: Path, seconds: float = 1.0, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(round(seconds * rate)) / 7), rate)


def librispeech(folder: Path) -> Path:
    for part, speaker in (("train-clean-100", "19"), ("dev-clean", "84")):
        chapter = folder / part / speaker / "7"
        tone(chapter / f"{speaker}-7-0000.flac")
        tone(chapter / f"{speaker}-7-0001.flac", 0.5)
        (chapter / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 ONE\n{speaker}-7-0001 TWO\n")
    return folder


def test_librispeech(tmp_path: Path) -> None:
    corpus = open_corpus(f"librispeech:{librispeech(tmp_path / 'LibriSpeech')}?normalize_text=lower", tmp_path / "work")
    assert {n: (s.num_items, s.seconds, s.num_speakers) for n, s in corpus.summary.items()} == {
        "train-clean-100": (2, 1.5, 1),
        "dev-clean": (2, 1.5, 1),
    }
    assert [text_of(cut) for cut in corpus.split("dev-clean")] == ["one", "two"]
    assert corpus.card.licence == "CC BY 4.0"
    assert corpus.split("dev-clean")[0].load_audio().shape == (1, 16000)


def test_librispeech_and_our_folder_agree(tmp_path: Path) -> None:
    source = librispeech(tmp_path / "LibriSpeech")
    theirs = prepare("librispeech", source, tmp_path / "a")
    ours = prepare("folder", source, tmp_path / "b")
    assert theirs.summary == ours.summary
    for name in ours.splits:
        assert [(c.id, text_of(c), c.duration) for c in sorted(theirs.split(name), key=lambda c: c.id)] == [
            (c.id, text_of(c), c.duration) for c in ours.split(name)
        ]


def test_yesno_and_ljspeech(tmp_path: Path) -> None:
    tone(tmp_path / "waves_yesno" / "0_0_0_0_0_0_0_0.wav", rate=8000)
    with pytest.raises(DataError, match=r"assert len\(wave_files\) == 60"):
        prepare("yesno", tmp_path / "waves_yesno", tmp_path / "yesno")
    for index in range(60):
        tone(tmp_path / "waves_yesno" / f"{'_'.join(f'{index:08b}')}.wav", rate=8000)
    yesno = prepare("yesno", tmp_path / "waves_yesno", tmp_path / "yesno")
    assert {name: size.num_items for name, size in yesno.summary.items()} == {"train": 30, "test": 30}
    assert text_of(yesno.split("train")[0]).split().count("NO") >= 2
    tone(tmp_path / "LJ" / "wavs" / "LJ001-0001.wav")
    (tmp_path / "LJ" / "metadata.csv").write_text("LJ001-0001|Two|Two\n")
    lj = prepare("ljspeech", tmp_path / "LJ", tmp_path / "lj")
    assert [text_of(cut) for cut in lj.split("all")] == ["Two"]


def test_a_recipe_that_gives_nothing_back(tmp_path: Path) -> None:
    for part in ("dev", "tst-COMMON", "tst-HE", "train"):
        folder = tmp_path / "en-de" / "data" / part
        tone(folder / "wav" / "ted_1.wav", 3.0)
        (folder / "txt").mkdir()
        (folder / "txt" / f"{part}.de").write_text("Eins zwei\nDrei\n")
        lines = [
            f"- {{duration: 1.0, offset: {start}, rW: 2, uW: 0, speaker_id: spk.1, wav: ted_1.wav}}\n"
            for start in (0.5, 1.75)
        ]
        (folder / "txt" / f"{part}.yaml").write_text("".join(lines))
    corpus = prepare("must_c", tmp_path, tmp_path.parent / f"{tmp_path.name}-out", tgt_lang="de")
    assert {name.split("_")[-1] for name in corpus.splits} == {"train", "dev", "tst-COMMON", "tst-HE"}
    cuts = next(iter(corpus.splits.values()))
    assert [(cut.start, cut.duration, text_of(cut)) for cut in cuts] == [(0.5, 1.0, "Eins zwei"), (1.75, 1.0, "Drei")]


def test_options_of_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'must_c' needs the option tgt_lang"):
        prepare("must_c", tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean 'normalize_text'"):
        prepare("librispeech", tmp_path, tmp_path / "out", normalise_text="lower")
    with pytest.raises(ConfigError, match="items: unknown value 'words'"):
        prepare("librispeech", librispeech(tmp_path / "L"), tmp_path / "out", items="words")
    with pytest.raises(DataError, match="is it the folder the corpus was unpacked to"):
        prepare("librispeech", tmp_path / "L" / "dev-clean", tmp_path / "out")


def test_a_newer_lhotse_without_the_function(tmp_path: Path) -> None:
    gone = Recipe("librispeech", "prepare_something_else")
    with pytest.raises(DataError, match="has no librispeech.prepare_something_else"):
        lhotse_adapter.read_lhotse("x", gone, str(tmp_path), tmp_path / "work")


# --- what recipes give back -------------------------------------------------------------------------------------------


def manifests(folder: Path, name: str = "r", turns: int = 1) -> tuple[RecordingSet, SupervisionSet]:
    tone(folder / f"{name}.wav", 2.0)
    recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
    parts = [
        SupervisionSegment(f"{name}-{i}", name, i * 2.0 / turns, 2.0 / turns, text=f"t{i}", speaker=f"s{i}")
        for i in range(turns)
    ]
    return RecordingSet.from_recordings([recording]), SupervisionSet.from_segments(parts)


def splits_of(monkeypatch: pytest.MonkeyPatch, folder: Path, result: object, **options: object) -> dict[str, list[str]]:
    """Split → ids of its cuts, where a recipe gives `result` back."""

    def prepare_made(corpus_dir: str, output_dir: str | None = None) -> object:
        return result

    monkeypatch.setattr(lhotse_adapter, "_function", lambda recipe: prepare_made)
    corpus = lhotse_adapter.read_lhotse("made", Recipe("made", "prepare_made"), str(folder), folder / "work", **options)
    return {name: [cut.id for cut in cuts] for name, cuts in corpus.splits.items()}


def test_all_shapes_of_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recordings, supervisions = manifests(tmp_path)
    leaf = {"recordings": recordings, "supervisions": supervisions}
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    shapes = {
        "no split": (leaf, {"all": ["r-0"]}),
        "splits": ({"dev": leaf, "train": leaf}, {"train": ["r-0"], "dev": ["r-0"]}),
        "languages": ({"en": {"train": leaf}, "de": {"train": leaf}}, {"en-train": ["r-0"], "de-train": ["r-0"]}),
        "a pair": ((recordings, supervisions), {"all": ["r-0"]}),
        "cuts": (cuts, {"all": ["r-0"]}),
        "cuts in splits": ({"test": {"cuts": cuts}}, {"test": ["r-0"]}),
        "several cut sets": ({"trials": [cuts, cuts]}, {"trials-0": ["r-0"], "trials-1": ["r-0"]}),
        "recordings only": ({"noise": {"recordings": recordings}}, {"noise": ["r"]}),
        "shows and utterances": ({**leaf, "sections": supervisions, "segments": supervisions}, {"all": ["r-0"]}),
    }  # fmt: skip
    for what, (result, expected) in shapes.items():
        assert splits_of(monkeypatch, tmp_path, result) == expected, what


def test_long_recordings_become_utterances(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recordings, supervisions = manifests(tmp_path, turns=4)
    result = {"recordings": recordings, "supervisions": supervisions}
    assert splits_of(monkeypatch, tmp_path, result) == {"all": ["r-0", "r-1", "r-2", "r-3"]}
    assert splits_of(monkeypatch, tmp_path, result, items="recordings") == {"all": ["r"]}


def test_supervisions_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recordings, supervisions = manifests(tmp_path, turns=2)
    parts = [*supervisions, SupervisionSegment("late", "r", 5.0, 1.0), SupervisionSegment("lost", "gone", 0.0, 1.0),
             SupervisionSegment("long", "r", 1.5, 9.0, text="x")]  # fmt: skip
    monkeypatch.setattr(
        lhotse_adapter,
        "_function",
        lambda recipe: lambda corpus_dir, output_dir: (recordings, SupervisionSet.from_segments(parts)),
    )
    corpus = lhotse_adapter.read_lhotse("made", Recipe("made", "f"), str(tmp_path), tmp_path / "work")
    assert [(cut.id, cut.end) for cut in corpus.split("all")] == [("r-0", 1.0), ("r-1", 2.0), ("long", 2.0)]
    assert [(f.id, f.reason, f.dropped) for f in corpus.faults] == [
        ("late", "segment past the end", True), ("lost", "no audio", True),
    ]  # fmt: skip


def test_text_becomes_what_the_signature_asks_for() -> None:
    from collections.abc import Sequence

    assert from_text("parts", "dev", str | Sequence[str]) == "dev"
    assert from_text("parts", "dev,test", str | Sequence[str]) == ["dev", "test"]
    assert from_text("parts", "dev", Sequence[str]) == ["dev"]
    assert from_text("count", "80", int | None, None) == 80
    assert from_text("seconds", "0.5", float) == 0.5
    assert from_text("flag", "TRUE", bool | None) is True
    assert from_text("folder", "/a", Path | str) == Path("/a")
    assert from_text("count", 7, int) == 7
    with pytest.raises(ConfigError, match="count must be a number"):
        from_text("count", "many", int)


# --- the built-in corpus ----------------------------------------------------------------------------------------------


def test_the_built_in_corpus(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    spec = "synthetic:train=6,dev=2,test=2,languages=en,fr"
    first = open_corpus(spec, tmp_path)
    assert {name: size.num_items for name, size in first.summary.items()} == {"train": 6, "dev": 2, "test": 2}
    assert first.card.languages == ("en", "fr")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."}
    again = open_corpus(spec, tmp_path)
    assert [c.to_dict() for c in again.split("train")] == [c.to_dict() for c in first.split("train")]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing is made twice"
    assert open_corpus("synthetic:train=7,dev=2,test=2,languages=en,fr", tmp_path).summary["train"].num_items == 7
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        open_corpus("synthetic:trian=7", tmp_path)


def test_lost_audio_of_the_built_in_corpus_is_made_again(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    spec = "synthetic:train=2,dev=1,test=1"
    first = open_corpus(spec, tmp_path).split("train")[0].load_audio()
    audio = next(tmp_path.rglob("*.flac"))
    whole = audio.read_bytes()
    audio.write_bytes(whole[:100])
    again = open_corpus(spec, tmp_path).split("train")[0].load_audio()
    np.testing.assert_array_equal(again, first)
    assert audio.read_bytes() == whole
    with gzip.open(next(tmp_path.glob("synthetic-*/cuts.train.*")), "rt") as lines:
        assert json.loads(next(iter(lines)))["recording"]["sources"][0]["type"] == "file"
