"""DeepSpeech's tables: `wav_filename,wav_filesize,transcript`, one file a split; further columns are kept."""

from pathlib import Path

from lhotse.cut import Cut

from sonorant.core.errors import DataError
from sonorant.data.corpora.audio_files import read_headers, whole_file_cut
from sonorant.data.corpora.corpus import Card, Corpus, Fault, named_splits, unreadable
from sonorant.data.corpora.transcripts import read_rows

__all__ = ["read_csv", "roots", "tables"]

_COLUMNS = ("wav_filename", "wav_filesize", "transcript")


def tables(source: str) -> dict[str, list[Path]]:
    """Split → tables, from `train=a.csv,dev=b.csv` or `a.csv,b.csv`.

    Without a name, a table's own name says the split where it holds one of train, dev, valid, test; else it is the split.

    >>> {name: [p.name for p in files] for name, files in tables("x/foo-train.csv,dev=x/y.csv").items()}
    {'train': ['foo-train.csv'], 'dev': ['y.csv']}
    """
    found: dict[str, list[Path]] = {}
    for part in source.split(","):
        name, equals, file = part.strip().partition("=")
        path = Path(file if equals else name)
        split = name.strip() if equals else _split_in_name(path.stem)
        found.setdefault(split, []).append(path)
    return found


def _split_in_name(stem: str) -> str:
    words = stem.lower().replace("_", "-").split("-")
    return next((name for name in ("train", "dev", "valid", "test") if name in words), stem)


def roots(source: str) -> list[Path]:
    """The tables and every audio file they name."""
    files = [file for group in tables(source).values() for file in group]
    audio = {path for file in files for path in _audio_paths(file, _read(file))}
    return files + sorted(path for path in audio if path.exists())


def read_csv(
    source: str,
    *,
    speaker_column: str = "speaker",
    language: str | None = None,
    licence: str = "",
    num_workers: int = 0,
) -> Corpus:
    """Reads tables of DeepSpeech's kind.

    Args:
        source: `FILE[,FILE…]` or `train=FILE,dev=FILE,test=FILE`.
        speaker_column: column with the speaker's name, where there is one.
        language: ISO 639 code of the transcripts.
        licence: terms of use, for the card.
        num_workers: threads that read headers.

    A `wav_filesize` that is not the file's size is reported as a fault and the item kept: it tells of a file that was
    cut short or replaced after the table was made.

    Raises:
        DataError: a table is missing or lacks one of the columns.
    """
    splits: dict[str, list[Cut]] = {}
    faults: list[Fault] = []
    for split, files in tables(source).items():
        for file in files:
            rows = _read(file)
            paths = _audio_paths(file, rows)
            for row, path, header in zip(rows, paths, read_headers(paths, num_workers), strict=True):
                id = _id(path, file.parent)
                if isinstance(header, DataError):
                    faults.append(unreadable(split, id, header))
                    continue
                faults += _wrong_size(split, id, row["wav_filesize"], path)
                custom = {k: v for k, v in row.items() if k not in (*_COLUMNS, speaker_column) and v}
                speaker = row.get(speaker_column) or None
                cut = whole_file_cut(
                    id, path, header, text=row["transcript"], speaker=speaker, language=language, custom=custom
                )
                splits.setdefault(split, []).append(cut)
    first = next(iter(tables(source).values()))[0]
    card = Card(
        name=first.resolve().parent.name, source=source, licence=licence, languages=(language,) if language else ()
    )
    return Corpus(card.name, named_splits(splits), card, tuple(faults))


def _read(file: Path) -> list[dict[str, str]]:
    names, rows = read_rows(file)
    absent = [name for name in _COLUMNS if name not in names]
    if absent:
        raise DataError(f"{file} must have the columns {', '.join(_COLUMNS)}; it lacks {', '.join(absent)}")
    return rows


def _audio_paths(file: Path, rows: list[dict[str, str]]) -> list[Path]:
    return [file.parent / row["wav_filename"] for row in rows]


def _id(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(*path.parts[1:])
    return "-".join("_".join(part.split()) for part in inside.with_suffix("").parts if part != "..")


def _wrong_size(split: str, id: str, written: str, path: Path) -> list[Fault]:
    size = path.stat().st_size
    try:
        same = int(written) == size
    except ValueError:
        same = False
    return [] if same else [Fault(split, id, "wrong wav_filesize", f"table {written or 'empty'}, file {size} bytes")]
