"""The catalogue of corpora: name → importer, and the two doors to it, `prepare` and `open_corpus`.

Read `CATALOGUE`: our own importers stand there, and every recipe of lhotse comes from the table beside it. An entry's
module is imported when it is asked for.
"""

import importlib
import inspect
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonorant.core.config import content_hash
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.data.corpora import prepared as store
from sonorant.data.corpora.corpus import Card, Corpus, named_splits
from sonorant.data.corpora.lhotse_table import RECIPES, Recipe
from sonorant.data.corpora.options import checked_options

__all__ = ["CATALOGUE", "Entry", "entry_options", "open_corpus", "prepare"]


@dataclass(frozen=True)
class Entry:
    """How a kind of corpus is read."""

    summary: str
    """What it reads, on one line."""
    module: str
    """Module of `sonorant.data.corpora` that holds the reader and `roots`."""
    reader: str
    recipe: Recipe | None = None
    """The line of lhotse's table, for the adapter."""


_OWN: dict[str, Entry] = {
    "pack": Entry("a folder with manifest.jsonl", "pack", "read_pack"),
    "folder": Entry("audio with .txt files, LibriSpeech's trans.txt, or one table", "folder", "read_folder"),
    "csv": Entry("DeepSpeech's tables wav_filename,wav_filesize,transcript", "deepspeech_csv", "read_csv"),
    "kaldi": Entry("Kaldi data directories", "kaldi_folder", "read_kaldi"),
    "timit": Entry("TIMIT and folders laid out like it (LDC93S1)", "timit", "read_timit"),
}

CATALOGUE: dict[str, Entry] = {
    **_OWN,
    **{
        name: Entry(f"lhotse's {recipe.function}", "lhotse_adapter", "read_lhotse", recipe)
        for name, recipe in RECIPES.items()
    },
}


def prepare(name: str, source: str | Path, out: str | Path, *, num_workers: int = 0, **options: Any) -> Corpus:
    """Reads a corpus from its source and writes it as a prepared folder; an up-to-date one is taken as it is.

    Args:
        name: a name of the catalogue.
        source: what the importer reads: a folder; for "csv" tables with commas between; for some recipes several folders.
        out: the prepared folder. Files that a recipe makes itself go beside it, into `OUT.recipe`.
        num_workers: threads or processes of the importer.
        options: its options; see `entry_options`.

    Raises:
        ConfigError: unknown corpus or option, with the nearest name.
        DataError: the source is not as it must be.
    """
    if name not in CATALOGUE:
        raise ConfigError(unknown_name("corpus", name, [*CATALOGUE, *_SPECIAL]))
    entry, out, source = CATALOGUE[name], Path(out), str(source)
    module = importlib.import_module(f"sonorant.data.corpora.{entry.module}")
    reader = getattr(module, entry.reader)
    if entry.recipe is None:
        options = checked_options(f"corpus '{name}'", reader, options, _FILLED)
        build = lambda: reader(source, num_workers=num_workers, **options)  # noqa: E731  the same name as below
    else:
        module.check_options(name, entry.recipe, options)
        work = out.with_name(f"{out.name}.recipe")
        build = lambda: reader(name, entry.recipe, source, work, num_workers=num_workers, **options)  # noqa: E731
    where = {"source": _absolute(source), **options}
    return store.prepared(out, build, kind=name, options=where, roots=lambda: module.roots(source))


def entry_options(name: str) -> dict[str, Any]:
    """Option → default of a corpus of the catalogue; `inspect.Parameter.empty` where it must be given."""
    if name not in CATALOGUE:
        raise ConfigError(unknown_name("corpus", name, [*CATALOGUE, *_SPECIAL]))
    entry = CATALOGUE[name]
    module = importlib.import_module(f"sonorant.data.corpora.{entry.module}")
    if entry.recipe is not None:
        return {**module.options_of(entry.recipe), "items": "utterances"}
    parameters = inspect.signature(getattr(module, entry.reader)).parameters
    return {n: p.default for n, p in parameters.items() if n not in _FILLED}


def open_corpus(spec: str, work_folder: str | Path, *, num_workers: int = 0) -> Corpus:
    """The corpus that a short text names, prepared in the work folder the first time.

    Args:
        spec: `KIND:SOURCE`. `pack:DIR`, `folder:DIR`, `csv:FILE[,FILE…]` (or `csv:train=FILE,dev=FILE`), `kaldi:DIR`,
            `timit:DIR`, `librispeech:DIR` and every other name of the catalogue; `prepared:DIR` for a prepared folder as it
            is; `synthetic` or `synthetic:key=value,…` for the built-in corpus. Options of an importer follow a question
            mark: `pack:DIR?split_by=speaker`.
        work_folder: where prepared corpora are kept, each under a hash of its source and options.
        num_workers: threads or processes for the preparation.

    Raises:
        ConfigError: unknown kind or option, with the nearest name.
        DataError: the source is not as it must be.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "synthetic":
        return _open_synthetic(_pairs(rest, ",", spec), Path(work_folder), num_workers)
    if kind not in CATALOGUE and kind not in _SPECIAL:
        raise ConfigError(unknown_name("corpus", kind, [*CATALOGUE, *_SPECIAL]))
    source, _, query = rest.partition("?")
    if not colon or not source:
        raise ConfigError(f"corpus '{spec}' must name its source: {kind}:FOLDER")
    if kind == "prepared":
        return store.open_prepared(Path(source))
    options = _pairs(query, "&", spec)
    # The source's name is there to be read; the hash tells apart.
    label = "".join(c for c in Path(source.split(",")[0]).stem if c.isalnum() or c in "-_")[:40]
    place = Path(work_folder) / f"{kind}-{label}-{content_hash(_absolute(source), options)}"
    return prepare(kind, source, place, num_workers=num_workers, **options)


# Kinds that are opened and never prepared from a source.
_SPECIAL = ("prepared", "synthetic")
# Arguments of readers that are no options.
_FILLED = ("source", "num_workers")


def _open_synthetic(options: Mapping[str, str], work_folder: Path, num_workers: int) -> Corpus:
    corpus = importlib.import_module("sonorant.data.synthetic.corpus")
    version = importlib.import_module("sonorant.data.synthetic.shards").VERSION
    config = corpus.SyntheticConfig.from_options(options)
    identity = content_hash(config, version)
    place = work_folder / f"synthetic-{identity}"
    # Audio beside the manifests: these are replaced whole, and the audio must not move once they name it.
    audio = place.with_name(f"{place.name}.audio")
    card = Card(
        name="synthetic",
        source="made by eSpeak NG from a seed",
        version=identity,
        licence="made here, free to use",
        languages=tuple(config.languages),
    )

    def build() -> Corpus:
        if place.exists():
            # It was finished once and its audio is no longer what it was; without manifests a stopped run goes on.
            shutil.rmtree(audio, ignore_errors=True)
        return Corpus("synthetic", named_splits(corpus.write_corpus(config, audio, max(1, num_workers))), card)

    def roots() -> list[Path]:
        return [audio] if audio.exists() else []

    where = {"config": config, "version": version, "audio": str(audio.absolute())}
    return store.prepared(place, build, kind="synthetic", options=where, roots=roots, generated=True)


def _pairs(text: str, separator: str, spec: str) -> dict[str, str]:
    """Options `a=1,b=x,y` as a mapping; a part without "=" belongs to the value before it."""
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if equals and name:
            last = name.strip().replace("-", "_")
            pairs[last] = value.strip()
        elif pairs and separator == ",":
            pairs[last] += f",{part.strip()}"
        else:
            raise ConfigError(f"corpus '{spec}': options are key=value, got '{part}'")
    return pairs


def _absolute(source: str) -> str:
    """The source with absolute paths, so that one source has one name from every working directory."""
    parts = []
    for part in source.split(","):
        name, equals, path = part.rpartition("=")
        parts.append(f"{name}{equals}{Path(path).absolute()}")
    return ",".join(parts)
