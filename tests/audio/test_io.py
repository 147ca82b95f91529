"""Files: every format there and back, parts, open files, damage."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sonorant.audio.io import Audio, audio_info, read_audio, write_audio
from sonorant.core.errors import DataError

LOSSLESS = ["wav", "flac", "aiff", "au"]
LOSSY = ["ogg", "opus", "mp3"]
CONTAINERS = ["m4a", "mp4", "webm", "aac"]


def speechlike(seconds: float = 1.5, sample_rate: int = 16000, channels: int = 1) -> torch.Tensor:
    """Harmonics that swell, so that coders keep the shape and a wrong offset shows."""
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    sweep = 2 * torch.pi * (150 * time + 40 * time.square())
    wave = sum(torch.sin(h * sweep) / h for h in range(1, 12)) * (0.3 + 0.2 * torch.sin(7 * time))
    return wave * 0.5 if channels == 1 else torch.stack([wave * 0.5 / (c + 1) for c in range(channels)])


def delay(reference: torch.Tensor, signal: torch.Tensor) -> int:
    """Samples by which `signal` comes late, from the peak of the cross-correlation."""
    size = len(reference) + len(signal)
    cross = torch.fft.irfft(torch.fft.rfft(signal, size) * torch.fft.rfft(reference, size).conj(), size)
    at = int(cross.argmax())
    return at if at < size // 2 else at - size


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_lossless_there_and_back(tmp_path: Path, kind: str, channels: int) -> None:
    wave = speechlike(channels=channels)
    write_audio(tmp_path / f"a.{kind}", wave, 16000)
    back = read_audio(tmp_path / f"a.{kind}", mono=False)
    assert back.sample_rate == 16000
    assert back.waveform.shape == (channels, 24000)
    assert (back.waveform - wave.reshape(channels, -1)).abs().max() <= 1.01 / 32768
    info = audio_info(tmp_path / f"a.{kind}")
    assert (info.sample_rate, info.num_samples, info.num_channels, info.duration) == (16000, 24000, channels, 1.5)
    mono = read_audio(tmp_path / f"a.{kind}")
    assert mono.waveform.shape == (24000,)
    assert torch.allclose(mono.waveform, back.waveform.mean(0), atol=1e-6)
    assert mono.duration == 1.5


def test_float_keeps_every_bit_and_peaks(tmp_path: Path) -> None:
    wave = 3 * torch.randn(1000)
    write_audio(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    assert torch.equal(read_audio(tmp_path / "a.wav").waveform, wave)


@pytest.mark.parametrize("kind", LOSSY + CONTAINERS)
def test_lossy_there_and_back(tmp_path: Path, kind: str) -> None:
    wave, path = speechlike(), tmp_path / f"a.{kind}"
    write_audio(path, wave, 16000)
    back = read_audio(path, sample_rate=16000)
    info = audio_info(path)
    assert abs(back.duration - 1.5) < 0.15
    assert abs(info.duration - back.duration) < 0.1
    # A bare AAC stream has no place to say how long its coder's start-up is.
    lag = delay(wave, back.waveform)
    assert lag == (1024 if kind == "aac" else 0)
    length = min(len(wave), len(back.waveform) - lag)
    error = back.waveform[lag : lag + length] - wave[:length]
    if kind != "opus" and kind != "webm":  # Opus keeps the sound, not the phases
        assert error[2000:].square().mean() < 0.01 * wave.square().mean()


@pytest.mark.parametrize("kind", LOSSLESS + LOSSY + CONTAINERS)
@pytest.mark.parametrize("start, duration", [(0.0, 0.4), (0.25, 0.5), (1.2, 0.1), (1.4, 5.0), (0.7, None)])
def test_a_part_is_a_part_of_the_whole(tmp_path: Path, kind: str, start: float, duration: float | None) -> None:
    path = tmp_path / f"a.{kind}"
    write_audio(path, speechlike(3.0), 16000)
    whole = read_audio(path)
    part = read_audio(path, start=start, duration=duration)
    first = round(start * whole.sample_rate)
    last = None if duration is None else first + round(duration * whole.sample_rate)
    expected = whole.waveform[first:last]
    assert part.waveform.shape == expected.shape
    # Coders with memory settle within a few milliseconds of where decoding began.
    tolerance = 1e-6 if kind in LOSSLESS else 0.02
    assert (part.waveform - expected).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "opus", "mp3", "m4a", "webm"])
def test_open_files_and_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    write_audio(path, speechlike(), 16000)
    reference = read_audio(path, start=0.5, duration=0.3).waveform
    data = path.read_bytes()
    stream = io.BytesIO(data)
    assert torch.equal(read_audio(stream, start=0.5, duration=0.3).waveform, reference)
    assert stream.tell() == 0, "an open file is left where it stood"
    assert torch.equal(read_audio(data, start=0.5, duration=0.3).waveform, reference)
    with path.open("rb") as file:
        assert torch.equal(read_audio(file, start=0.5, duration=0.3).waveform, reference)
    written = io.BytesIO()
    write_audio(written, speechlike(), 16000, format=kind)
    written.seek(0)
    assert abs(read_audio(written).duration - read_audio(path).duration) < 1e-6
    assert audio_info(written).sample_rate == audio_info(path).sample_rate


def test_resampled_while_reading(tmp_path: Path) -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(44100).double() / 44100).float()
    write_audio(tmp_path / "a.wav", tone, 44100, subtype="FLOAT")
    audio = read_audio(tmp_path / "a.wav", sample_rate=16000)
    assert (audio.sample_rate, len(audio.waveform)) == (16000, 16000)
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16000).double() / 16000)
    assert (audio.waveform - expected)[500:-500].abs().max() < 1e-4
    stereo = read_audio(tmp_path / "a.wav", sample_rate=8000, mono=False)
    assert stereo.waveform.shape == (1, 8000)


def test_packs_read_as_their_manifests_say(packs: Path) -> None:
    import json

    for pack in ("digits_fsdd", "slu_coffee", "multichannel"):
        lines = (packs / pack / "manifest.jsonl").read_text().splitlines()
        for line in lines[:: max(1, len(lines) // 5)][:5]:
            entry = json.loads(line)
            audio = read_audio(packs / pack / entry["audio"])
            assert audio.sample_rate == entry["sample_rate"]
            assert abs(audio.duration - entry["duration"]) < 2e-3


def _damaged(tmp_path: Path) -> dict[str, Path]:
    files = {
        name: tmp_path / name for name in ("empty.wav", "text.wav", "text.m4a", "noise.mp3", "header.wav", "cut.flac")
    }
    files["empty.wav"].write_bytes(b"")
    files["text.wav"].write_text("this is not audio\n" * 50)
    files["text.m4a"].write_text("this is not audio\n" * 50)
    files["noise.mp3"].write_bytes(np.random.default_rng(0).bytes(3000))
    soundfile.write(files["header.wav"], np.zeros(0), 16000)
    soundfile.write(files["cut.flac"], np.random.default_rng(0).standard_normal(50000) * 0.1, 16000)
    data = files["cut.flac"].read_bytes()
    files["cut.flac"].write_bytes(data[: len(data) // 2])
    files["no such file"] = tmp_path / "missing" / "a.wav"
    files["folder"] = tmp_path
    return files


def test_damage_raises_data_error_that_names_the_file(tmp_path: Path) -> None:
    for name, path in _damaged(tmp_path).items():
        with pytest.raises(DataError, match=str(path.name)):
            read_audio(path)
            pytest.fail(f"{name} was read")


@pytest.mark.parametrize("name", ["empty.wav", "text.wav", "text.m4a", "noise.mp3", "no such file", "folder"])
def test_info_of_damaged_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        audio_info(_damaged(tmp_path)[name])


def test_bytes_that_are_no_audio() -> None:
    with pytest.raises(DataError, match="empty"):
        read_audio(b"")
    with pytest.raises(DataError, match="damaged or of an unknown format"):
        read_audio(b"nonsense" * 100)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": -1.0}, "start must be ≥ 0"),
        ({"duration": 0.0}, "duration > 0"),
        ({"start": 99.0}, "beyond"),
        ({"start": float("nan")}, "start must be"),
        ({"start": 1.5}, "no samples from 1.5 s on"),
    ],
)
@pytest.mark.parametrize("kind", ["wav", "m4a"])
def test_impossible_parts(tmp_path: Path, kind: str, options: dict, message: str) -> None:
    path = tmp_path / f"a.{kind}"
    write_audio(path, speechlike(), 16000)
    if kind == "m4a" and options == {"start": 1.5}:
        options = {"start": 2.5}
    with pytest.raises(DataError, match=message if kind == "wav" else "start|duration|no samples"):
        read_audio(path, **options)


def test_not_a_number_is_refused_both_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not finite"):
        write_audio(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 8000)
    soundfile.write(tmp_path / "b.wav", np.array([0.0, np.inf, 0.0]), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match="not finite"):
        read_audio(tmp_path / "b.wav")


def test_clipping_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="peaks at 2"):
        write_audio(tmp_path / "a.wav", torch.tensor([2.0, 0.0, -2.0]), 8000)
    assert read_audio(tmp_path / "a.wav").waveform.abs().max() <= 1


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'flac'"):
        write_audio(tmp_path / "a.flacc", speechlike(), 16000)
    with pytest.raises(DataError, match="resample first"):
        write_audio(tmp_path / "a.opus", speechlike(), 22050)
    with pytest.raises(DataError, match="without samples"):
        write_audio(tmp_path / "a.wav", torch.zeros(0), 16000)
    with pytest.raises(DataError, match="one or two channels"):
        write_audio(tmp_path / "a.m4a", speechlike(channels=5), 16000)
    assert list(tmp_path.iterdir()) == [], "a failed write leaves nothing behind"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, speechlike(), 16000)
    before = path.read_bytes()

    def broken(file: io.IOBase, *_: object, **__: object) -> None:
        file.write(b"half a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", broken)
    with pytest.raises(OSError, match="No space left"):
        write_audio(path, speechlike() * 0.5, 16000)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    path, done = tmp_path / "a.wav", threading.Event()
    write_audio(path, speechlike(), 16000)

    def keep_writing() -> None:
        while not done.is_set():
            write_audio(path, speechlike(), 16000)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(30):
            assert len(read_audio(path).waveform) == 24000
    finally:
        done.set()
        writer.join()


def test_reading_warns_of_nothing(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", speechlike(), 16000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(read_audio(tmp_path / "a.wav"), Audio)


def test_containers_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import importlib.util
    from typing import Any

    (tmp_path / "a.m4a").write_bytes(b"x" * 100)
    (tmp_path / "a.xyz").write_bytes(b"x" * 100)
    real_import, real_find = importlib.import_module, importlib.util.find_spec

    def missing(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real_import(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "av" else real_find(name, *rest)
    )
    with pytest.raises(ImportError, match=r"pip install 'sonorant\[audio\]'"):
        read_audio(tmp_path / "a.m4a")
    with pytest.raises(DataError, match=r"pip install 'sonorant\[audio\]'"):
        read_audio(tmp_path / "a.xyz")


def test_mp3_frames_that_borrow_bits(tmp_path: Path) -> None:
    """A pure tone takes so few bits that frames lean on many before them: a plain seek would give half a second of noise."""
    tone = 0.5 * torch.sin(0.1 * torch.arange(96000))
    write_audio(tmp_path / "a.mp3", tone, 16000)
    whole = read_audio(tmp_path / "a.mp3").waveform
    for start in (0.5, 1.25, 3.3, 5.0):
        part = read_audio(tmp_path / "a.mp3", start=start, duration=0.2).waveform
        assert torch.allclose(part, whole[round(start * 16000) :][:3200], atol=1e-5)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_header_that_promises_too_much_takes_no_memory(tmp_path: Path, as_bytes: bool) -> None:
    path = tmp_path / "a.flac"
    write_audio(path, 0.1 * torch.randn(16000), 16000)
    raw = bytearray(path.read_bytes())
    # The last 36 bits before the checksum of STREAMINFO are the number of samples.
    raw[21], raw[22:26] = raw[21] | 0x0F, b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="more than its .* bytes can hold"):
        read_audio(bytes(raw) if as_bytes else path)
    path.write_bytes(b"")
    write_audio(path, torch.zeros(16000 * 60), 16000)
    assert read_audio(path).duration == 60, "silence is small, and may be"
