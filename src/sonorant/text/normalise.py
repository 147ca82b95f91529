"""One documented normaliser: Unicode form, case, numbers, punctuation, apostrophes, hyphens, accents, white space.

`normalise(text, language, …)` for one call, `Normaliser` to keep the choice with a configuration. The steps, in order:

1. every look-alike of an apostrophe (’ ‘ ʼ ＇ ` ´ ′) becomes `'`, every dash a `-`; digits of any script become 0–9;
2. Unicode form NFKC ("ﬁ" → "fi", "①" → "1") or NFC; invisible characters (soft hyphen, joiners, controls) go;
3. numbers become words, "&" and "%" the language's words for them;
4. case;
5. punctuation and symbols become spaces; apostrophes and hyphens as asked for;
6. accents off, where asked for; runs of white space become one space, none at the ends.

The result is a fixed point: normalising it again changes nothing.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sonorant.core.config import one_of
from sonorant.core.errors import ConfigError
from sonorant.text.numbers import LANGUAGES, grammar_of, spell_numbers

__all__ = ["Normaliser", "normalise"]

_LOOKALIKES = {ord(c): "'" for c in "’‘ʼ＇`´′ʹˈ‛"} | {ord(c): "-" for c in "‐‑‒–—―−﹣－"}
_PASSES = 8
_PLAIN = re.compile("[a-z]+(?: [a-z]+)*")


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """How text is written before it is tokenised or scored; call it on a string.

    >>> Normaliser(language="fr")("L’été, 81 fleurs…")
    "l'été quatre vingt un fleurs"
    """

    language: str = "en"
    """Language of the number words; any code is taken when `numbers` is off."""
    form: Literal["NFC", "NFKC"] = "NFKC"
    """Unicode normal form; NFKC also folds ligatures, full-width and superscript forms."""
    case: Literal["lower", "upper", "keep"] = "lower"
    numbers: bool = True
    """Spell numbers, "&" and "%" in words."""
    years: bool = False
    """Read bare numbers from 1100 to 2099 as years."""
    conjunction: bool = False
    """British "one hundred and one"."""
    punctuation: Literal["drop", "keep"] = "drop"
    """Of punctuation and symbols other than apostrophes and hyphens; where dropped, a space stays."""
    apostrophes: Literal["inner", "drop", "space", "keep"] = "inner"
    """inner: kept between two letters ("don't", "l'été"), else dropped; drop: "dont"; space: "don t"."""
    hyphens: Literal["space", "inner", "drop", "keep"] = "space"
    """As for apostrophes; `space` makes "twenty-one" two words."""
    accents: Literal["keep", "strip"] = "keep"

    def __post_init__(self) -> None:
        one_of("form", self.form, ("NFC", "NFKC"))
        one_of("case", self.case, ("lower", "upper", "keep"))
        one_of("punctuation", self.punctuation, ("drop", "keep"))
        one_of("apostrophes", self.apostrophes, ("inner", "drop", "space", "keep"))
        one_of("hyphens", self.hyphens, ("space", "inner", "drop", "keep"))
        one_of("accents", self.accents, ("keep", "strip"))
        if self.numbers and self.language not in LANGUAGES:
            raise ConfigError(
                f"numbers can be spelled for {', '.join(LANGUAGES)}, got language={self.language!r}; "
                "set numbers=False to leave digits as they are"
            )

    def __call__(self, text: str) -> str:
        if _PLAIN.fullmatch(text) and self.case != "upper":
            return text  # most of a corpus that was normalised before
        # One pass is nearly always a fixed point. A second one is needed where steps meet, as when a capital's
        # compatibility form decomposes further; the bound only guards against a cycle, none of which is known.
        for _ in range(_PASSES):
            done = self._once(text)
            if done == text:
                break
            text = done
        return text

    def _once(self, text: str) -> str:
        text = text.translate(_LOOKALIKES)
        # before NFKC, which turns the spaces that group digits into plain ones
        text = self._spell(text) if self.numbers else text
        text = unicodedata.normalize(self.form, text).translate(_LOOKALIKES)
        text = text.translate(_VISIBLE)
        text = self._spell(text) if self.numbers else text
        text = text.lower() if self.case == "lower" else text.upper() if self.case == "upper" else text
        text = _place(text, "'", self.apostrophes)
        text = _place(text, "-", self.hyphens)
        if self.punctuation == "drop":
            text = text.translate(_SPACED)
        if self.accents == "strip":
            decomposed = unicodedata.normalize("NFD", text)
            text = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        return " ".join(unicodedata.normalize(self.form, text).split())

    def _spell(self, text: str) -> str:
        grammar = grammar_of(self.language)
        text = text.translate(_DIGITS)
        text = spell_numbers(text, self.language, years=self.years, conjunction=self.conjunction)
        return text.replace("&", f" {grammar.ampersand} ").replace("%", f" {grammar.percent} ")


class _Table(dict[int, str]):
    """A table for `str.translate` that asks its rule once for each character there is."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def _digit(char: str) -> str:
    value = unicodedata.decimal(char, None)
    return char if value is None else str(value)


def _visible(char: str) -> str:
    """Nothing for what has no width, a space for other controls."""
    category = unicodedata.category(char)
    if category in ("Cf", "Cs", "Cn", "Co"):
        return ""
    return " " if category in ("Cc", "Zl", "Zp", "Zs") else char


def _spaced(char: str) -> str:
    """A space for punctuation and symbols."""
    return " " if char not in "'-" and unicodedata.category(char)[0] in "PS" else char


_DIGITS, _VISIBLE, _SPACED = _Table(_digit), _Table(_visible), _Table(_spaced)


def _place(text: str, mark: str, rule: str) -> str:
    if rule == "keep" or mark not in text:
        return text
    if rule in ("drop", "space"):
        return text.replace(mark, "" if rule == "drop" else " ")
    # inner: with a letter, digit or combining mark before it and a letter or digit after it
    padded = f" {text} "
    return "".join(
        char if char != mark or (_category(left) in "LNM" and _category(right) in "LN") else " "
        for left, char, right in zip(padded, text, padded[2:], strict=False)
    )


def _category(char: str) -> str:
    return unicodedata.category(char)[0]


def normalise(text: str, language: str = "en", **options: object) -> str:
    """`text` as `Normaliser(language=language, **options)` writes it.

    >>> normalise("It’s the 3rd “twenty-one”!")
    "it's the third twenty one"
    >>> normalise("ÇA VA ?", "fr", accents="strip")
    'ca va'
    """
    return Normaliser(language=language, **options)(text)  # type: ignore[arg-type]
