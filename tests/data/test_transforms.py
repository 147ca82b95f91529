"""Corpora made from corpora: durations, times of supervisions and audio go together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from sonorant.core.errors import ConfigError
from sonorant.data.transforms import concatenated, speed_perturbed, trimmed, windowed, within_durations

RATE = 8000


@pytest.fixture
def cuts(tmp_path: Path) -> list[Any]:
    """Tones of 1, 2 and 3 s; each said from 0.5 s after its start to 0.25 s before its end."""
    made = []
    for i, seconds in enumerate((1.0, 2.0, 3.0)):
        path = tmp_path / f"c{i}.wav"
        soundfile.write(path, 0.4 * np.sin(2 * np.pi * 300 * (i + 1) * np.arange(int(RATE * seconds)) / RATE), RATE)
        said = SupervisionSegment(f"c{i}", f"c{i}", 0.5, seconds - 0.75, text=f"t{i}", speaker="ab"[i // 2])
        recording = Recording.from_file(path)
        made.append(MonoCut(f"c{i}", 0.0, seconds, 0, supervisions=[said], recording=recording))
    return made


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax()) * RATE / len(samples)


def test_within_durations_lists_what_it_leaves_out(cuts: list[Any]) -> None:
    kept = within_durations(cuts, 1.5, 2.0)
    assert [cut.id for cut in kept.cuts] == ["c1"]
    assert kept.skipped == {"c0": "too short: 1.000 s < 1.5 s", "c2": "too long: 3.000 s > 2.0 s"}


def test_speed_changes_duration_pitch_and_times(cuts: list[Any]) -> None:
    several = speed_perturbed(cuts, (0.9, 1.0, 1.1))
    assert len(several) == 9
    assert len({cut.id for cut in several}) == 9
    slow = several[3]
    assert slow.duration == pytest.approx(1.0 / 0.9, abs=1e-3)
    audio = slow.load_audio()[0]
    assert len(audio) == pytest.approx(RATE / 0.9, abs=1)
    assert pitch(audio) == pytest.approx(300 * 0.9, abs=2)
    assert slow.supervisions[0].start == pytest.approx(0.5 / 0.9, abs=1e-3)
    assert len(speed_perturbed(cuts, (1.1,), keep=False)) == 3
    with pytest.raises(ConfigError, match="factors"):
        speed_perturbed(cuts, (0.0,))


def test_trimming_keeps_the_margin(cuts: list[Any]) -> None:
    short = trimmed(cuts, margin=0.1)
    assert [cut.id for cut in short] == ["c0", "c1", "c2"]
    assert short[1].duration == pytest.approx(1.45)
    assert short[1].supervisions[0].start == pytest.approx(0.1)
    np.testing.assert_array_equal(short[1].load_audio()[0], cuts[1].load_audio()[0][3200:14800])
    bare = MonoCut("x", 0.0, 1.0, 0, recording=cuts[0].recording)
    assert trimmed([bare])[0] is bare


def test_concatenation_keeps_times(cuts: list[Any]) -> None:
    whole = concatenated(cuts, 10.0, gap=0.5)
    assert len(whole) == 1
    assert whole[0].duration == pytest.approx(7.0)
    assert [said.start for said in whole[0].supervisions] == pytest.approx([0.5, 2.0, 4.5])
    audio = whole[0].load_audio()[0]
    np.testing.assert_allclose(audio[:RATE], cuts[0].load_audio()[0], atol=1e-6)
    assert not audio[RATE : RATE + RATE // 2].any()
    np.testing.assert_allclose(audio[4 * RATE :], cuts[2].load_audio()[0], atol=1e-6)


def test_concatenation_stops_at_its_limit_and_at_the_group(cuts: list[Any]) -> None:
    assert [cut.duration for cut in concatenated(cuts, 3.0)] == pytest.approx([3.0, 3.0])
    by_speaker = concatenated(cuts, 100.0, group=lambda cut: cut.supervisions[0].speaker)
    assert [cut.duration for cut in by_speaker] == pytest.approx([3.0, 3.0])
    assert [cut.duration for cut in concatenated(cuts, 0.5)] == [1.0, 2.0, 3.0]


def test_windows_cover_a_cut_once(cuts: list[Any]) -> None:
    pieces = windowed(cuts, 0.8)
    assert [piece.id for piece in pieces if piece.id.startswith("c1")] == ["c1-0", "c1-1", "c1-2"]
    audio = np.concatenate([piece.load_audio()[0] for piece in pieces if piece.id.startswith("c1")])
    np.testing.assert_array_equal(audio, cuts[1].load_audio()[0])
    overlapping = windowed(cuts[2:], 1.0, hop=0.5)
    assert [piece.start for piece in overlapping][:3] == pytest.approx([0.0, 0.5, 1.0])
