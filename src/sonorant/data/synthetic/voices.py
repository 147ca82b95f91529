"""Voices that never existed: a vocal tract, a source and habits, all drawn from a seed.

A `Voice` is an eSpeak variant file made here: formant places, heights and widths (one scale for the tract's length, a
factor for each formant), pitch, roughness and tone, and beside it a rate and the equaliser of its recording. All voices
come from one continuous family, so that held-out voices lie among the trained ones. Pitch is drawn apart from the tract
and moves by several semitones from utterance to utterance: pitch alone does not give a speaker away.

Read `Voice`, `draw_voice`, then `Style` and `voice_file`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.seed import derive

__all__ = ["STYLES", "Style", "Voice", "draw_voice", "pitch_setting", "style_named", "voice_file"]

NUM_FORMANTS = 9


@dataclass(frozen=True)
class Voice:
    """One speaker."""

    name: str
    tract: float
    """Scale of all formants; 1 is eSpeak's own (an adult male), above is a shorter vocal tract."""
    formants: tuple[tuple[int, int, int], ...]
    """For formants 0–8 their place, height and width in percent of the language's own."""
    pitch_hz: float
    """Median pitch before the jitter of an utterance."""
    pitch_span: float
    """Range of the intonation as a share of the pitch."""
    rate: float
    """Words a minute."""
    roughness: int
    flutter: int
    voicing: int
    """Strength of the voiced source in percent."""
    consonants: int
    """Strength of fricatives and bursts in percent."""
    equaliser_db: tuple[float, ...]
    """Gains of the recording at `rooms.BANDS_HZ`."""


@dataclass(frozen=True)
class Style:
    """A way of speaking, relative to the voice's own."""

    rate: float = 1.0
    semitones: float = 0.0
    span: float = 1.0
    """Factor on the range of the intonation, at most 2."""
    volume: float = 1.0
    whisper: bool = False


STYLES: Mapping[str, Style] = {
    "neutral": Style(),
    "slow": Style(rate=0.72, span=0.9),
    "fast": Style(rate=1.38, semitones=0.5),
    "happy": Style(rate=1.1, semitones=3.0, span=1.8, volume=1.15),
    "sad": Style(rate=0.82, semitones=-2.5, span=0.35, volume=0.8),
    "emphatic": Style(rate=0.88, semitones=1.5, span=2.0, volume=1.3),
    "whisper": Style(rate=0.9, volume=0.7, whisper=True),
}
"""Ways of speaking by name."""


def style_named(name: str) -> Style:
    """The style, or an error that lists the known ones."""
    if name not in STYLES:
        raise ConfigError(unknown_name("style", name, STYLES))
    return STYLES[name]


def draw_voice(seed: int, name: str, formant_jitter: float = 0.06, equaliser_db: float = 4.0) -> Voice:
    """The voice that a seed and a name stand for.

    Args:
        seed: of the corpus.
        name: of the speaker; another name is another voice.
        formant_jitter: standard deviation of each formant's own factor.
        equaliser_db: standard deviation of the recording's equaliser at each band.
    """
    draws = np.random.default_rng(derive(seed, "voice", name))
    tract = math.exp(draws.uniform(math.log(0.9), math.log(1.2)))
    own = np.exp(formant_jitter * np.clip(draws.standard_normal(NUM_FORMANTS), -2, 2))
    heights = draws.uniform(78, 115, NUM_FORMANTS)
    widths = draws.uniform(85, 145, NUM_FORMANTS)
    formants = tuple((round(100 * tract * f), round(h), round(w)) for f, h, w in zip(own, heights, widths))
    return Voice(
        name=name,
        tract=tract,
        formants=formants,
        pitch_hz=math.exp(draws.uniform(math.log(95), math.log(215))),
        pitch_span=draws.uniform(0.2, 0.42),
        rate=draws.uniform(150, 200),
        roughness=int(draws.integers(0, 4)),
        flutter=int(draws.integers(1, 10)),
        voicing=int(draws.integers(85, 130)),
        consonants=int(draws.integers(75, 125)),
        equaliser_db=tuple(float(x) for x in equaliser_db * np.clip(draws.standard_normal(6), -2, 2)),
    )


def voice_file(voice: Voice, whisper: bool = False) -> str:
    """The voice as text of an eSpeak variant file."""
    half = voice.pitch_span / 2
    low, high = voice.pitch_hz * (1 - half), voice.pitch_hz * (1 + half)
    lines = [f"pitch {round(low)} {round(high)}", f"flutter {voice.flutter}", f"roughness {voice.roughness}"]
    lines += [f"consonants {voice.consonants} {voice.consonants}"]
    for number, (place, height, width) in enumerate(voice.formants):
        lines.append(f"formant {number} {place} {0 if whisper and number == 0 else height} {width}")
    if whisper:
        # The source's own noise takes the place of the folds' pulses, as in eSpeak's own whispering variant.
        lines += ["voicing 17", "breath 75 75 50 40 15 10", "breathw 150 150 200 200 400 400"]
    else:
        lines.append(f"voicing {voice.voicing}")
    return "\n".join(lines) + "\n"


# Measured on eSpeak NG 1.52: semitones by which the median pitch moves for a value of the parameter.
_SETTINGS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 99)
_SEMITONES = (-7.91, -6.55, -5.17, -3.51, -1.82, 0.0, 1.85, 3.78, 5.73, 9.53)


def pitch_setting(semitones: float) -> int:
    """eSpeak's pitch parameter (0–99) that moves the pitch by so many semitones; 50 leaves it."""
    return round(float(np.interp(semitones, _SEMITONES, _SETTINGS)))
