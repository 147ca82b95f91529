import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonorant.core.errors import ConfigError
from sonorant.text.numbers import LANGUAGES, cardinal, ordinal, spell_numbers, year


@pytest.mark.parametrize(
    "language, number, words",
    [
        ("en", 0, "zero"),
        ("en", 110, "one hundred ten"),
        ("en", 999_999_999_999, "nine hundred ninety-nine billion nine hundred ninety-nine million nine hundred "
         "ninety-nine thousand nine hundred ninety-nine"),
        ("en", -5, "minus five"),
        ("fr", 71, "soixante et onze"),
        ("fr", 80, "quatre-vingts"),
        ("fr", 91, "quatre-vingt-onze"),
        ("fr", 80_000, "quatre-vingt mille"),
        ("fr", 80_000_000, "quatre-vingts millions"),
        ("fr", 200, "deux cents"),
        ("fr", 201, "deux cent un"),
        ("fr", 1_001, "mille un"),
        ("es", 100, "cien"),
        ("es", 101, "ciento uno"),
        ("es", 1_000_000, "un millón"),
        ("es", 21_031, "veintiún mil treinta y uno"),
        ("es", 2_001_000_000, "dos mil un millones"),
        ("de", 1, "eins"),
        ("de", 21, "einundzwanzig"),
        ("de", 1_001_001, "eine Million eintausendeins"),
        ("de", 31_000_000_000, "einunddreißig Milliarden"),
        ("de", 1_000_000_016, "eine Milliarde sechzehn"),
    ],
)  # fmt: skip
def test_cardinals_that_are_known(language: str, number: int, words: str) -> None:
    assert cardinal(number, language) == words


def _plain(words: str) -> str:
    return " ".join(re.sub(r"[-,]", " ", words.lower()).split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_cardinals_equal_num2words(language: str) -> None:
    num2words = pytest.importorskip("num2words").num2words
    numbers = [*range(1_200), *range(1_900, 2_200), *(k * 10**e + r for e in range(3, 9) for k in (1, 2, 9, 21, 80, 100)
               for r in (0, 1, 71, 100, 1_001))]  # fmt: skip
    for number in sorted({n for n in numbers if n < 10**9}):
        ours = cardinal(number, language, conjunction=True)
        theirs = num2words(number, lang=language)
        # Duden has "einhunderteintausend", the RAE "veintiún mil" and "treinta y un mil"; num2words 0.5 has neither.
        theirs = theirs.replace("einstausend", "eintausend").replace("veintiuno m", "veintiún m")
        theirs = theirs.replace("uno mil", "un mil")
        assert _plain(ours) == _plain(theirs), number


def test_ordinals_and_years_equal_num2words() -> None:
    num2words = pytest.importorskip("num2words").num2words
    for number in [*range(1_200), 12_345, 1_000_000]:
        assert _plain(ordinal(number, conjunction=True)) == _plain(num2words(number, to="ordinal"))
    for number in [*range(1_100, 2_000), *range(2_010, 2_100)]:
        assert _plain(year(number)) == _plain(num2words(number, to="year")).replace("oh ", "oh "), number
    for number in range(1_100, 2_000):
        assert year(number, "de") == num2words(number, lang="de", to="year"), number


@pytest.mark.parametrize("language", LANGUAGES)
def test_different_numbers_have_different_words(language: str) -> None:
    words = [cardinal(number, language) for number in range(20_000)]
    assert len(set(words)) == len(words)


@given(st.integers(0, 10**12 - 1), st.sampled_from(LANGUAGES))
def test_words_hold_no_digit_and_large_parts_add_up(number: int, language: str) -> None:
    words = cardinal(number, language)
    assert not re.search(r"\d|  |^ | $", words)
    if number >= 10**6 and number % 10**6:
        # a number is its millions followed by the rest
        head, tail = cardinal(number - number % 10**6, language), cardinal(number % 10**6, language)
        assert words == f"{head} {tail}"


@pytest.mark.parametrize(
    "language, text, spelled",
    [
        ("en", "1,234,567 people", "one million two hundred thirty-four thousand five hundred sixty-seven people"),
        ("en", "call 0800 now", "call zero eight zero zero now"),
        ("en", "-3 degrees, 3-4 times", "minus three degrees, three-four times"),
        ("en", "2.50, then 3.", "two point five zero, then three."),
        ("en", "the 42ND at 5 %", "the forty-second at five percent"),
        ("en", "mp3 4x4", "mp three four x four"),
        ("en", "1,23", "one,twenty-three"),
        ("en", "1234567890123", "one two three four five six seven eight nine zero one two three"),
        ("fr", "1.000.000,5", "un million virgule cinq"),
        ("fr", "10\u202f000 et 10 100", "dix mille et dix cent"),
        ("de", "3,14 %", "drei Komma eins vier Prozent"),
        ("es", "21 %", "veintiuno por ciento"),
    ],
)
def test_numbers_in_running_text(language: str, text: str, spelled: str) -> None:
    assert spell_numbers(text, language) == spelled


def test_years_are_read_only_where_asked_for() -> None:
    assert spell_numbers("1984", years=True) == "nineteen eighty-four"
    assert spell_numbers("1984") == "one thousand nine hundred eighty-four"
    assert spell_numbers("1,984 and 1984%", years=True).startswith("one thousand nine hundred eighty-four and one")


def test_refusals_name_the_thing() -> None:
    with pytest.raises(ConfigError, match="'xx'"):
        cardinal(1, "xx")
    with pytest.raises(ValueError, match="1000000000000"):
        cardinal(10**12)
