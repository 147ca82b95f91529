"""Pronunciations of words by eSpeak NG's rules, for languages and words that no dictionary at hand covers."""

import unicodedata
from collections.abc import Iterable, Iterator

from sonorant.data.synthetic.espeak import library_of
from sonorant.text.lexicon import Lexicon, Pronunciation

__all__ = ["pronounce"]

_FOLDED = {
    "en": {
        "i": "iː", "ᵻ": "ɪ", "ɐ": "ə", "ɜː": "ɚ", "ɔ": "ɔː", "ɾ": "t", "ʔ": "t", "ɑːɹ": "ɑː ɹ", "ɔːɹ": "ɔː ɹ", "oːɹ": "ɔː ɹ",
        "ɛɹ": "ɛ ɹ", "ɪɹ": "ɪ ɹ", "ʊɹ": "ʊ ɹ", "aɪɚ": "aɪ ɚ", "aɪə": "aɪ ə", "iə": "iː ə", "əl": "ə l", "n̩": "ə n",
    }
}  # fmt: skip
"""Allophones, and pairs that eSpeak writes as one, by phones that tell words apart: rare symbols are learnt badly."""
_WEAK = {"en": {"a": "ə", "an": "ə n", "the": "ð ə", "to": "t ə", "of": "ə v", "and": "ə n d", "for": "f ɚ"}}
"""Usual pronunciations in a sentence of words that are said in full when they stand alone; those come second."""


def pronounce(words: Iterable[str], language: str = "en") -> Lexicon:
    """How eSpeak NG says each word by itself: IPA without stress, English folded to some forty phones.

    Args:
        words: in any order; a word that it says nothing for is left out.
        language: an eSpeak language code.

    Raises:
        MissingPackage: the extra `synthetic` is not installed.
        ConfigError: unknown language.

    >>> [" ".join(entry.phones) for entry in pronounce(["elephant"])["elephant"]]
    ['ɛ l ɪ f ə n t']
    """
    library = library_of(language)
    folded, weak = _FOLDED.get(language, {}), _WEAK.get(language, {})

    def entries() -> Iterator[tuple[str, Pronunciation]]:
        for word in dict.fromkeys(words):
            said = library.phonemise(word, "_").replace(" ", "_").split("_")
            plain = " ".join(folded.get(phone, phone) for phone in map(_bare, said) if phone)
            for phones in (weak.get(word, ""), plain):
                if phones:
                    yield word, Pronunciation(tuple(phones.split()))

    return Lexicon(entries())


def _bare(phone: str) -> str:
    """Without stress, brackets and modifiers that are no letters, but for length."""
    return "".join(c for c in phone if c == "ː" or unicodedata.category(c) in ("Ll", "Lo", "Mn"))
