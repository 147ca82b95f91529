"""TIMIT and what is laid out like it: audio (NIST sphere or any other) with `.TXT`, `.WRD` and `.PHN` files of one name.

Times in those files are sample offsets. In TIMIT itself the path is SPLIT/DIALECT/SPEAKER/SENTENCE.WAV; a flat folder, such
as the free sample LDC93S1, gives one split "all". Garofolo et al., LDC93S1, 1993.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lhotse.cut import Cut
from lhotse.supervision import AlignmentItem

from sonorant.core.errors import DataError
from sonorant.data.corpora.audio_files import Header, alignment, find_audio, read_headers, whole_file_cut
from sonorant.data.corpora.corpus import Card, Corpus, Fault, named_splits, unreadable

__all__ = ["CORE_TEST_SPEAKERS", "read_timit", "roots"]

# The 24 speakers of the core test set, two men and one woman of each dialect region (TIMIT's own TESTSET.DOC).
CORE_TEST_SPEAKERS = frozenset(
    [
        "MDAB0",
        "MWBT0",
        "FELC0",
        "MTAS1",
        "MWEW0",
        "FPAS0",
        "MJMP0",
        "MLNT0",
        "FPKT0",
        "MLLL0",
        "MTLS0",
        "FJLM0",
        "MBPM0",
        "MKLT0",
        "FNLP0",
        "MCMJ0",
        "MJDH0",
        "FMGD0",
        "MGRT0",
        "MNJM0",
        "FDHC0",
        "MJLN0",
        "MPAM0",
        "FMLD0",
    ]
)
_DIALECT = re.compile(r"DR[1-8]$", re.IGNORECASE)
_SPEAKER = re.compile(r"[FM][A-Z]{3}\d$", re.IGNORECASE)


def roots(source: str) -> list[Path]:
    """What the corpus is made of."""
    return [Path(source)]


def read_timit(
    source: str, *, test: Literal["complete", "core"] = "complete", keep_sa: bool = True, num_workers: int = 0
) -> Corpus:
    """Reads TIMIT or a folder laid out like it.

    Args:
        source: the folder that holds TRAIN and TEST, or the files themselves.
        test: "core" keeps only the 24 speakers of the core test set in the test split.
        keep_sa: keep the two sentences (SA1, SA2) which all speakers read; they are in both splits, so phone recognition
            leaves them out.
        num_workers: threads that read headers.

    Raises:
        DataError: no folder or no audio there.
    """
    folder = Path(source)
    paths = [path for path in find_audio(folder) if keep_sa or path.stem.upper()[:2] != "SA"]
    # Copies of TIMIT often hold a RIFF version beside each sphere file (SA1.WAV and SA1.WAV.wav).
    known = set(paths)
    paths = [path for path in paths if not Path(path.stem).suffix or path.with_name(path.stem) not in known]
    if not paths:
        raise DataError(f"no audio below {folder}; TIMIT lies in TRAIN/DR1/FCJF0/SA1.WAV and so on")
    splits: dict[str, list[Cut]] = {}
    faults: list[Fault] = []
    for path, header in zip(paths, read_headers(paths, num_workers), strict=True):
        speaker, dialect = _speaker(path)
        split = _split(path, folder)
        if split == "test" and test == "core" and speaker.upper() not in CORE_TEST_SPEAKERS:
            continue
        id = f"{speaker}-{path.stem}" if dialect else path.stem
        if isinstance(header, DataError):
            faults.append(unreadable(split, id, header))
            continue
        cut, fault = _cut(path, header, id, speaker, dialect)
        splits.setdefault(split, []).append(cut)
        faults += [Fault(split, id, "wrong annotation", detail) for detail in fault]
    card = Card(
        name="timit",
        source=str(folder.absolute()),
        version="LDC93S1",
        licence="LDC user agreement (LDC93S1; the sentence LDC93S1 itself is LDC's free sample)",
        languages=("en",),
    )
    return Corpus("timit", named_splits(splits), card, tuple(faults))


def _cut(path: Path, header: Header, id: str, speaker: str, dialect: str | None) -> tuple[Cut, list[str]]:
    sides = _beside(path)
    text, words, phones = None, [], []
    problems: list[str] = []
    if ".txt" in sides:
        lines = _offsets(sides[".txt"], problems)
        text = lines[0][0] if lines else None
    if ".wrd" in sides:
        words = _seconds(_offsets(sides[".wrd"], problems), header, ".WRD", problems)
    if ".phn" in sides:
        phones = _seconds(_offsets(sides[".phn"], problems), header, ".PHN", problems)
    alignments = {name: items for name, items in {"word": words, "phone": phones}.items() if items}
    gender = speaker[0].lower() if dialect and _SPEAKER.match(speaker) else None
    custom = {"dialect": dialect} if dialect else None
    cut = whole_file_cut(
        id, path, header, text=text, speaker=speaker, language="en", gender=gender, custom=custom, alignments=alignments
    )
    return cut, problems


def _beside(path: Path) -> Mapping[str, Path]:
    """The annotation files of one recording by their ending; TIMIT comes in upper and in lower case."""
    endings = [ending for base in (".txt", ".wrd", ".phn") for ending in (base, base.upper())]
    return {ending.lower(): path.with_suffix(ending) for ending in endings if path.with_suffix(ending).is_file()}


def _offsets(path: Path, problems: list[str]) -> list[tuple[str, int, int]]:
    """Label, first sample, sample after the last, of each line `START END LABEL`."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        parts = line.split(maxsplit=2)
        if not parts:
            continue
        if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
            rows.append((parts[2].strip(), int(parts[0]), int(parts[1])))
        else:
            problems.append(f"{path.name} line {number} is not 'START END LABEL': {line[:40]}")
    return rows


def _seconds(rows: list[tuple[str, int, int]], header: Header, kind: str, problems: list[str]) -> list[AlignmentItem]:
    rate = header.sample_rate
    beyond = [row for row in rows if row[2] > header.num_samples or row[1] > row[2]]
    if beyond:
        problems.append(f"{kind}: '{beyond[0][0]}' at {beyond[0][1]}–{beyond[0][2]} of {header.num_samples} samples")
    kept = [row for row in rows if row[1] <= row[2] and row[1] < header.num_samples]
    return alignment((label, start / rate, min(end, header.num_samples) / rate) for label, start, end in kept)


def _speaker(path: Path) -> tuple[str, str | None]:
    """Speaker and dialect region from the path, or the file's own name where it is not TIMIT's layout."""
    if _DIALECT.match(path.parent.parent.name):
        return path.parent.name.upper(), path.parent.parent.name.upper()
    return path.stem, None


def _split(path: Path, folder: Path) -> str:
    # The given folder itself may be TRAIN or TEST.
    names = [part.lower() for part in (folder.absolute().name, *path.relative_to(folder).parts[:-1])]
    return next((name for name in names if name in ("train", "test")), "all")
