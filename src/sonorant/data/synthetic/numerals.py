"""Numbers from 0 to 100 in words, in English, French, Spanish and German, agreeing with what is counted.

`text.numbers` spells them; here they are written as a recogniser's transcript is, lower case and without hyphens, and given
the gender of the noun that follows, which spelling a number in running text cannot know.
"""

from sonorant.core.errors import DataError
from sonorant.text.numbers import cardinal

__all__ = ["numeral"]


def numeral(number: int, language: str, counting: str = "") -> str:
    """A number in words.

    Args:
        number: 0 to 100.
        language: `en`, `fr`, `es` or `de`.
        counting: the gender (`m`, `f` or `n`) of the noun that follows; empty where the number stands alone.

    >>> numeral(21, "fr", counting="f"), numeral(21, "es", counting="m"), numeral(21, "de"), numeral(97, "fr")
    ('vingt et une', 'veintiún', 'einundzwanzig', 'quatre vingt dix sept')
    """
    if not 0 <= number <= 100:
        raise DataError(f"a numeral must lie between 0 and 100, got {number}")
    if (number, language) == (100, "de"):
        return "hundert"  # as it is said of a hundred things; "einhundert" is for counting aloud and for cheques
    words = cardinal(number, language).replace("-", " ")
    return _agreeing(words, number, language, counting) if counting and number % 10 == 1 else words


def _agreeing(words: str, number: int, language: str, gender: str) -> str:
    """The one at the end of a number in the gender of what is counted."""
    if language == "fr" and gender == "f" and number not in (11, 71, 91):
        return words.removesuffix("un") + "une"
    if language == "es" and number != 11:
        if gender == "f":
            return words.removesuffix("o") + "a"
        return {1: "un", 21: "veintiún"}.get(number, words.removesuffix("o"))
    if language == "de" and number == 1:
        return "eine" if gender == "f" else "ein"
    return words
