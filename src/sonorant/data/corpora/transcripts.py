"""Tables of transcripts: TSV, CSV and pipe-separated files with or without a header, and LibriSpeech's `*.trans.txt`."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sonorant.core.errors import DataError

__all__ = ["Row", "read_rows", "read_table", "read_trans"]

_AUDIO = (
    "path",
    "audio",
    "wav_filename",
    "wav",
    "file",
    "file_name",
    "filename",
    "audio_file",
    "audio_filepath",
    "clip",
    "id",
)
_TEXT = ("text", "sentence", "transcript", "transcription", "normalized_text", "normalised_text")
_SPEAKER = ("speaker", "speaker_id", "client_id", "spk")
_SPLIT = ("split", "subset", "set", "partition")
_LANGUAGE = ("language", "lang", "locale")


@dataclass(frozen=True)
class Row:
    """One line of a table of transcripts."""

    audio: str
    """Path or bare name, as written."""
    text: str
    speaker: str | None = None
    split: str | None = None
    language: str | None = None
    custom: dict[str, str] = field(default_factory=dict)
    """The other columns."""


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a table with a header, comma-, tab- or pipe-separated, each row checked for its length.

    Raises:
        DataError: missing, not UTF-8, or a row has another number of fields than the header (with its line).
    """
    header, *lines = _split_lines(path)
    names = [name.strip() for name in header[1]]
    rows = []
    for number, values in lines:
        if len(values) != len(names):
            raise DataError(f"{path} line {number} has {len(values)} fields where the header has {len(names)}")
        rows.append(dict(zip(names, values)))
    return names, rows


def read_table(path: Path) -> list[Row]:
    """Rows of a table of transcripts.

    With a header, columns are known by their usual names (audio: path, file, wav_filename …; text: sentence, transcript …;
    speaker: client_id …). Without one, the first column is the audio and the last the text, as in LJ Speech's
    `metadata.csv`.
    """
    lines = _split_lines(path)
    names = [name.strip().lower() for name in lines[0][1]]
    audio, text = _first(names, _AUDIO), _first(names, _TEXT)
    if audio is None or text is None:
        if any(len(values) < 2 for _, values in lines):
            short = next(number for number, values in lines if len(values) < 2)
            raise DataError(
                f"{path} line {short} must have an audio file and a transcript, separated by tab, | or comma"
            )
        return [Row(values[0].strip(), values[-1].strip()) for _, values in lines]
    rows = read_rows(path)[1]
    roles = {role: _first(names, known) for role, known in
             {"speaker": _SPEAKER, "split": _SPLIT, "language": _LANGUAGE}.items()}  # fmt: skip
    return [_row(list(row.items()), audio, text, roles) for row in rows]


def _row(cells: list[tuple[str, str]], audio: int, text: int, roles: dict[str, int | None]) -> Row:
    taken = {audio, text, *(index for index in roles.values() if index is not None)}
    values = {role: cells[index][1].strip() or None for role, index in roles.items() if index is not None}
    custom = {name: value for index, (name, value) in enumerate(cells) if index not in taken and value}
    return Row(cells[audio][1].strip(), cells[text][1].strip(), custom=custom, **values)


def read_trans(path: Path) -> Iterator[tuple[str, str]]:
    """Utterance and text of each line of a LibriSpeech `*.trans.txt`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            id, _, text = line.strip().partition(" ")
            yield id, text.strip()


def _first(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _split_lines(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise DataError(f"no table of transcripts at {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max("\t|,", key=first.count)
            # Quotes mean something in CSV only; in TSV and LJ Speech's pipes they are part of the text.
            table = separator == ","
            reader = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if table else csv.QUOTE_NONE)
            lines = [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table in UTF-8: {error}") from None
    if not lines:
        raise DataError(f"{path} is empty")
    return lines
