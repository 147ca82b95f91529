"""Speech with exact times from eSpeak NG: samples, phones, syllables and words.

Read in this order: `Speech` (what comes out), `speak`, then how times are made: `_phones` (a stop owns its closure),
`_words` (eSpeak's word marks mended), `_syllables`.

What is known of eSpeak NG 1.52 and mended here:

- The event of a stop comes at its burst. Its closure is exact digital silence before that, so the phone is moved back
  over it (a phone owns the silence before its sound).
- Frequent pairs ("in the", "kind of") are one entry of the dictionary and get one word event. A no-break space between
  words keeps them apart.
- Before a word that begins with a vowel, the word event comes one phone early where the word before ends in a nasal or
  a liquid ("turn on" is marked as "tur non"). The mark is moved where that word alone begins with a vowel.
- Pauses and changes of language come as phones too. Pauses are kept under the name `SILENCE`.
"""

import bisect
import functools
import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonorant.core.errors import DataError
from sonorant.data.synthetic.library import EVENT_PHONE, EVENT_WORD, Library

__all__ = ["SILENCE", "Mark", "Speech", "is_vowel", "library_of", "speak"]

SILENCE = "sil"
"""The phone between phones: a pause."""
_VOWELS = frozenset("aeiouyæøœɐɑɒɔəɚɛɜɝɞɤɨɪɯɵʉʊʌʏᵻ")
_SYLLABIC = "\u0329"
_LINKING = frozenset("nmŋɲlɹrɾʁʎ")
_MARKS = re.compile(r"[ˈˌ\-]")
_PUNCTUATION = '¿¡.,;:!?"'
_JOINED = re.compile(r"(?<![.,;:!?]) ")
"""A space that no pause goes with: it becomes a no-break space."""
_QUIET = 1
"""Largest absolute sample of a closure; the vocal tract filter leaves the last bit moving."""
_SHORTEST_CLOSURE = 44
"""Samples (2 ms at 22050 Hz): anything shorter is a zero crossing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled stretch, in samples; `onset` is where its own sound begins (the burst of a stop)."""

    label: str
    start: int
    end: int
    onset: int
    stress: int = 0
    """0 none, 1 secondary, 2 primary; of phones and syllables."""


@dataclass(frozen=True)
class Speech:
    """What eSpeak NG said."""

    samples: NDArray[np.int16]
    sample_rate: int
    """Hz."""
    phones: tuple[Mark, ...]
    """IPA, contiguous, over the whole signal; pauses are `SILENCE`."""
    syllables: tuple[Mark, ...]
    """Label: the phones joined by a dot-free string. They fill the words."""
    words: tuple[Mark, ...]
    """The words as written in the text; no pause at either end."""


def is_vowel(phone: str) -> bool:
    """Whether the phone can be a syllable's nucleus: a vowel, a diphthong, or a consonant marked as syllabic.

    >>> is_vowel("aɪ"), is_vowel("əl"), is_vowel("n"), is_vowel("sil")
    (True, True, False, False)
    """
    return phone != SILENCE and (phone[:1] in _VOWELS or _SYLLABIC in phone)


def speak(text: str, language: str = "en", voice_file: str = "", **parameters: int) -> Speech:
    """Says a text; the same bytes for the same arguments in every process.

    Args:
        text: words separated by spaces; punctuation makes pauses and intonation.
        language: an eSpeak language code.
        voice_file: text of an eSpeak voice variant, see `sonorant.data.synthetic.voices`.
        parameters: `rate` in words a minute (80–450), `pitch` and `pitch_range` (0–100), `volume` (0–200), `word_gap`.

    Raises:
        MissingPackage: `espeakng-loader` is not installed.
        ConfigError: unknown language or a voice that eSpeak does not accept.
        DataError: the text holds nothing to say.
    """
    library = library_of(language)
    data, events = library.speak(_JOINED.sub("\u00a0", text), voice_file, phones=False, **parameters)
    samples = np.frombuffer(data, dtype=np.int16)
    phones = _phones(samples, [event for event in events if event[0] == EVENT_PHONE])
    if not any(phone.label != SILENCE for phone in phones):
        raise DataError(f"nothing to say in {text!r}; a text needs at least one letter or digit")
    marks = [(event[1], event[2] - 1) for event in events if event[0] == EVENT_WORD]
    groups = _words(text, phones, marks, language.lower())
    words = [_joined(word, phones[first:last]) for word, first, last in groups]
    syllables = [syllable for _, first, last in groups for syllable in _syllables(phones[first:last])]
    return Speech(samples, library.sample_rate, tuple(phones), tuple(syllables), tuple(words))


def library_of(language: str) -> Library:
    """This process's copy of eSpeak NG for a language; raises as `speak` does."""
    return _library(language.lower(), os.getpid())


@functools.lru_cache(maxsize=8)
def _library(language: str, pid: int) -> Library:
    """The loaded copy for a language; a forked child loads its own."""
    return Library(language)


@functools.cache
def _begins_with_vowel(word: str, language: str) -> bool:
    """Whether the word alone begins with a vowel."""
    alone = _MARKS.sub("", library_of(language).phonemise(word)).strip()
    return is_vowel(alone)


@functools.lru_cache(maxsize=4096)
def _named(name: bytes) -> tuple[str, int]:
    """A phone event's name as IPA without marks, and its stress; a pause has no name."""
    text = name.decode("utf-8", "ignore")
    return _MARKS.sub("", text), 2 if "ˈ" in text else 1 if "ˌ" in text else 0


def _phones(samples: NDArray[np.int16], events: list[tuple[int, int, int, int, bytes]]) -> list[Mark]:
    """Phones over the whole signal; a stop begins with its closure, neighbouring pauses are one."""
    total = len(samples)
    sounds: list[tuple[str, int, int]] = []
    ends = [min(event[1], total) for event in events[1:]] + [total]
    for (_, onset, _, _, name), end in zip(events, ends):
        label, stress = _named(name)
        # Marks without length carry no sound; "(en)" tells of a change of language.
        if end <= onset or label.startswith("(") or (sounds and not label and not sounds[-1][0]):
            continue
        sounds.append((label, onset, stress))
    onsets = np.array([onset for _, onset, _ in sounds])
    loud = np.flatnonzero((samples > _QUIET) | (samples < -_QUIET))
    # The first sample after the last loud one before each onset.
    last = np.concatenate([[0], loud + 1])[np.searchsorted(loud, onsets)].tolist()
    starts = [0]
    for (label, onset, _), before, silent in zip(sounds[1:], sounds, last[1:]):
        closed = label and silent > before[1] and onset - silent >= _SHORTEST_CLOSURE
        starts.append(silent if closed else onset)
    return [
        Mark(label or SILENCE, start, end, onset, stress)
        for (label, onset, stress), start, end in zip(sounds, starts, [*starts[1:], total])
    ]


def _words(text: str, phones: list[Mark], marks: list[tuple[int, int]], language: str) -> list[tuple[str, int, int]]:
    """Each written word with the range of its phones; pauses at its ends belong to no word."""
    spans = [(match.group().strip(_PUNCTUATION), match.end()) for match in re.finditer(r"\S+", text)]
    ends = [phone.end for phone in phones]
    found: list[tuple[str, int]] = []
    span = -1
    for sample, position in marks:
        if span >= 0 and position < spans[span][1]:  # a second event inside one written word ("l'ampoule")
            continue
        while span + 1 < len(spans) and position >= spans[span + 1][1]:
            span += 1
        span += 1
        if span >= len(spans):
            break
        first = bisect.bisect_right(ends, sample)
        while first < len(phones) and phones[first].label == SILENCE:
            first += 1
        found.append((spans[span][0], first + _is_early(phones, first, bool(found), spans[span][0], language)))
    groups = []
    for (word, first), (_, last) in zip(found, [*found[1:], ("", len(phones))]):
        while last > first and phones[last - 1].label == SILENCE:
            last -= 1
        if last > first:
            groups.append((word, first, last))
    return groups


def _is_early(phones: list[Mark], first: int, follows: bool, word: str, language: str) -> bool:
    """Whether the mark of a word stands at the last consonant of the word before."""
    if not follows or first + 1 >= len(phones):
        return False
    links = phones[first].label in _LINKING and is_vowel(phones[first + 1].label)
    return links and _begins_with_vowel(word, language)


def _joined(label: str, phones: list[Mark]) -> Mark:
    stress = max(phone.stress for phone in phones)
    return Mark(label, phones[0].start, phones[-1].end, phones[0].onset, stress)


def _syllables(phones: list[Mark]) -> list[Mark]:
    """A word's phones as syllables: one for each nucleus, a consonant before a nucleus goes with it.

    The longest onset is cut by sonority: consonants join the nucleus to the right as long as sonority rises towards it.
    """
    nuclei = [i for i, phone in enumerate(phones) if is_vowel(phone.label)]
    starts = [0]
    for left, right in zip(nuclei, nuclei[1:]):
        start = right
        while start - 1 > left and (start == right or _sonority(phones[start - 1]) < _sonority(phones[start])):
            start -= 1
        starts.append(start)
    ranges = zip(starts, [*starts[1:], len(phones)])
    return [_joined("".join(p.label for p in phones[a:b] if p.label != SILENCE), phones[a:b]) for a, b in ranges]


def _sonority(phone: Mark) -> int:
    label = phone.label
    if label == SILENCE:
        return 9  # nothing goes across a pause
    if label[0] in "jwɥ":
        return 4
    if label[0] in "lɹrɾʁʎ":
        return 3
    if label[0] in "mnŋɲ":
        return 2
    return 1 if label[0] in "fvszʃʒθðçxhɣβʝ" else 0
