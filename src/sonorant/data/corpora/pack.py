"""Packs: a folder with `manifest.jsonl` (one JSON object a line) and the audio it names.

Every line has `id`, `audio` (path inside the pack), `duration` in seconds, `sample_rate` in Hz, `text`, `language`,
`speaker`, `split`; unknown values are null. What else a line holds is kept in the supervision's `custom`
(`corpus.extra` finds it).
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lhotse import SupervisionSegment
from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from sonorant.core.errors import DataError, unknown_name
from sonorant.data.corpora.audio_files import Header, alignment, read_headers, whole_file_cut
from sonorant.data.corpora.corpus import Card, Corpus, Fault, named_splits, unreadable

__all__ = ["read_pack", "roots"]

_COMMON = frozenset({"id", "audio", "duration", "sample_rate", "text", "language", "speaker", "gender"})
_ALIGNMENTS = {"word_alignment": "word", "phone_alignment": "phone"}
# A manifest says its durations to four places.
_DURATION_TOLERANCE = 0.01


def roots(source: str) -> list[Path]:
    """What the corpus is made of."""
    return [Path(source)]


def read_pack(source: str, *, split_by: str = "auto", num_workers: int = 0) -> Corpus:
    """Reads a pack.

    Args:
        source: the pack's folder.
        split_by: the field that names an item's split. "auto" takes `subset` where the pack has it, else `split`: where
            both stand, `split` is the source's official division and `subset` a finer one, with a development part taken
            out of the training part. Items whose field is null come into the split "all". Any other field will do, such as
            "speaker" or "fold", one split for each value.
        num_workers: threads that read headers.

    Raises:
        DataError: no manifest there, a line that is not as it must be (with its number), or no line has that field.
    """
    folder = Path(source)
    lines = _read_lines(folder / "manifest.jsonl")
    field = _split_field(lines, split_by, folder)
    paths = [_inside(folder, line) for line in lines]
    headers = read_headers(paths, num_workers)
    splits: dict[str, list[Cut]] = {}
    faults: list[Fault] = []
    for line, path, header in zip(lines, paths, headers, strict=True):
        value = line.get(field)
        split = "all" if value is None else str(value)
        if isinstance(header, DataError):
            faults.append(unreadable(split, line["id"], header))
            continue
        try:
            faults += _disagreements(split, line, header)
            cut = _cut(folder, path, line, header)
        except (TypeError, ValueError) as error:
            raise DataError(f"{folder}, item '{line['id']}': a field is not what it must be ({error})") from None
        splits.setdefault(split, []).append(cut)
    return Corpus(
        folder.resolve().name,
        named_splits(splits),
        _card(folder, lines, field),
        tuple(faults),
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"no manifest at {path}; a pack is a folder with manifest.jsonl")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} line {number} is not JSON: {error}") from None
        absent = [name for name in ("id", "audio") if not isinstance(line, dict) or not line.get(name)]
        if absent:
            raise DataError(f"{path} line {number} must have {' and '.join(absent)}, got {text[:80]}")
        lines.append({**line, "id": str(line["id"])})
    return lines


def _inside(folder: Path, line: Mapping[str, Any]) -> Path:
    """Where an item's audio lies. A pack comes from elsewhere: it may not name files of this machine."""
    name = line["audio"]
    if not isinstance(name, str) or not _stays_inside(name):
        raise DataError(f"{folder}, item '{line['id']}': `audio` must be a path inside the pack, got {name!r}")
    return folder / name


def _stays_inside(name: str) -> bool:
    return not os.path.isabs(name) and os.path.normpath(name).split(os.sep)[0] != os.pardir


def _split_field(lines: list[dict[str, Any]], split_by: str, folder: Path) -> str:
    known = {name for line in lines for name in line}
    if split_by == "auto":
        return "subset" if "subset" in known else "split"
    if split_by not in known:
        raise DataError(f"split_by for {folder}: {unknown_name('field', split_by, known)}")
    return split_by


def _cut(folder: Path, path: Path, line: Mapping[str, Any], header: Header) -> Cut:
    custom = {k: _absolute(folder, v) for k, v in line.items() if k not in _COMMON and k not in _ALIGNMENTS}
    alignments: dict[str, list[AlignmentItem]] = {}
    for field, kind in _ALIGNMENTS.items():
        if line.get(field):
            alignments[kind] = alignment((str(label), start, end) for label, start, end in line[field])
    cut = whole_file_cut(
        line["id"],
        path,
        header,
        text=line.get("text"),
        speaker=_text(line.get("speaker")),
        language=line.get("language"),
        gender=line.get("gender"),
        custom={k: v for k, v in custom.items() if v is not None},
        alignments=alignments,
    )
    turns = _turns(line.get("segments"))
    return _with_turns(cut, turns) if turns else cut


def _turns(segments: Any) -> list[dict[str, Any]]:
    """Speaker turns as a list, from a list of turns or from speaker → turns; empty where the field is something else."""
    if isinstance(segments, dict):
        listed = [
            {"speaker": name, **turn} for name, turns in segments.items() for turn in turns if isinstance(turn, dict)
        ]
        segments = sorted(listed, key=lambda turn: turn.get("start", 0.0))
    if not isinstance(segments, list) or not all(isinstance(t, dict) and {"start", "end"} <= {*t} for t in segments):
        return []
    return segments


def _with_turns(cut: Cut, turns: Iterable[Mapping[str, Any]]) -> Cut:
    """Speaker turns instead of the one supervision; the other fields become the cut's own."""
    whole = cut.supervisions[0]
    cut.custom = {k: v for k, v in (whole.custom or {}).items() if k != "segments"}
    cut.supervisions = [
        SupervisionSegment(
            id=f"{cut.id}-{index:04d}",
            recording_id=cut.id,
            start=turn["start"],
            duration=round(turn["end"] - turn["start"], 6),
            channel=whole.channel,
            text=turn.get("text"),
            language=whole.language,
            speaker=_text(turn.get("speaker")),
        )
        for index, turn in enumerate(turns)
    ]
    return cut


def _absolute(folder: Path, value: Any) -> Any:
    """Paths of further files of the pack (clean speech, sources, video) made absolute; other values as they are."""
    if isinstance(value, list):
        return [_absolute(folder, item) for item in value]
    if isinstance(value, str) and "/" in value and len(value) < 1000 and value.isprintable() and _stays_inside(value):
        path = folder / value
        return str(path.absolute()) if os.path.isfile(path) else value
    return value


def _disagreements(split: str, line: Mapping[str, Any], header: Header) -> Iterable[Fault]:
    duration, rate = line.get("duration"), line.get("sample_rate")
    if duration is not None and abs(duration - header.duration) > _DURATION_TOLERANCE:
        yield Fault(split, line["id"], "wrong duration", f"manifest {duration} s, file {header.duration:.4f} s")
    if rate is not None and rate != header.sample_rate:
        yield Fault(split, line["id"], "wrong sample rate", f"manifest {rate} Hz, file {header.sample_rate} Hz")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _card(folder: Path, lines: list[dict[str, Any]], field: str) -> Card:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    # "Licence: …" runs to the end of its list item; continuation lines are indented.
    found = re.search(
        r"^[-*]?\s*(?:Sources?[^:\n]*and )?licen[cs]es?\b[^:\n]*:\s*(.+(?:\n[ \t]+\S.*)*)", text, re.I | re.M
    )
    own = sorted({str(line["licence"]) for line in lines if line.get("licence")})
    licence = "; ".join(own) if own else " ".join(found[1].split()).rstrip(".") if found else ""
    commit = re.search(r"\bat ([0-9a-f]{40})\b", text)
    title = re.search(r"^# (.+)$", text, re.M)
    notes = [title[1].strip()] if title else []
    if field == "subset":
        notes.append("splits are the manifest's `subset`, finer than its `split`")
    languages = sorted({str(line["language"]) for line in lines if line.get("language")})
    return Card(
        name=folder.resolve().name,
        source=str(folder.absolute()),
        version=commit[1] if commit else "",
        licence=licence,
        languages=tuple(languages),
        notes=tuple(notes),
    )
