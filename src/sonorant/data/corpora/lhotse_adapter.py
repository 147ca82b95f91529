"""Every recipe of lhotse behind one call: its arguments filled in, and whatever it gives back made into splits of cuts.

The recipes differ in three ways, and each is dealt with once. Arguments: the table says which takes the source, the
signature says which options there are. Results: `{split: {"recordings", "supervisions"}}`, the same without splits, nested
once more (by language), a pair, cut sets, or nothing but files; `_leaves` walks through all of them. Cuts: long recordings
with many supervisions become one cut an utterance, unless whole recordings are asked for.
"""

import importlib
import inspect
import logging
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_type_hints

from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.cut import Cut, MonoCut, MultiCut

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.data.corpora.corpus import Card, Corpus, Fault, named_splits
from sonorant.data.corpora.lhotse_table import Recipe
from sonorant.data.corpora.options import from_text

__all__ = ["check_options", "options_of", "read_lhotse", "roots"]

_log = logging.getLogger(__name__)


def roots(source: str) -> list[Path]:
    """What the corpus is made of."""
    return [Path(part) for part in source.split(",")]


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Name → default of each option of a recipe; `inspect.Parameter.empty` where it must be given."""
    filled = {recipe.source, recipe.output, "num_jobs", "nj"}
    return {n: p.default for n, p in inspect.signature(_function(recipe)).parameters.items() if n not in filled}


def check_options(name: str, recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Refuses an option that the recipe does not have, and the absence of one that it needs."""
    known = {**options_of(recipe), "items": "utterances"}
    for option in options:
        if option not in known:
            raise ConfigError(f"corpus '{name}': {unknown_name('option', option, known)}")
    one_of("items", options.get("items", "utterances"), ("utterances", "recordings"))
    absent = [n for n, default in known.items() if default is inspect.Parameter.empty and n not in options]
    if absent:
        raise ConfigError(f"corpus '{name}' needs the option{'s' * (len(absent) > 1)} {', '.join(absent)}")


def read_lhotse(
    name: str,
    recipe: Recipe,
    source: str,
    work: Path,
    *,
    items: Literal["utterances", "recordings"] = "utterances",
    num_workers: int = 0,
    **options: Any,
) -> Corpus:
    """Runs a recipe.

    Args:
        name: the corpus' name.
        recipe: its line of the table.
        source: folder (or file) of the corpus as its owner distributes it.
        work: folder for the recipe's own files; emptied first, since recipes take over what an earlier, perhaps broken, run
            left there. Audio that a recipe writes there must stay.
        items: one cut for each supervision, or one for each recording with all of its supervisions.
        num_workers: processes, where the recipe can use them.
        options: further arguments of the recipe, as values or as text.

    Raises:
        ConfigError: an unknown option, or one that must be given is absent.
        DataError: the recipe does not find what it looks for, or gives no cut.
    """
    function = _function(recipe)
    arguments = _arguments(name, recipe, function, source, work, num_workers, options)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    result = _run(name, function, arguments, source)
    if result is None:
        extra = arguments.get(recipe.manifests) if recipe.manifests else None
        result = _from_disk([work, *([Path(extra)] if extra else [])])
    faults: list[Fault] = []
    splits: dict[str, list[Cut]] = {}
    for split, leaf in _leaves("", result):
        cuts = _cuts(split or "all", leaf, items, faults)
        if cuts:
            splits.setdefault(split or "all", []).extend(cuts)
    languages = sorted({s.language for cuts in splits.values() for cut in cuts for s in cut.supervisions if s.language})
    card = Card(
        name=name,
        source=str(Path(source.split(",")[0]).absolute()),
        version="",
        licence=recipe.licence,
        languages=tuple(languages),
        notes=(f"read by lhotse {importlib.import_module('lhotse').__version__}, {recipe.function}",),
    )
    return Corpus(name, named_splits(splits), card, tuple(faults))


def _function(recipe: Recipe) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some recipes hold invalid escapes, which Python 3.12 speaks up about
        module = importlib.import_module(f"lhotse.recipes.{recipe.module}")
    function = getattr(module, recipe.function, None)
    if function is None:
        raise DataError(f"the installed lhotse has no {recipe.module}.{recipe.function}; update lhotse or sonorant")
    return function


# --- arguments --------------------------------------------------------------------------------------------------------


def _arguments(
    name: str,
    recipe: Recipe,
    function: Callable[..., Any],
    source: str,
    work: Path,
    num_workers: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    check_options(name, recipe, options)
    parameters = inspect.signature(function).parameters
    known = options_of(recipe)
    hints = get_type_hints(function)
    arguments: dict[str, Any] = {n: from_text(n, v, hints.get(n, Any), known[n]) for n, v in options.items()}
    paths = [Path(part) for part in source.split(",")] if recipe.many else Path(source)
    arguments |= {recipe.source: paths, recipe.output: work}
    jobs = next((n for n in ("num_jobs", "nj") if n in parameters), None)
    if jobs:
        arguments[jobs] = max(1, num_workers)
    return arguments


def _run(name: str, function: Callable[..., Any], arguments: Mapping[str, Any], source: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            return function(**arguments)
    except (AssertionError, OSError, LookupError, ValueError, AttributeError) as error:
        # Many recipes only assert; the line then says what they looked for.
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        raise DataError(
            f"corpus '{name}': lhotse's {function.__name__} could not read {source} "
            f"({type(error).__name__}: {str(error) or line}); is it the folder the corpus was unpacked to?"
        ) from error


# --- results ----------------------------------------------------------------------------------------------------------

_Leaf: TypeAlias = CutSet | tuple[RecordingSet | None, SupervisionSet | None]


def _leaves(name: str, value: Any) -> Iterator[tuple[str, _Leaf]]:
    """Split and content of each part of a recipe's result; names of nested parts are joined by a dash."""
    if isinstance(value, CutSet):
        yield name, value
    elif isinstance(value, RecordingSet):
        yield name, (value, None)
    elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], RecordingSet):
        yield name, (value[0], value[1])
    elif isinstance(value, Mapping):
        recordings = value.get("recordings")
        # Broadcast News calls its utterances "segments" and its shows "sections".
        spoken = (value.get(key) for key in ("supervisions", "segments"))
        supervisions = next((item for item in spoken if isinstance(item, SupervisionSet)), None)
        if isinstance(recordings, RecordingSet):
            yield name, (recordings, supervisions)
        for key, part in value.items():
            if not isinstance(part, RecordingSet | SupervisionSet):
                yield from _leaves(name if key == "cuts" else _join(name, key), part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _leaves(_join(name, index), part)


def _join(name: str, key: Any) -> str:
    return f"{name}-{key}" if name else str(key)


def _cuts(split: str, leaf: _Leaf, items: str, faults: list[Fault]) -> list[Cut]:
    if isinstance(leaf, CutSet):
        cuts = leaf
    else:
        recordings, supervisions = leaf
        if recordings is None or not len(recordings):
            return []
        if supervisions is not None:
            recordings, supervisions = _fitting(split, recordings, supervisions, faults)
        cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    if items == "recordings":
        return _named(list(cuts), [_recording_id(cut) for cut in cuts])
    parts = [part for cut in cuts for part in _utterances(cut)]
    return _named(parts, [str(p.supervisions[0].id) if len(p.supervisions) == 1 else _recording_id(p) for p in parts])


def _utterances(cut: Cut) -> Iterable[Cut]:
    if not cut.supervisions:
        return [cut]
    if len(cut.supervisions) == 1 and abs(cut.supervisions[0].duration - cut.duration) < 1e-3:
        return [cut]
    return cut.trim_to_supervisions(keep_overlapping=False)


def _recording_id(cut: Cut) -> str:
    return cut.recording.id if isinstance(cut, MonoCut | MultiCut) and cut.has_recording else cut.id


def _named(cuts: list[Cut], ids: list[str]) -> list[Cut]:
    """Cuts under the source's own ids, where these are unique; lhotse would number them in order of the files."""
    counts = Counter(ids)
    return [cut.with_id(id) if counts[id] == 1 else cut for cut, id in zip(cuts, ids, strict=True)]


def _fitting(
    split: str, recordings: RecordingSet, supervisions: SupervisionSet, faults: list[Fault]
) -> tuple[RecordingSet, SupervisionSet]:
    """Supervisions cut to their recordings; what lies outside, or has no recording, is left out and named."""
    lengths = {item.id: item.duration for item in recordings}
    kept = []
    for item in supervisions:
        item.id = str(item.id)
        length = lengths.get(item.recording_id)
        if length is None:
            faults.append(Fault(split, item.id, "no audio", f"recording '{item.recording_id}'", dropped=True))
        elif item.start >= length or item.duration <= 0:
            where = f"{item.start:.3f} s for {item.duration:.3f} s of {length:.3f} s"
            faults.append(Fault(split, item.id, "segment past the end", where, dropped=True))
        else:
            kept.append(item.trim(length) if item.start < 0 or item.end > length else item)
    return recordings, SupervisionSet.from_segments(kept)


def _from_disk(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What a recipe wrote, where it gives nothing back: `PREFIX_recordings_PART.jsonl.gz` and supervisions alike."""
    found: dict[str, dict[str, Any]] = {}
    for folder in reversed(folders):  # the recipe's own files go before those it was given
        for kind, read in (("recordings", RecordingSet), ("supervisions", SupervisionSet)):
            for file in sorted(folder.glob(f"*{kind}_*.jsonl.gz")):
                part = file.name.split(f"{kind}_", 1)[1].removesuffix(".jsonl.gz")
                found.setdefault(part, {})[kind] = read.from_file(file)
    return {part: leaf for part, leaf in found.items() if "recordings" in leaf}
