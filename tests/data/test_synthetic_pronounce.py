"""Pronunciations by rule: checked against what any dictionary of English says."""

import pytest

from sonorant.core.errors import ConfigError
from sonorant.data.synthetic.pronounce import pronounce

pytest.importorskip("espeakng_loader")


def test_common_words_have_their_phones() -> None:
    wanted = {
        "elephant": "ɛ l ɪ f ə n t",
        "school": "s k uː l",
        "three": "θ ɹ iː",
        "jumping": "dʒ ʌ m p ɪ ŋ",
        "hours": "aʊ ɚ z",
    }
    found = pronounce(wanted)
    assert list(found) == list(wanted)
    assert {word: " ".join(entries[0].phones) for word, entries in found.items()} == wanted


def test_small_words_are_weak_first_and_full_second() -> None:
    assert [" ".join(entry.phones) for entry in pronounce(["a"])["a"]] == ["ə", "eɪ"]


EVERY_SOUND = """
    water little bird near fire idea button hurry carry horse boy joy the roses hoping cure measure
    chew think this vision go way yes out now how ship thing could say see hat
"""


def test_the_phones_of_english_are_few() -> None:
    phones = pronounce(EVERY_SOUND.split()).phones()
    assert all(phone.isalpha() or phone.endswith("ː") for phone in phones)
    # Carnegie Mellon's dictionary has 39; ɔː and ɑː, ə and ʌ are two each here.
    assert 36 <= len(phones) <= 44


def test_same_in_any_order_and_for_other_languages() -> None:
    assert pronounce(["red", "blue"])["red"] == pronounce(["blue", "red"])["red"]
    assert pronounce(["bonjour"], "fr").phones() != pronounce(["bonjour"], "en").phones()
    with pytest.raises(ConfigError, match="xx"):
        pronounce(["a"], "xx")


def test_what_cannot_be_said_is_left_out() -> None:
    assert list(pronounce(["red", "'"])) == ["red"]
