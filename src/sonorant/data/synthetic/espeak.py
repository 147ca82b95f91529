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

import functools
import os
import re
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonorant.core.errors import DataError
from sonorant.data.synthetic.library import EVENT_PHONE, EVENT_WORD, Library

__all__ = ["SILENCE", "Mark", "Speech", "is_vowel", "speak"]

SILENCE = "sil"
"""The phone between phones: a pause."""
_VOWELS = frozenset("aeiouyæøœɐɑɒɔəɚɛɜɝɞɤɨɪɯɵʉʊʌʏᵻ")
_SYLLABIC = "\u0329"
_LINKING = frozenset("nmŋɲlɹrɾʁʎ")
_MARKS = re.compile(r"[ˈˌ\-]")
_QUIET = 1
"""Largest absolute sample of a closure; the vocal tract filter leaves the last bit moving."""
_SHORTEST_CLOSURE = 44
"""Samples (2 ms at 22050 Hz): anything shorter is a zero crossing."""
_MOST_LIBRARIES = 48
"""Loaded copies kept, each of some 2 MB; one more voice unloads the one that spoke longest ago."""


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
    library = _library(language.lower(), voice_file, os.getpid())
    data, events = library.speak(text.replace(" ", "\u00a0"), **parameters)
    samples = np.frombuffer(data, dtype=np.int16)
    phones, origins = _phones(samples, [event for event in events if event[0] == EVENT_PHONE])
    if not any(phone.label != SILENCE for phone in phones):
        raise DataError(f"nothing to say in {text!r}; a text needs at least one letter or digit")
    marks = [(event[1], event[2] - 1) for event in events if event[0] == EVENT_WORD]
    groups = _words(text, phones, origins, marks, language.lower())
    words = [_joined(word, phones[first:last]) for word, first, last in groups]
    syllables = [syllable for _, first, last in groups for syllable in _syllables(phones[first:last])]
    return Speech(samples, library.sample_rate, tuple(phones), tuple(syllables), tuple(words))


_LIBRARIES: OrderedDict[tuple[str, str, int], Library] = OrderedDict()


def _library(language: str, voice_file: str, pid: int) -> Library:
    """The loaded copy for a voice; a forked child loads its own."""
    key = (language, voice_file, pid)
    found = _LIBRARIES.get(key)
    if found is None:
        if len(_LIBRARIES) >= _MOST_LIBRARIES:
            _LIBRARIES.popitem(last=False)[1].close()
        found = _LIBRARIES[key] = Library(language, voice_file)
    _LIBRARIES.move_to_end(key)
    return found


@functools.cache
def _begins_with_vowel(word: str, language: str) -> bool:
    """Whether the word alone begins with a vowel."""
    alone = _MARKS.sub("", _library(language, "", os.getpid()).phonemise(word)).strip()
    return is_vowel(alone)


def _phones(samples: NDArray[np.int16], events: list[tuple[int, int, int, int, bytes]]) -> tuple[list[Mark], list[int]]:
    """Phones and, for each, the sample of its event (which the word events refer to)."""
    total = len(samples)
    events = [event for event in events if not event[4].startswith(b"(")]  # "(en)": a change of language
    onsets = [min(event[1], total) for event in events]
    kept = [i for i, (here, there) in enumerate(zip(onsets, [*onsets[1:], total])) if there > here]
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _QUIET)
    marks: list[Mark] = []
    starts: list[int] = []
    names = [events[i][4].decode("utf-8", "ignore") for i in kept]
    for position, i in enumerate(kept):
        onset, start = onsets[i], onsets[i]
        if position == 0:
            start = 0
        elif _MARKS.sub("", names[position]):
            before = int(np.searchsorted(loud, onset))
            silent_from = max(int(loud[before - 1]) + 1 if before else 0, onsets[kept[position - 1]])
            if onset - silent_from >= _SHORTEST_CLOSURE and silent_from > onsets[kept[position - 1]]:
                start = silent_from
        starts.append(start)
    for name, i, start, end in zip(names, kept, starts, [*starts[1:], total]):
        stress = 2 if "ˈ" in name else 1 if "ˌ" in name else 0
        marks.append(Mark(_MARKS.sub("", name) or SILENCE, start, end, onsets[i], stress))
    return marks, [onsets[i] for i in kept]


def _words(
    text: str, phones: list[Mark], origins: list[int], marks: list[tuple[int, int]], language: str
) -> list[tuple[str, int, int]]:
    """Each written word with the range of its phones; pauses at its ends belong to no word."""
    spans = [(match.group(), match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    firsts: list[int] = []
    written: list[str] = []
    for sample, position in marks:
        word = next((name for name, _, end in spans if position < end), None)
        if word is None:
            continue
        spans_before = [span for span in spans if span[2] <= position]
        if len(written) > len(spans_before):  # a second event inside the same written word ("l'ampoule")
            continue
        first = next((i for i, p in enumerate(phones) if p.end > sample and p.label != SILENCE), len(phones))
        follows = first + 1 < len(phones) and is_vowel(phones[first + 1].label)
        early = follows and phones[first].label in _LINKING and bool(written)
        if early and _begins_with_vowel(word.strip("¿¡.,;:!?\"'"), language):
            first += 1
        firsts.append(first)
        written.append(word)
    groups = []
    for word, first, last in zip(written, firsts, [*firsts[1:], len(phones)]):
        while last > first and phones[last - 1].label == SILENCE:
            last -= 1
        if last > first:
            groups.append((word.strip('¿¡.,;:!?"'), first, last))
    return groups


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
