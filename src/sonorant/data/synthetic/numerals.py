"""Numbers from 0 to 100 in words, in English, French, Spanish and German, agreeing with what is counted.

Written as a recogniser's transcript is: lower case, no hyphens.
"""

from sonorant.core.errors import DataError

__all__ = ["numeral"]

_UNITS = {
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn "
    "siebzehn achtzehn neunzehn",
}
_TENS = {
    "en": "ten twenty thirty forty fifty sixty seventy eighty ninety",
    "fr": "dix vingt trente quarante cinquante soixante",
    "es": "diez veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
    "de": "zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
}
_HUNDRED = {"en": "one hundred", "fr": "cent", "es": "cien", "de": "hundert"}


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
    if number == 100:
        return _HUNDRED[language]
    return {"en": _english, "fr": _french, "es": _spanish, "de": _german}[language](number, counting)


def _english(number: int, counting: str) -> str:
    units, tens = _UNITS["en"].split(), _TENS["en"].split()
    if number < 20:
        return units[number]
    return tens[number // 10 - 1] + (f" {units[number % 10]}" if number % 10 else "")


def _french(number: int, counting: str) -> str:
    units, tens = _UNITS["fr"].split(), _TENS["fr"].split()
    if number % 10 == 1 and counting == "f" and number not in (11, 71, 91):
        return _french(number, "")[:-2] + "une"
    if number < 17:
        return units[number]
    if number < 20:
        return f"dix {units[number - 10]}"
    if number < 70:
        ten, unit = tens[number // 10 - 1], number % 10
        return ten if unit == 0 else f"{ten} et un" if unit == 1 else f"{ten} {units[unit]}"
    if number < 80:
        return "soixante et onze" if number == 71 else f"soixante {_french(number - 60, '')}"
    return "quatre vingts" if number == 80 else f"quatre vingt {_french(number - 80, '')}"


def _spanish(number: int, counting: str) -> str:
    units, tens = _UNITS["es"].split(), _TENS["es"].split()
    if number % 10 == 1 and number != 11 and counting:
        if counting == "f":
            return _spanish(number, "")[:-1] + "a"
        return {1: "un", 21: "veintiún"}.get(number, _spanish(number, "")[:-1])
    if number < 30:
        return units[number]
    return tens[number // 10 - 1] + (f" y {units[number % 10]}" if number % 10 else "")


def _german(number: int, counting: str) -> str:
    units, tens = _UNITS["de"].split(), _TENS["de"].split()
    if number == 1 and counting:
        return "eine" if counting == "f" else "ein"
    if number < 20:
        return units[number]
    ten, unit = tens[number // 10 - 1], number % 10
    return ten if unit == 0 else f"{'ein' if unit == 1 else units[unit]}und{ten}"
