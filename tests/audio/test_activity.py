"""Activity by energy: known stretches of sound, noise floors, batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.audio.activity import activity
from sonorant.core.errors import ConfigError

RATE = 16000


def scene(spans: list[tuple[float, float]], seconds: float, level: float = 0.3, floor: float = 0.001) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    wave = floor * torch.randn(round(seconds * RATE), generator=generator)
    for begin, end in spans:
        part = slice(round(begin * RATE), round(end * RATE))
        wave[part] += level * torch.sin(2 * math.pi * 300 * torch.arange(part.stop - part.start) / RATE)
    return wave


@given(
    gaps=st.lists(st.floats(0.5, 1.0), min_size=1, max_size=3), sounds=st.lists(st.floats(0.2, 0.9), min_size=1, max_size=3),
    hangover=st.sampled_from([0.0, 0.1]), floor=st.sampled_from([0.0, 0.001, 0.01]), level=st.sampled_from([0.1, 0.5]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_finds_what_is_there(
    gaps: list[float], sounds: list[float], hangover: float, floor: float, level: float
) -> None:
    spans, now = [], 0.0
    for gap, sound in zip(gaps, sounds, strict=False):
        spans.append((now + gap, now + gap + sound))
        now += gap + sound
    found = activity(scene(spans, now + 0.5, level, floor)[None], RATE, hangover=hangover)[0]
    assert len(found) == len(spans)
    for segment, (begin, end) in zip(found, spans, strict=True):
        assert abs(segment.start - (begin - hangover)) <= 0.03
        assert abs(segment.end - (end + hangover)) <= 0.03
        assert segment.label == "speech"


def test_short_gaps_close_and_clicks_go() -> None:
    wave = scene([(0.5, 1.0), (1.1, 1.5), (2.4, 2.41)], 3.0)
    found = activity(wave[None], RATE, hangover=0.0)[0]
    assert len(found) == 1
    assert abs(found[0].start - 0.5) < 0.03
    assert abs(found[0].end - 1.5) < 0.03
    assert len(activity(wave[None], RATE, hangover=0.0, min_silence=0.05, min_speech=0.0)[0]) == 3


def test_sound_from_end_to_end_is_one_segment() -> None:
    found = activity(scene([(0.0, 2.0)], 2.0)[None], RATE)[0]
    assert [(round(s.start, 2), round(s.end, 2)) for s in found] == [(0.0, 2.0)]


def test_silence_has_none() -> None:
    assert activity(torch.zeros(2, RATE), RATE)[0] == ()
    assert activity(1e-5 * torch.randn(1, RATE), RATE)[0] == ()
    assert activity(torch.zeros(1, 0), RATE)[0] == ()


def test_item_alone_equals_item_in_batch() -> None:
    items = [scene([(0.5, 1.0)], 2.0), scene([(0.3, 0.9), (1.4, 1.7)], 2.5), scene([], 0.5), torch.zeros(10)]
    lengths = torch.tensor([len(item) for item in items])
    together = torch.full((4, 50000), float("nan"))
    for row, item in zip(together, items, strict=True):
        row[: len(item)] = item
    found = activity(together, RATE, lengths)
    for item, wave in enumerate(items):
        assert found[item] == activity(wave[None], RATE)[0]


def test_louder_changes_nothing() -> None:
    wave = scene([(0.5, 1.0)], 2.0)[None]
    assert activity(2 * wave, RATE) == activity(wave, RATE)


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="seconds ≥ 0"):
        activity(torch.zeros(1, 100), RATE, hangover=-0.1)
