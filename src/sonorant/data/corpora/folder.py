"""A plain folder of audio with transcripts: same-name `.txt` files, LibriSpeech's `*.trans.txt`, or one table.

The kind is found by what lies there, in that order; a table is a `transcripts`, `metadata` or `<split>` file ending in
`.tsv`, `.csv` or `.txt` at the top of the folder, as LJ Speech and Common Voice have them.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lhotse.cut import Cut

from sonorant.core.errors import DataError
from sonorant.data.corpora.audio_files import AUDIO_SUFFIXES, find_audio, read_headers, split_of_name, whole_file_cut
from sonorant.data.corpora.corpus import Card, Corpus, Fault, named_splits, unreadable
from sonorant.data.corpora.transcripts import Row, read_table, read_trans

__all__ = ["file_id", "read_folder", "roots"]

_log = logging.getLogger(__name__)
_TABLES = ("transcripts", "transcript", "metadata", "manifest", "validated")


def roots(source: str) -> list[Path]:
    """What the corpus is made of."""
    return [Path(source)]


def read_folder(
    source: str,
    *,
    speaker: Literal["auto", "parent", "none"] = "auto",
    language: str | None = None,
    licence: str = "",
    num_workers: int = 0,
) -> Corpus:
    """Reads a folder of audio; files without a transcript are taken with none and counted in the card's notes.

    Args:
        source: the folder.
        speaker: "parent" takes the name of each file's folder; "auto" takes what a table says, or LibriSpeech's names.
        language: ISO 639 code of all transcripts, where it is known.
        licence: terms of use, for the card.
        num_workers: threads that read headers.

    Splits: the first folder of a file's path where that is named as one (train, dev, valid, test, eval, train-clean-100 …),
    else what the table says or is named, else "all".

    Raises:
        DataError: no folder there, or no audio in it.
    """
    folder = Path(source)
    paths = find_audio(folder)
    if not paths:
        raise DataError(f"no audio below {folder}; known endings are .wav, .flac, .ogg, .opus, .mp3, .sph and the like")
    rows, lost = _transcripts(folder, paths)
    splits: dict[str, list[Cut]] = {}
    faults: list[Fault] = []
    silent = 0
    for path, header in zip(paths, read_headers(paths, num_workers), strict=True):
        row = rows.get(path)
        split = split_of_name(path.relative_to(folder).parts[0]) if path.parent != folder else None
        split = split or (row.split if row else None) or "all"
        id = file_id(path, folder)
        if isinstance(header, DataError):
            faults.append(unreadable(split, id, header))
            continue
        silent += row is None
        splits.setdefault(split, []).append(
            whole_file_cut(
                id,
                path,
                header,
                text=row.text if row else None,
                speaker=_speaker(path, folder, row, speaker),
                language=(row.language if row else None) or language,
                custom=dict(row.custom) if row else None,
            )
        )
    faults += [Fault("all", name, "transcript without audio", dropped=True) for name in lost]
    card = Card(
        name=folder.resolve().name,
        source=str(folder.absolute()),
        licence=licence or _licence_file(folder),
        languages=(language,) if language else (),
        notes=(f"{silent} of {len(paths)} files have no transcript",) if silent else (),
    )
    if silent:
        _log.warning("%s: %d of %d audio files have no transcript", folder, silent, len(paths))
    return Corpus(card.name, named_splits(splits), card, tuple(faults))


def file_id(path: Path, folder: Path) -> str:
    """An id that stays the same when other files come or go: the path below the folder, with dashes.

    A file of LibriSpeech keeps its own name, which already holds speaker and chapter.

    >>> file_id(Path("/d/train/a b.wav"), Path("/d")), file_id(Path("/d/dev/84/121/84-121-0000.flac"), Path("/d"))
    ('train-a_b', '84-121-0000')
    """
    parts = path.relative_to(folder).with_suffix("").parts
    if len(parts) > 2 and parts[-1].startswith(f"{parts[-3]}-{parts[-2]}-"):
        return parts[-1]
    return "-".join("_".join(part.split()) for part in parts)


def _transcripts(folder: Path, paths: Sequence[Path]) -> tuple[dict[Path, Row], list[str]]:
    """Audio file → its row, and the names in tables that have no audio."""
    rows = {}
    for path in paths:
        beside = path.with_suffix(".txt")
        if beside.is_file():
            text = " ".join(beside.read_text(encoding="utf-8").split())
            rows[path] = Row(path.name, text)
    if rows:
        return rows, []
    by_stem: dict[str, Path] = {}
    for path in paths:
        by_stem.setdefault(path.stem, path)
    listed = [
        row
        for file in sorted({name for path in paths for name in path.parent.glob("*.trans.txt")})
        for row in _trans_rows(file)
    ]
    for table in _tables(folder):
        split = split_of_name(table.stem)
        listed += [row if row.split or not split else _with_split(row, split) for row in read_table(table)]
    return _match(listed, folder, paths, by_stem)


def _trans_rows(file: Path) -> list[Row]:
    return [Row(id, text, speaker=id.split("-")[0] if "-" in id else None) for id, text in read_trans(file)]


def _with_split(row: Row, split: str) -> Row:
    return Row(row.audio, row.text, row.speaker, split, row.language, row.custom)


def _tables(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".tsv", ".csv", ".txt") and p.is_file())
    named = [p for p in files if p.stem.lower() in _TABLES and not p.name.endswith(".trans.txt")]
    # Common Voice has a table a split beside others (invalidated, reported) that must not be read.
    return [p for p in files if split_of_name(p.stem) and p.suffix.lower() != ".txt"] or named


def _match(
    listed: Sequence[Row], folder: Path, paths: Sequence[Path], by_stem: Mapping[str, Path]
) -> tuple[dict[Path, Row], list[str]]:
    known = set(paths)
    rows, lost = {}, []
    for row in listed:
        exact = folder / row.audio
        path = exact if exact in known else by_stem.get(_stem(row.audio))
        if path is None:
            lost.append(row.audio)
        else:
            rows[path] = row
    return rows, lost


def _stem(name: str) -> str:
    """A file's bare name; `Path.stem` would cut an id such as "take.1" short, so only endings of audio go."""
    bare = name.rsplit("/", 1)[-1]
    path = Path(bare)
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else bare


def _speaker(path: Path, folder: Path, row: Row | None, rule: str) -> str | None:
    if rule == "parent":
        return path.parent.name if path.parent != folder else None
    return row.speaker if row and rule == "auto" else None


def _licence_file(folder: Path) -> str:
    for name in ("LICENSE", "LICENCE", "LICENSE.txt", "LICENCE.txt", "LICENSE.md"):
        file = folder / name
        if file.is_file():
            lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
            return next((f"{line} ({name})" for line in lines if line), "")
    return ""
