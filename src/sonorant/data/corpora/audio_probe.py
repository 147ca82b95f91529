"""What is wrong with an audio file, or with the stretch of it that a cut covers; read in threads, in bounded memory."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lhotse import Recording
from lhotse.cut import Cut, MonoCut

from sonorant.core.errors import DataError
from sonorant.data.corpora.audio_files import Header, read_header
from sonorant.data.corpora.corpus import load_audio

__all__ = ["Problem", "evenly", "files_of", "in_threads", "probe_cut", "probe_file"]

Problem = tuple[str, str]
"""A short fixed reason and a detail."""

# lhotse's own tolerance: a decoder may add or drop a frame of a compressed file.
_DURATION_TOLERANCE = 0.025
# 1e-4 is −80 dB, one step of 13 bits: below the noise of any microphone.
_SILENCE = 1e-4
_CLIP_LEVEL, _CLIP_RUN, _CLIP_SHARE = 0.999, 3, 1e-3
_BLOCK_SECONDS = 60.0
_T = TypeVar("_T")
_R = TypeVar("_R")


def files_of(recording: Recording) -> list[Path]:
    """The files a recording lies in; none for recordings in memory, or changed on the fly, whose length is another."""
    if recording.transforms:
        return []
    return [Path(source.source) for source in recording.sources if source.type == "file"]


def probe_file(path: Path, sample_rate: int, num_samples: int) -> Problem | None:
    """Reads a file's header, its first and its last tenth of a second, and compares the length with the manifest's.

    A file that was cut short often has a whole header; only its end tells.

    Args:
        path: the file.
        sample_rate: Hz, as the manifest has it.
        num_samples: length in samples, as the manifest has it.
    """
    import soundfile

    if not path.is_file():
        return "missing file", str(path)
    if path.stat().st_size == 0:
        return "empty file", str(path)
    try:
        opened = soundfile.SoundFile(str(path))
    except soundfile.SoundFileError as error:
        try:
            header = read_header(path)  # video and m4a, which libsndfile does not know
        except DataError:
            return "unreadable", f"{path} ({error})"
        return _differs(header, sample_rate, num_samples)
    with opened as file:
        problem = _differs(Header(file.samplerate, file.frames, file.channels), sample_rate, num_samples)
        try:
            return problem or _ends(file)
        except soundfile.SoundFileError as error:
            return "cut short", f"{path} cannot be read to its end ({error})"


def _differs(header: Header, sample_rate: int, num_samples: int) -> Problem | None:
    if header.sample_rate != sample_rate:
        return "wrong sample rate", f"manifest {sample_rate} Hz, file {header.sample_rate} Hz"
    if abs(header.num_samples - num_samples) > _DURATION_TOLERANCE * sample_rate:
        return "wrong duration", f"manifest {num_samples / sample_rate:.3f} s, file {header.duration:.3f} s"
    return None


def _ends(file: Any) -> Problem | None:
    size = min(file.frames, max(1, file.samplerate // 10))
    ends = [file.read(size, dtype="float32")]
    file.seek(file.frames - size)
    ends.append(file.read(size, dtype="float32"))
    if any(len(end) < size for end in ends):
        return "cut short", f"{file.name} ends before the {file.frames} samples its header promises"
    if not all(np.isfinite(end).all() for end in ends):
        return "not finite", "NaN or infinite samples"
    return None


def probe_cut(cut: Cut) -> list[Problem]:
    """Decodes a cut and looks for samples that are not finite, for silence, and for clipping (reason "clipped").

    Clipped is where one sample in a thousand lies in runs of at least three at full scale: single full-scale samples are
    what a loud recording, normalised to its peak, has anyway.
    """
    peak, total, clipped = 0.0, 0, 0
    expected = cut.duration * cut.sampling_rate
    try:
        for samples in _blocks(cut):
            if not np.isfinite(samples).all():
                return [("not finite", "NaN or infinite samples")]
            level = np.abs(samples).max(axis=0)
            peak = max(peak, float(level.max(initial=0.0)))
            total += len(level)
            clipped += _in_runs(level >= _CLIP_LEVEL)
    except Exception as error:  # whatever a decoder raises means the same here: this item cannot be read
        return [("unreadable", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")]
    if total == 0:
        return [("empty audio", "no samples")]
    if total < expected - _DURATION_TOLERANCE * cut.sampling_rate:
        return [("cut short", f"{total} of {expected:.0f} samples")]
    if peak < _SILENCE:
        return [("silent", f"peak {peak:.1e}")]
    if clipped / total > _CLIP_SHARE:
        return [("clipped", f"{clipped / total:.2%} of the samples")]
    return []


def _blocks(cut: Cut) -> Iterable[np.ndarray]:
    """The cut's samples as (channel, time) pieces of at most a minute."""
    import soundfile

    paths = files_of(cut.recording) if isinstance(cut, MonoCut) else []
    try:
        opened = soundfile.SoundFile(str(paths[0])) if len(paths) == 1 else None
    except soundfile.SoundFileError:
        opened = None
    if opened is None:
        yield load_audio(cut)
        return
    rate = cut.sampling_rate
    first, left = round(cut.start * rate), round(cut.duration * rate)
    with opened as file:
        file.seek(min(first, file.frames))
        while left > 0:
            piece = file.read(min(left, int(_BLOCK_SECONDS * rate)), dtype="float32", always_2d=True)
            if not len(piece):
                return
            left -= len(piece)
            yield piece[:, cut.channel : cut.channel + 1].T


def _in_runs(full: np.ndarray) -> int:
    """Samples that stand in runs of at least `_CLIP_RUN`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= _CLIP_RUN].sum())


def in_threads(function: Callable[[_T], _R], items: Sequence[_T], num_workers: int) -> list[_R]:
    """The function of each item, in order; the time goes into disks and decoders, which leave other threads free."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(num_workers or 4) as pool:
        return list(pool.map(function, items))


def evenly(items: Sequence[Any], count: int | None) -> list[Any]:
    """At most `count` of the items, spread evenly and the same every time; all for None."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
