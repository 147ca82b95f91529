"""Numbers as words, for English, French, Spanish and German: cardinals below 10¹², English ordinals, years.

`cardinal`, `ordinal` and `year` each spell one number in the language's own orthography; `spell_numbers` finds numbers
in running text. Read `_GRAMMARS` first: a language is a small record of words and the few rules in which it differs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["LANGUAGES", "Grammar", "cardinal", "grammar_of", "ordinal", "spell_numbers", "year"]

LIMIT = 10**12
"""Cardinals stop here: longer digit strings are read digit by digit."""


def _words(text: str) -> list[str]:
    return text.split()


_EN_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_EN_TENS = _words("_ _ twenty thirty forty fifty sixty seventy eighty ninety")
_FR_SMALL = _words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf"
)
_FR_TENS = _words("_ _ vingt trente quarante cinquante soixante")
_ES_SMALL = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete "
    "veintiocho veintinueve"
)
_ES_TENS = _words("_ _ _ treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS = _words(
    "_ ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
_DE_SMALL = _words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
_DE_TENS = _words("_ _ zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")


def _en_below_thousand(n: int, conjunction: bool) -> str:
    hundreds, rest = divmod(n, 100)
    tail = _EN_SMALL[rest] if rest < 20 else _EN_TENS[rest // 10] + (f"-{_EN_SMALL[rest % 10]}" if rest % 10 else "")
    if not hundreds:
        return tail
    head = f"{_EN_SMALL[hundreds]} hundred"
    return f"{head}{' and' if conjunction else ''} {tail}" if rest else head


def _en(n: int, conjunction: bool) -> str:
    if n < 1000:
        return _en_below_thousand(n, conjunction)
    words = []
    for size, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        count, n = divmod(n, size)
        if count:
            words.append(f"{_en_below_thousand(count, conjunction)} {name}")
    if n:
        # "one thousand and five", but "one thousand one hundred and five"
        words += ["and"] if conjunction and n < 100 else []
        words.append(_en_below_thousand(n, conjunction))
    return " ".join(words)


def _fr_below_hundred(n: int, final: bool) -> str:
    if n < 20:
        return _FR_SMALL[n]
    if n >= 80:  # quatre-vingts loses its s before anything else, "mille" included
        return "quatre-vingt" + (f"-{_FR_SMALL[n - 80]}" if n > 80 else "s" if final else "")
    tens, unit = divmod(n, 10)
    if tens == 7:
        return f"soixante et {_FR_SMALL[11]}" if unit == 1 else f"soixante-{_FR_SMALL[10 + unit]}"
    word = _FR_TENS[tens]
    return word if unit == 0 else f"{word} et un" if unit == 1 else f"{word}-{_FR_SMALL[unit]}"


def _fr_below_thousand(n: int, final: bool) -> str:
    hundreds, rest = divmod(n, 100)
    if not hundreds:
        return _fr_below_hundred(rest, final)
    head = "cent" if hundreds == 1 else f"{_FR_SMALL[hundreds]} cent"
    if rest:
        return f"{head} {_fr_below_hundred(rest, final)}"
    return head + ("s" if hundreds > 1 and final else "")


def _fr(n: int, conjunction: bool) -> str:
    if n < 1000:
        return _fr_below_thousand(n, True)
    words = []
    for size, name in ((10**9, "milliard"), (10**6, "million")):
        count, n = divmod(n, size)
        if count:  # million and milliard are nouns: "deux cents millions"
            words.append(f"{_fr_below_thousand(count, True)} {name}{'s' if count > 1 else ''}")
    count, n = divmod(n, 1000)
    if count:
        words.append("mille" if count == 1 else f"{_fr_below_thousand(count, False)} mille")
    if n:
        words.append(_fr_below_thousand(n, True))
    return " ".join(words)


def _es_below_thousand(n: int) -> str:
    if n == 100:
        return "cien"
    hundreds, rest = divmod(n, 100)
    tens, unit = divmod(rest, 10)
    tail = _ES_SMALL[rest] if rest < 30 else _ES_TENS[tens] + (f" y {_ES_SMALL[unit]}" if unit else "")
    return tail if not hundreds else f"{_ES_HUNDREDS[hundreds]} {tail}" if rest else _ES_HUNDREDS[hundreds]


def _es_short(words: str) -> str:
    """The form before a masculine noun: "veintiún mil", "un millón"."""
    if words.endswith("veintiuno"):
        return words[:-3] + "ún"
    return words[:-1] if words.endswith("uno") else words


def _es_below_million(n: int) -> str:
    thousands, rest = divmod(n, 1000)
    words = []
    if thousands:
        words.append("mil" if thousands == 1 else f"{_es_short(_es_below_thousand(thousands))} mil")
    if rest or not thousands:
        words.append(_es_below_thousand(rest))
    return " ".join(words)


def _es(n: int, conjunction: bool) -> str:
    # The long scale: 10⁹ is "mil millones".
    millions, rest = divmod(n, 10**6)
    if not millions:
        return _es_below_million(rest)
    head = "un millón" if millions == 1 else f"{_es_short(_es_below_million(millions))} millones"
    return f"{head} {_es_below_million(rest)}" if rest else head


def _de_below_thousand(n: int, final: str) -> str:
    """`final` is how a last one is written: "eins" at the end, "ein" before tausend, "eine" before Million."""
    hundreds, rest = divmod(n, 100)
    head = f"{'ein' if hundreds == 1 else _DE_SMALL[hundreds]}hundert" if hundreds else ""
    if hundreds and not rest:
        return head
    tens, unit = divmod(rest, 10)
    if rest == 1:
        tail = final
    elif rest < 20:
        tail = _DE_SMALL[rest]
    else:
        tail = (f"{'ein' if unit == 1 else _DE_SMALL[unit]}und" if unit else "") + _DE_TENS[tens]
    return head + tail


def _de(n: int, conjunction: bool) -> str:
    words = []
    for size, one, many in ((10**9, "Milliarde", "Milliarden"), (10**6, "Million", "Millionen")):
        count, n = divmod(n, size)
        if count:
            words.append(f"{_de_below_thousand(count, 'eine')} {one if count == 1 else many}")
    thousands, rest = divmod(n, 1000)
    tail = f"{_de_below_thousand(thousands, 'ein')}tausend" if thousands else ""
    if rest or not (words or thousands):
        tail += _de_below_thousand(rest, "eins")
    return " ".join([*words, tail] if tail else words)


@dataclass(frozen=True)
class Grammar:
    """What a language says for a number, and the marks that it writes."""

    cardinal: Callable[[int, bool], str]
    minus: str
    point: str
    """How the decimal separator is read."""
    separator: str
    """Decimal separator as written."""
    grouping: str
    """Characters that may stand between groups of three digits, as a regular expression's class."""
    percent: str
    ampersand: str
    hundred_years: tuple[int, int] | None = None
    """Years in this range are read as hundreds: "nineteen eighty-four", "neunzehnhundertvierundachtzig"."""


# U+00A0 and U+202F group digits in all four; a plain space never does, since it also parts two numbers.
_GRAMMARS = {
    "en": Grammar(_en, "minus", "point", ".", ",\u00a0\u202f", "percent", "and", (1100, 2099)),
    "fr": Grammar(_fr, "moins", "virgule", ",", ".\u00a0\u202f", "pour cent", "et"),
    "es": Grammar(_es, "menos", "coma", ",", ".\u00a0\u202f", "por ciento", "y"),
    "de": Grammar(_de, "minus", "Komma", ",", ".\u00a0\u202f", "Prozent", "und", (1100, 1999)),
}
LANGUAGES = tuple(_GRAMMARS)
"""Languages whose numbers can be spelled."""


def grammar_of(language: str) -> Grammar:
    """The words and rules of a language; `ConfigError` for one that is not known."""
    if language not in _GRAMMARS:
        raise ConfigError(unknown_name("language of numbers", language, _GRAMMARS))
    return _GRAMMARS[language]


def cardinal(number: int, language: str = "en", *, conjunction: bool = False) -> str:
    """The cardinal in words, with the language's own hyphens and capitals.

    `conjunction` puts the British "and" into English ("one hundred and one"); the other languages do not look at it.
    Raises `ConfigError` for an unknown language, `ValueError` from 10¹² on.

    >>> cardinal(1_234), cardinal(81, "fr"), cardinal(21_000, "es"), cardinal(121, "de")
    ('one thousand two hundred thirty-four', 'quatre-vingt-un', 'veintiún mil', 'einhunderteinundzwanzig')
    """
    grammar = grammar_of(language)
    if abs(number) >= LIMIT:
        raise ValueError(f"cardinal spells numbers below 10**12 in absolute value, got {number}; spell its digits")
    words = grammar.cardinal(abs(number), conjunction)
    return f"{grammar.minus} {words}" if number < 0 else words


_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def ordinal(number: int, *, conjunction: bool = False) -> str:
    """The English ordinal in words.

    >>> ordinal(1), ordinal(20), ordinal(1_432)
    ('first', 'twentieth', 'one thousand four hundred thirty-second')
    """
    head, cut, last = re.split(r"((?:.*[ -])?)(?=[a-z]+$)", cardinal(number, "en", conjunction=conjunction), maxsplit=1)
    regular = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return head + cut + _ORDINALS.get(last, regular)


def year(number: int, language: str = "en") -> str:
    """A year in words: as hundreds where the language does so, else the cardinal.

    >>> year(1984), year(1905), year(2007), year(1900), year(1984, "fr")
    ('nineteen eighty-four', 'nineteen oh five', 'two thousand seven', 'nineteen hundred', 'mille neuf cent quatre-vingt-quatre')
    """  # noqa: E501
    span = grammar_of(language).hundred_years
    century, rest = divmod(number, 100)
    # 2000 to 2009 are counted, not split; 2010 on are split in English.
    if span is None or not span[0] <= number <= span[1] or 2000 <= number <= 2009:
        return cardinal(number, language)
    head = cardinal(century, language)
    if language == "de":
        return f"{head}hundert{cardinal(rest, 'de') if rest else ''}"
    if rest == 0:
        return f"{head} hundred"
    return f"{head} oh {_EN_SMALL[rest]}" if rest < 10 else f"{head} {cardinal(rest, language)}"


def _digits(text: str, language: str) -> str:
    return " ".join(cardinal(int(digit), language) for digit in text)


def _whole(text: str, language: str, years: bool, conjunction: bool) -> str:
    """Leading zeros and what is too long are read digit by digit, as telephone numbers are."""
    if (len(text) > 1 and text[0] == "0") or len(text) > 12:
        return _digits(text, language)
    if years and len(text) == 4:
        return year(int(text), language)
    return cardinal(int(text), language, conjunction=conjunction)


def _pattern(grammar: Grammar) -> re.Pattern[str]:
    group, point = f"[{re.escape(grammar.grouping)}]", re.escape(grammar.separator)
    return re.compile(
        # a minus sign counts only at the start of a word: "3-4" holds no negative number
        rf"(?P<minus>(?<![\w.,])[-\u2212](?=\d))?"
        rf"(?P<whole>\d{{1,3}}(?:{group}\d{{3}})+(?!\d)|\d+)"
        rf"(?:{point}(?P<fraction>\d+))?"
        rf"(?P<ordinal>(?:st|nd|rd|th)\b)?"
        rf"(?P<percent>\s?%)?",
        re.ASCII | re.IGNORECASE,
    )


_DIGIT = re.compile("[0-9]")
_PATTERNS = {language: _pattern(grammar) for language, grammar in _GRAMMARS.items()}


def spell_numbers(text: str, language: str = "en", *, years: bool = False, conjunction: bool = False) -> str:
    """Every number in `text` as words: grouped digits, decimals (digits after the point one by one), a minus sign, a
    per cent sign, English ordinals; digit by digit where it starts with 0 or has more than 12 digits.

    `years` reads bare four-digit numbers from 1100 to 2099 as years. Letters touching a number are parted from it.

    >>> spell_numbers("the 21st of 1,200 at 3.14%, 007")
    'the twenty-first of one thousand two hundred at three point one four percent, zero zero seven'
    >>> spell_numbers("in 1999", years=True)
    'in nineteen ninety-nine'
    """
    grammar = grammar_of(language)
    if not _DIGIT.search(text):
        return text  # most of what is written

    def spell(match: re.Match[str]) -> str:
        whole, fraction = re.sub(r"\D", "", match["whole"]), match["fraction"]
        plain = whole == match["whole"] and not (fraction or match["percent"] or match["minus"])
        if match["ordinal"] and language == "en" and not fraction and len(whole) <= 12:
            words = ordinal(int(whole), conjunction=conjunction)
        else:
            words = _whole(whole, language, years and plain, conjunction)
            words += f" {grammar.point} {_digits(fraction, language)}" if fraction else ""
            words += f" {match['ordinal']}" if match["ordinal"] else ""
        words = f"{grammar.minus} {words}" if match["minus"] else words
        words += f" {grammar.percent}" if match["percent"] else ""
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        return (" " if before.isalnum() else "") + words + (" " if after.isalnum() else "")

    return _PATTERNS[language].sub(spell, text)
