"""Times of phones, syllables and words are those of the sound."""

import itertools
import random

import numpy as np
import pytest

from sonorant.core.errors import DataError
from sonorant.data.synthetic.espeak import SILENCE, Speech, is_vowel, speak
from sonorant.data.synthetic.f0 import track
from sonorant.data.synthetic.sentences import draw, realise
from sonorant.data.synthetic.voices import draw_voice, voice_file

pytest.importorskip("espeakng_loader")


def crossings(speech: Speech, labels: str) -> float:
    """Mean rate of zero crossings in the middle of the phones of these names, from their onset."""
    rates = []
    for phone in speech.phones:
        if phone.label in labels.split():
            quarter = (phone.end - phone.onset) // 4
            inside = speech.samples[phone.onset + quarter : phone.end - quarter].astype(int)
            if len(inside) > 100:
                rates.append(np.mean(np.diff(np.sign(inside)) != 0))
    assert rates
    return float(np.mean(rates))


def test_fricatives_hiss_and_vowels_do_not() -> None:
    speech = speak("Sue sees six. See sauce.")
    assert crossings(speech, "s") > 0.3
    assert crossings(speech, "uː iː ɪ ɔː") < 0.15


def test_a_stop_owns_its_silent_closure() -> None:
    speech = speak("a cat attacked a tiger")
    stops = [phone for phone in speech.phones if phone.label in ("k", "t") and phone.onset > phone.start]
    assert len(stops) >= 4
    for stop in stops:
        assert np.abs(speech.samples[stop.start : stop.onset].astype(int)).max() <= 1
        assert np.abs(speech.samples[stop.onset : stop.end].astype(int)).max() > 300
        assert 0.01 < (stop.onset - stop.start) / speech.sample_rate < 0.15


@pytest.mark.parametrize("language", ["en", "fr", "es", "de"])
def test_tiers_are_contiguous_and_nested(language: str) -> None:
    draws = random.Random(language)
    for grammar in ("commands", "numbers", "world") * 12:
        text = realise(draw(grammar, 32, draws), language)
        speech = speak(text, language, rate=draws.randint(140, 250))
        assert [word.label for word in speech.words] == text.split()
        assert speech.phones[0].start == 0
        assert speech.phones[-1].end == len(speech.samples)
        for left, right in itertools.pairwise(speech.phones):
            assert left.end == right.start
            assert left.start < left.end
            assert {left.label, right.label} != {SILENCE}
        edges = {phone.start for phone in speech.phones}
        for word in speech.words:
            inside = [s for s in speech.syllables if word.start <= s.start < word.end]
            assert (inside[0].start, inside[-1].end) == (word.start, word.end)
            assert all(a.end == b.start for a, b in itertools.pairwise(inside))
            assert {syllable.start for syllable in inside} <= edges
        assert all(a.end <= b.start for a, b in itertools.pairwise(speech.words))
        spoken = sum(phone.end - phone.start for phone in speech.phones if phone.label != SILENCE)
        assert sum(word.end - word.start for word in speech.words) >= spoken


def test_every_syllable_has_one_nucleus() -> None:
    speech = speak("the kitchen window opened under a golden umbrella in november")
    phones = [phone for phone in speech.phones if phone.label != SILENCE]
    for syllable in speech.syllables:
        inside = [phone.label for phone in phones if syllable.start <= phone.start < syllable.end]
        assert sum(map(is_vowel, inside)) == 1, inside
    assert [s.label for s in speech.syllables][:4] == ["ðə", "kɪ", "tʃən", "wɪn"]


def test_a_final_nasal_stays_in_its_word() -> None:
    """eSpeak marks "on" of "turn on" at the n of "turn"."""
    speech = speak("turn on all of an apple in an open name")
    heard = {}
    for word in speech.words:
        inside = [p.label for p in speech.phones if word.start <= p.start < word.end]
        heard.setdefault(word.label, "".join(inside))
    assert heard["turn"] == "tɜːn"
    assert heard["on"] == "ɔn"
    assert heard["all"] == "ɔːl"
    assert heard["name"] == "neɪm"


def test_frequent_pairs_are_two_words() -> None:
    speech = speak("the light in the kitchen of the house")
    assert [word.label for word in speech.words] == ["the", "light", "in", "the", "kitchen", "of", "the", "house"]


def test_punctuation_makes_a_pause_and_is_no_word() -> None:
    speech = speak("Hello, world!")
    assert [word.label for word in speech.words] == ["Hello", "world"]
    assert any(p.label == SILENCE and speech.words[0].end <= p.start < speech.words[1].start for p in speech.phones)


def test_rate_sets_the_length() -> None:
    slow, fast = (len(speak("turn on the light in the kitchen", rate=rate).samples) for rate in (110, 220))
    assert 1.6 < slow / fast < 2.2


@pytest.mark.parametrize("wanted", [90.0, 140.0, 210.0])
def test_f0_follows_the_voice(wanted: float) -> None:
    from dataclasses import replace

    voice = replace(draw_voice(0, "x"), pitch_hz=wanted, pitch_span=0.3)
    speech = speak("many men were running along the river", "en", voice_file(voice))
    times = np.arange(0, len(speech.samples) / speech.sample_rate, 0.01)
    found = track(speech, wanted, times)
    voiced = found[found > 0]
    assert len(voiced) > 0.5 * len(found)
    assert abs(12 * np.log2(np.median(voiced) / wanted)) < 1.5
    higher = speak("many men were running along the river", "en", voice_file(voice), pitch=70)
    raised = track(higher, wanted * 1.25, np.arange(0, len(higher.samples) / higher.sample_rate, 0.01))
    assert 2.5 < 12 * np.log2(np.median(raised[raised > 0]) / np.median(voiced)) < 5


def test_f0_is_none_in_voiceless_sounds() -> None:
    speech = speak("six sixty six sees")
    times = np.array([(p.onset + p.end) / 2 / speech.sample_rate for p in speech.phones])
    found = track(speech, 100.0, times)
    for phone, hz in zip(speech.phones, found):
        if phone.label in ("s", "k", "t", SILENCE):
            assert hz == 0


def test_nothing_to_say_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to say"):
        speak("  ")
