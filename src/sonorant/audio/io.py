"""Reading and writing audio files: whole, in part, from a path or from an open file.

wav, flac, ogg (Vorbis and Opus), mp3, aiff and au go through libsndfile; m4a, aac, webm, mp4 and the sound track of any
other video through FFmpeg's libraries (the extra `audio`). Whatever cannot be read raises `DataError` naming the file.
"""

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.resample import resample_soxr
from sonorant.core.errors import DataError, unknown_name
from sonorant.core.files import atomic_write
from sonorant.core.optional import require

__all__ = ["Audio", "AudioInfo", "Source", "audio_info", "read_audio", "write_audio"]

Source = str | os.PathLike[str] | BinaryIO | io.IOBase | bytes
"""A path, an open binary file (read from where it stands, sought back afterwards), or a file's bytes."""

# What libsndfile is not asked to read: it would only say that it does not know the format.
_CONTAINERS = (".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mka", ".mov", ".avi", ".wma", ".amr", ".3gp", ".mpg", ".mpeg")

# Suffix → libsndfile's format and subtype.
_SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
# Suffix → FFmpeg's container and codec.
_FFMPEG = {"m4a": ("ipod", "aac"), "mp4": ("mp4", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus")}

_SAMPLES_A_BYTE = 10_000
"""No coding holds more: FLAC's silence comes nearest, with blocks of 65535 samples in some ten bytes."""
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class Audio:
    """What was read."""

    waveform: Float[Tensor, " time"] | Float[Tensor, "channel time"]
    """In [-1, 1]; with a channel axis only where `mono=False` was asked for."""
    sample_rate: int
    """Hz."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int
    """Hz."""
    num_samples: int
    """Of each channel."""
    num_channels: int
    format: str
    """Container and coding, such as `WAV/PCM_16`."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_samples / self.sample_rate


def read_audio(
    source: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    sample_rate: int | None = None,
    mono: bool = True,
) -> Audio:
    """Reads a file or a part of it, as float32.

    Args:
        source: path, open binary file, or bytes.
        start: seconds to skip.
        duration: seconds to read; up to the end where None. What reaches beyond the end is cut there.
        sample_rate: Hz to resample to; the file's own where None.
        mono: the mean of the channels, without a channel axis; else `(channel, time)`.

    Raises:
        DataError: no such file, empty, not audio, damaged, without a sample in the asked part, or with NaN in it.
    """
    name = _name(source)
    if not start >= 0 or (duration is not None and not duration > 0):
        raise DataError(f"{name}: start must be ≥ 0 s and duration > 0 s, got start={start} and duration={duration}")
    file = _open(source, name)
    samples, rate = (_read_ffmpeg if _is_container(name) else _read_sndfile)(file, name, start, duration)
    if samples.size == 0:
        raise DataError(f"{name}: no samples from {start:g} s on; is the file empty, or start beyond its end?")
    if not np.isfinite(samples.sum()):
        raise DataError(f"{name}: holds samples that are not finite numbers (NaN or infinity); write the file anew")
    if mono:
        samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if sample_rate is not None and sample_rate != rate:
        samples, rate = resample_soxr(samples, rate, sample_rate), sample_rate
    return Audio(torch.from_numpy(np.ascontiguousarray(samples.T)), rate)


def audio_info(source: Source) -> AudioInfo:
    """Sample rate, length and channels without decoding the samples.

    Raises:
        DataError: no such file, empty, or not audio.
    """
    name = _name(source)
    file = _open(source, name)
    if _is_container(name):
        return _info_ffmpeg(file, name)
    import soundfile

    try:
        with _Rewound(file), soundfile.SoundFile(file) as opened:
            return AudioInfo(opened.samplerate, opened.frames, opened.channels, f"{opened.format}/{opened.subtype}")
    except soundfile.LibsndfileError as error:
        if _ffmpeg_is_here():
            return _info_ffmpeg(file, name)
        raise _unreadable(name, error) from error


def write_audio(
    target: str | os.PathLike[str] | BinaryIO | io.IOBase,
    waveform: Float[Tensor, " time"] | Float[Tensor, "channel time"],
    sample_rate: int,
    *,
    format: str | None = None,
    subtype: str | None = None,
) -> None:
    """Writes a file in one step: under its name stands the old file or the whole new one, never a part.

    Args:
        target: path, whose suffix names the format, or an open binary file.
        waveform: in [-1, 1]; what lies beyond is clipped in whole-number formats, with a warning.
        sample_rate: Hz.
        format: `wav`, `flac`, `ogg`, `opus`, `mp3`, `aiff`, `au`, or with the extra `audio` `m4a`, `mp4`, `aac`,
            `webm`; the path's suffix where None.
        subtype: libsndfile's name of the coding, such as `"PCM_24"` or `"FLOAT"`.

    Raises:
        DataError: a waveform without samples or not finite, a format that is unknown or does not take the sample rate.
    """
    is_path = isinstance(target, str | os.PathLike)
    name = os.fspath(target) if is_path else "the open file"  # type: ignore[arg-type]
    kind = (format or (Path(name).suffix[1:] if is_path else "wav")).lower()
    samples = _checked(waveform, name, kind, sample_rate, subtype)
    if not is_path:
        _encode(target, samples, sample_rate, kind, subtype)  # type: ignore[arg-type]
        return
    # Recordings come by the thousand and can be made again: they are not worth waiting for the disk.
    with atomic_write(Path(name), sync=False) as file:
        _encode(file, samples, sample_rate, kind, subtype)


def _checked(waveform: Tensor, name: str, kind: str, sample_rate: int, subtype: str | None) -> np.ndarray:
    """`(time, channel)` float32, or the reason why it cannot be written."""
    if kind not in _SNDFILE and kind not in _FFMPEG:
        raise DataError(f"{name}: {unknown_name('audio format', kind, [*_SNDFILE, *_FFMPEG])}")
    if kind in ("opus", "webm") and sample_rate not in _OPUS_RATES:
        raise DataError(f"{name}: Opus takes sample rates {_OPUS_RATES} Hz, got {sample_rate}; resample first")
    samples = waveform.detach().cpu().float().numpy()
    samples = samples[:, None] if samples.ndim == 1 else samples.T
    if samples.size == 0:
        raise DataError(f"{name}: refusing to write a waveform without samples")
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise DataError(f"{name}: the waveform holds values that are not finite numbers (NaN or infinity)")
    if peak > 1 and subtype not in ("FLOAT", "DOUBLE"):
        warnings.warn(f"{name}: clipped, the waveform peaks at {peak:.3g} beyond [-1, 1]", stacklevel=3)
        samples = samples.clip(-1, 1)
    return samples


def _encode(file: Any, samples: np.ndarray, sample_rate: int, kind: str, subtype: str | None) -> None:
    if kind in _FFMPEG:
        return _encode_ffmpeg(file, samples, sample_rate, kind)
    import soundfile

    container, coding = _SNDFILE[kind]
    try:
        return soundfile.write(file, samples, sample_rate, format=container, subtype=subtype or coding)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise DataError(
            f"cannot write {kind} with {samples.shape[1]} channels at {sample_rate} Hz, "
            f"subtype {subtype or coding}: {error}"
        ) from error


def _name(source: Source) -> str:
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", None) or "an open file")


def _is_container(name: str) -> bool:
    return name.lower().endswith(_CONTAINERS)


def _open(source: Source, name: str) -> Any:
    """A path that exists and holds something, or a seekable file."""
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        try:
            size = os.stat(source).st_size
        except OSError as error:
            raise DataError(f"{name}: no such audio file ({error.strerror})") from error
        if os.path.isdir(source):
            raise DataError(f"{name}: is a folder, not an audio file")
        if size == 0:
            raise DataError(f"{name}: the file is empty (0 bytes)")
        return os.fspath(source)
    if not source.seekable():
        source = io.BytesIO(source.read())
    here = source.tell()
    end = source.seek(0, io.SEEK_END)
    source.seek(here)
    if end == here:
        raise DataError(f"{name}: the file is empty (no bytes from position {here} on)")
    return source


class _Rewound:
    """Brings an open file back to where it stood."""

    def __init__(self, file: Any) -> None:
        self.file, self.here = file, None if isinstance(file, str) else file.tell()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        if self.here is not None:
            self.file.seek(self.here)


def _unreadable(name: str, error: Exception, hint: str = "") -> DataError:
    return DataError(f"{name}: cannot be read as audio, damaged or of an unknown format ({error}){hint}")


def _read_sndfile(file: Any, name: str, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with _Rewound(file), soundfile.SoundFile(file) as opened:
            rate = opened.samplerate
            _refuse_empty_promises(opened, file, name)
            first = round(start * rate)
            if first > opened.frames:
                raise DataError(f"{name}: start={start:g} s lies beyond the end at {opened.frames / rate:g} s")
            # An MP3 frame may borrow bits from frames before it: decode some that are dropped again. In one read, for
            # soundfile seeks after each.
            ahead = min(first, 2 * rate) if opened.format == "MP3" else 0
            if first > ahead:
                opened.seek(first - ahead)
            count = -1 if duration is None else ahead + min(max(1, round(duration * rate)), opened.frames - first)
            return opened.read(count, dtype="float32", always_2d=True)[ahead:], rate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        if _ffmpeg_is_here():
            return _read_ffmpeg(file, name, start, duration)
        raise _unreadable(name, error, "; for m4a, webm or video: pip install 'sonorant[audio]'") from error


def _refuse_empty_promises(opened: Any, file: Any, name: str) -> None:
    """A header may claim any length, for which room would be made before the first sample is read."""
    if isinstance(file, str):
        size = os.stat(file).st_size
    else:
        here = file.tell()
        size = file.seek(0, io.SEEK_END)
        file.seek(here)
    if opened.frames * opened.channels > _SAMPLES_A_BYTE * size:
        raise DataError(f"{name}: claims {opened.frames} samples, more than its {size} bytes can hold; it is damaged")


def _ffmpeg_is_here() -> bool:
    from importlib.util import find_spec

    return find_spec("av") is not None


def _av() -> Any:
    return require("av", extra="audio", purpose="to read and write m4a, webm and video")


def _info_ffmpeg(file: Any, name: str) -> AudioInfo:
    av = _av()
    try:
        with _Rewound(file), av.open(file) as opened:
            stream = _sound_track(opened, name)
            rate = stream.rate
            if stream.duration is not None:
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = (opened.duration or 0) / av.time_base
            kind = f"{opened.format.name.split(',')[0]}/{stream.codec_context.name}".upper()
            return AudioInfo(rate, round(seconds * rate), stream.codec_context.channels, kind)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(name, error) from error


def _sound_track(opened: Any, name: str) -> Any:
    if not opened.streams.audio:
        raise DataError(f"{name}: holds no sound track")
    return opened.streams.audio[0]


def _read_ffmpeg(file: Any, name: str, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    """Decodes from the last seek point before `start` and cuts by the frames' own times."""
    av = _av()
    try:
        with _Rewound(file), av.open(file) as opened:
            stream = _sound_track(opened, name)
            rate = stream.rate
            first = round(start * rate)
            last = None if duration is None else first + max(1, round(duration * rate))
            position = 0
            # Sought only where times are as fine as samples: Matroska's milliseconds would put a part off by some.
            if start > 1 and stream.time_base.denominator >= rate:
                # Coders with memory (AAC) need a moment before what they give is right.
                opened.seek(int((start - 0.5) / stream.time_base), stream=stream, backward=True)
                position = -1
            pieces = []
            resampler = av.AudioResampler(format="fltp", rate=rate)
            for decoded in opened.decode(stream):
                if position < 0:
                    position = round(float((decoded.pts - (stream.start_time or 0)) * stream.time_base) * rate)
                block = np.concatenate([frame.to_ndarray() for frame in resampler.resample(decoded)], axis=1)
                low = max(0, first - position)
                high = block.shape[1] if last is None else min(block.shape[1], last - position)
                if high > low:
                    pieces.append(block[:, low:high])
                position += block.shape[1]
                if last is not None and position >= last:
                    break
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(name, error) from error
    return (np.concatenate(pieces, axis=1).T if pieces else np.zeros((0, 1), np.float32)), rate


def _encode_ffmpeg(file: Any, samples: np.ndarray, sample_rate: int, kind: str) -> None:
    av = _av()
    container, codec = _FFMPEG[kind]
    if samples.shape[1] > 2:
        raise DataError(f"{kind} is written with one or two channels, got {samples.shape[1]}")
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(file, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sample_rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            opened.mux(packet)
