"""Kaldi data directories: `wav.scp`, `text`, `segments`, `utt2spk`, `spk2gender` and friends, read and written.

Read `read_kaldi`, then `write_kaldi`. The archives behind `feats.scp` are read by `data/kaldi.py`; an item's entry is kept
as its extra field `feats`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut

from sonorant.core.errors import DataError
from sonorant.data.corpora.audio_files import read_headers, recording
from sonorant.data.corpora.corpus import Card, Corpus, Fault, load_audio, named_splits, unreadable
from sonorant.data.kaldi import plain_path, read_table, write_table

__all__ = ["read_kaldi", "roots", "write_kaldi"]


def roots(source: str) -> list[Path]:
    """The data directories and the audio they name."""
    found: list[Path] = []
    for folder in _directories(Path(source)).values():
        entries = read_table(folder / "wav.scp")
        audio = {_located(plain_path(entry, f"{folder}/wav.scp '{id}'"), folder) for id, entry in entries.items()}
        found += [folder, *sorted(path for path in audio if path.exists())]
    return found


def read_kaldi(source: str, *, language: str | None = None, licence: str = "", num_workers: int = 0) -> Corpus:
    """Reads a data directory, or a folder of them, one a split.

    Args:
        source: a folder with `wav.scp`, or one whose folders have it.
        language: ISO 639 code of the transcripts; `utt2lang` goes before it.
        licence: terms of use, for the card.
        num_workers: threads that read headers.

    Relative paths in `wav.scp` are looked up from the data directory, from the folders above it (a Kaldi recipe runs two
    above), then from the working directory.

    Raises:
        DataError: no data directory, a table that is not as it must be, or a command in `wav.scp` (never run).
    """
    folder = Path(source)
    splits: dict[str, list[Cut]] = {}
    faults: list[Fault] = []
    for name, directory in _directories(folder).items():
        splits[name] = list(_read_directory(directory, name, language, faults, num_workers))
    card = Card(
        name=folder.resolve().name,
        source=str(folder.absolute()),
        licence=licence,
        languages=(language,) if language else (),
    )
    return Corpus(card.name, named_splits(splits), card, tuple(faults))


def _directories(folder: Path) -> dict[str, Path]:
    if (folder / "wav.scp").is_file():
        return {"all": folder}
    inside = {path.name: path for path in sorted(folder.glob("*/")) if (path / "wav.scp").is_file()}
    if not inside:
        raise DataError(f"no wav.scp in {folder} nor in a folder of it; give a Kaldi data directory")
    return inside


@dataclass(frozen=True)
class _Tables:
    """The optional tables of one data directory."""

    text: dict[str, str]
    speakers: dict[str, str]
    genders: dict[str, str]
    languages: dict[str, str]
    feats: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "_Tables":
        def table(name: str) -> dict[str, str]:
            return read_table(folder / name) if (folder / name).is_file() else {}

        speakers = table("utt2spk")
        if all(utterance == speaker for utterance, speaker in speakers.items()):
            speakers = {}  # Kaldi's way to say that no speaker is known
        return cls(table("text"), speakers, table("spk2gender"), table("utt2lang"), table("feats.scp"))


def _read_directory(
    folder: Path, split: str, language: str | None, faults: list[Fault], num_workers: int
) -> Iterator[Cut]:
    tables = _Tables.read(folder)
    audio = _recordings(folder, split, faults, num_workers)
    placed = list(_segments(folder, audio, split, faults))
    for id, source, start, duration in placed:
        channel = 0 if source.num_channels == 1 else _channel(folder, source.id)
        speaker = tables.speakers.get(id)
        supervision = SupervisionSegment(
            id=id,
            recording_id=source.id,
            start=0.0,
            duration=duration,
            channel=channel,
            text=tables.text.get(id),
            language=tables.languages.get(id, language),
            speaker=speaker,
            gender=tables.genders.get(speaker) if speaker else None,
            custom={"feats": tables.feats[id]} if id in tables.feats else None,
        )
        yield MonoCut(id, start, duration, channel, supervisions=[supervision], recording=source)
    known = {item[0] for item in placed} | {fault.id for fault in faults if fault.split == split}
    faults += [Fault(split, id, "transcript without audio", dropped=True) for id in tables.text if id not in known]


def _recordings(folder: Path, split: str, faults: list[Fault], num_workers: int) -> dict[str, Recording]:
    entries = read_table(folder / "wav.scp")
    paths = [_located(plain_path(entry, f"{folder}/wav.scp '{id}'"), folder) for id, entry in entries.items()]
    found = {}
    for id, path, header in zip(entries, paths, read_headers(paths, num_workers), strict=True):
        if isinstance(header, DataError):
            faults.append(unreadable(split, id, header))
        else:
            found[id] = recording(id, path, header)
    return found


def _located(entry: str, folder: Path) -> Path:
    path = Path(entry)
    if path.is_absolute():
        return path
    above = [folder, *folder.absolute().parents[:2], Path.cwd()]
    return next((base / path for base in above if (base / path).is_file()), folder / path)


def _segments(
    folder: Path, audio: dict[str, Recording], split: str, faults: list[Fault]
) -> Iterator[tuple[str, Recording, float, float]]:
    """Utterance, recording, start and duration in seconds."""
    file = folder / "segments"
    if not file.is_file():
        yield from ((id, source, 0.0, source.duration) for id, source in audio.items())
        return
    for id, line in read_table(file).items():
        try:
            name, first, last = line.split()
            start, end = float(first), float(last)
        except ValueError:
            raise DataError(f"{file} '{id}' must be RECORDING START END, got '{line}'") from None
        source = audio.get(name)
        if source is None:
            faults.append(
                Fault(split, id, "no audio", f"recording '{name}' is not there or not readable", dropped=True)
            )
            continue
        end = source.duration if end < 0 else end  # -1 says "to the end"
        if end > source.duration + 0.02:
            faults.append(Fault(split, id, "segment past the end", f"ends at {end} s of {source.duration:.3f} s"))
        end = min(end, source.duration)
        if start < 0 or end <= start:
            faults.append(Fault(split, id, "empty segment", f"{first} to {last} s", dropped=True))
            continue
        yield id, source, start, end - start


def _channel(folder: Path, id: str) -> int:
    """A or B of `reco2file_and_channel`; without it the first channel."""
    file = folder / "reco2file_and_channel"
    if not file.is_file():
        return 0
    side = read_table(file).get(id, "x A").split()[-1]
    return {"A": 0, "B": 1}.get(side, int(side) - 1 if side.isdigit() else 0)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_kaldi(cuts: Iterable[Cut], folder: Path, *, audio: Literal["link", "copy"] = "link") -> int:
    """Writes cuts as a Kaldi data directory and returns the number of utterances.

    Args:
        cuts: cuts over files; each supervision becomes an utterance.
        folder: where to; `segments` is written where a cut is not a whole recording.
        audio: "link" names the files as they lie, which must be mono WAV, the only format Kaldi reads; "copy" decodes
            them into `folder/audio` as 16-bit WAV, one file a channel.

    Kaldi sorts utterances and speakers alike, so ids get their speaker in front where they would sort otherwise.

    Raises:
        DataError: an id with white space, the same id twice, multi-channel cuts, or files that must be copied.
    """
    utterances = list(_utterances(cuts, folder, audio))
    if _sorts_apart(utterances):
        for item in utterances:
            item.id = f"{item.speaker or item.id}-{item.id}"
    counts = Counter(item.id for item in utterances)
    if len(counts) != len(utterances):
        twice = counts.most_common(1)[0][0]
        raise DataError(f"'{twice}' stands twice among the cuts; a Kaldi data directory needs unique ids")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "wav.scp", {item.recording: item.path for item in utterances})
    write_table(folder / "text", {item.id: item.text for item in utterances if item.text is not None})
    speakers = {item.id: item.speaker or item.id for item in utterances}
    write_table(folder / "utt2spk", speakers)
    grouped: dict[str, list[str]] = {}
    for id in sorted(speakers, key=str.encode):
        grouped.setdefault(speakers[id], []).append(id)
    write_table(folder / "spk2utt", {speaker: " ".join(members) for speaker, members in grouped.items()})
    write_table(folder / "utt2dur", {item.id: f"{item.duration:.6f}" for item in utterances})
    _write_optional(folder, utterances)
    return len(utterances)


@dataclass
class _Utterance:
    id: str
    recording: str
    path: str
    start: float
    duration: float
    whole: bool
    text: str | None
    speaker: str | None
    gender: str | None
    language: str | None


def _write_optional(folder: Path, utterances: list[_Utterance]) -> None:
    genders = {item.speaker: item.gender[0].lower() for item in utterances if item.speaker and item.gender}
    optional = {
        "spk2gender": genders,
        "utt2lang": {item.id: item.language for item in utterances if item.language},
        "segments": {
            item.id: f"{item.recording} {item.start:.6f} {item.start + item.duration:.6f}" for item in utterances
        },
    }
    if all(item.whole and item.recording == item.id for item in utterances):
        optional["segments"] = {}
    for name, table in optional.items():
        if table:
            write_table(folder / name, table)
        else:
            (folder / name).unlink(missing_ok=True)  # one of an older export would no longer fit


def _sorts_apart(utterances: list[_Utterance]) -> bool:
    ordered = sorted(utterances, key=lambda item: item.id.encode())
    speakers = [(item.speaker or item.id).encode() for item in ordered]
    return speakers != sorted(speakers)


def _utterances(cuts: Iterable[Cut], folder: Path, audio: str) -> Iterator[_Utterance]:
    written: dict[str, str] = {}
    for cut in cuts:
        if not isinstance(cut, MonoCut) or not cut.has_recording:
            raise DataError(
                f"'{cut.id}': Kaldi has one channel an utterance and needs audio; got a {type(cut).__name__}"
            )
        name, path = _wave(cut, folder, audio, written)
        single = len(cut.supervisions) == 1
        for supervision in cut.supervisions or [None]:
            start = max(0.0, supervision.start) if supervision else 0.0
            end = min(cut.duration, supervision.end) if supervision else cut.duration
            whole = cut.start + start < 1e-6 and abs(cut.recording.duration - (end - start)) < 1e-3
            yield _Utterance(
                id=cut.id if single or not supervision else supervision.id,
                recording=name,
                path=path,
                start=cut.start + start,
                duration=end - start,
                whole=whole,
                text=supervision.text if supervision else None,
                speaker="_".join(supervision.speaker.split()) if supervision and supervision.speaker else None,
                gender=supervision.gender if supervision else None,
                language=supervision.language if supervision else None,
            )


def _wave(cut: MonoCut, folder: Path, audio: str, written: dict[str, str]) -> tuple[str, str]:
    """Recording id and path of the WAV file that holds a cut's channel."""
    source = cut.recording.sources[0]
    mono = cut.recording.num_channels == 1
    name = cut.recording.id if mono else f"{cut.recording.id}-{cut.channel}"
    if audio == "link":
        if source.type != "file" or not str(source.source).lower().endswith(".wav") or not mono:
            raise DataError(f"'{cut.id}': Kaldi reads mono WAV files, got {source.source}; write with audio='copy'")
        return name, str(Path(source.source).absolute())
    if name not in written:
        import soundfile

        # A file's name has no slash, so `a/b` and `a_b` would be one file: whichever comes later gets a number.
        plain, taken = name.replace("/", "_"), set(written.values())
        places = (folder.absolute() / "audio" / (f"{plain}.{n}.wav" if n else f"{plain}.wav") for n in count())
        file = next(place for place in places if str(place) not in taken)
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = load_audio(cut.recording.to_cut())[cut.recording.channel_ids.index(cut.channel)]
        soundfile.write(file, samples, cut.recording.sampling_rate, subtype="PCM_16")
        written[name] = str(file)
    return name, written[name]
