"""From audio files to lhotse's recordings and cuts: headers are read in threads, nothing is decoded.

Read `read_headers` first, then `whole_file_cut`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from sonorant.core.errors import DataError
from sonorant.data.corpora.walk import files_below

__all__ = ["AUDIO_SUFFIXES", "Header", "alignment", "find_audio", "read_header", "read_headers", "recording", "split_of_name",
           "whole_file_cut"]  # fmt: skip

AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".sph",
        ".nist",
        ".aif",
        ".aiff",
        ".au",
        ".w64",
        ".caf",
        ".m4a",
        ".mp4",
        ".aac",
        ".webm",
        ".mkv",
        ".mka",
    ]
)
_SPLIT = re.compile(r"(train|training|dev|development|val|valid|validation|test|eval)(\d*([-_. ].*)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """What an audio file says about itself."""

    sample_rate: int
    num_samples: int
    num_channels: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sample_rate


def find_audio(folder: Path) -> list[Path]:
    """Every audio file below a folder, sorted by path; hidden files and folders are left out.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"no folder at {folder}; give the folder that holds the audio")
    return sorted(Path(name) for name, _ in files_below(folder) if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES)


def read_header(path: Path) -> Header:
    """Sample rate, length and channels of a file.

    Raises:
        DataError: the file is missing, empty, or not audio that can be read; the message says which.
    """
    import soundfile

    if not path.is_file():
        raise DataError(f"missing file: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"empty file: {path}")
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        return _header_of_container(path, error)
    if info.samplerate <= 0:
        raise DataError(f"unreadable: {path} gives a sample rate of {info.samplerate}")
    return Header(int(info.samplerate), int(info.frames), int(info.channels))


def _header_of_container(path: Path, error: Exception) -> Header:
    """Video and m4a, which libsndfile does not know; `audio.io` reads them through an extra."""
    from sonorant.audio.io import audio_info

    try:
        info = audio_info(path)
    except (OSError, ValueError, RuntimeError, ImportError) as second:
        cause = second if isinstance(second, ImportError) else error
        raise DataError(f"unreadable: {path} ({cause})") from None
    return Header(int(info.sample_rate), int(info.num_samples), int(info.num_channels))


def read_headers(paths: Sequence[Path], num_workers: int = 0) -> list[Header | DataError]:
    """Headers of many files, read in threads; a file that cannot be read gives its error instead.

    Args:
        paths: files.
        num_workers: threads; 0 chooses a few, since the time goes into waiting for the disk.
    """

    def attempt(path: Path) -> Header | DataError:
        try:
            return read_header(path)
        except DataError as error:
            return error

    with ThreadPoolExecutor(num_workers or 4) as pool:
        return list(pool.map(attempt, paths))


def recording(id: str, path: Path, header: Header) -> Recording:
    """A recording of one file with all its channels; the path is kept absolute."""
    channels = list(range(header.num_channels))
    source = AudioSource(type="file", channels=channels, source=str(path.absolute()))
    return Recording(
        id=id,
        sources=[source],
        sampling_rate=header.sample_rate,
        num_samples=header.num_samples,
        duration=header.duration,
        channel_ids=channels,
    )


def whole_file_cut(
    id: str,
    path: Path,
    header: Header,
    *,
    text: str | None = None,
    speaker: str | None = None,
    language: str | None = None,
    gender: str | None = None,
    custom: dict[str, Any] | None = None,
    alignments: dict[str, list[AlignmentItem]] | None = None,
) -> MonoCut | MultiCut:
    """A cut over a whole file with one supervision that covers it."""
    audio = recording(id, path, header)
    channel: int | list[int] = 0 if header.num_channels == 1 else list(range(header.num_channels))
    supervision = SupervisionSegment(
        id=id,
        recording_id=id,
        start=0.0,
        duration=audio.duration,
        channel=channel,
        text=text,
        language=language,
        speaker=speaker,
        gender=gender,
        custom=custom or None,
        alignment=alignments or None,
    )
    kind = MonoCut if header.num_channels == 1 else MultiCut
    return kind(id=id, start=0.0, duration=audio.duration, channel=channel, supervisions=[supervision], recording=audio)


def alignment(items: Iterable[tuple[str, float, float]]) -> list[AlignmentItem]:
    """Labels with start and end in seconds, as lhotse holds them (start and duration)."""
    return [AlignmentItem(symbol=label, start=start, duration=round(end - start, 6)) for label, start, end in items]


def split_of_name(name: str) -> str | None:
    """The split that a folder or file name stands for, in the source's spelling, or None.

    >>> split_of_name("train-clean-100"), split_of_name("dev"), split_of_name("testimony")
    ('train-clean-100', 'dev', None)
    """
    return name if _SPLIT.match(name) else None
