"""Where the pronunciations of a recogniser of phones come from: a file, and eSpeak NG's rules for the rest."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sonorant.core.errors import MissingPackage
from sonorant.decoding.hypothesis import Hypothesis
from sonorant.text.lexicon import Lexicon
from sonorant.text.pronounced import Pronounced
from sonorant.text.tokenizer import Tokenizer

__all__ = ["knowing", "lexicon_of", "written"]


def lexicon_of(words: Iterable[str], language: str, file: str | Path = "") -> Lexicon:
    """The words' pronunciations, in the words' order.

    Args:
        words: to pronounce.
        language: an eSpeak language code.
        file: Kaldi's `lexicon.txt` or `lexiconp.txt`, or a CMUdict (`*dict*`); its phones are then the whole vocabulary, and
            words that it lacks have no pronunciation: another source would have other phones.

    Raises:
        MissingPackage: no file, and the extra `synthetic` is not installed.
        DataError: no such file, or it is no lexicon.
    """
    words = list(words)
    if not file:
        from sonorant.data.synthetic.pronounce import pronounce

        return pronounce(words, language)
    path = Path(file)
    listed = Lexicon.read_cmudict(path, stress=False) if "dict" in path.name else Lexicon.read_kaldi(path)
    return Lexicon((word, entry) for word in words for entry in listed.get(word, ()))


def knowing(tokenizer: Tokenizer, words: Iterable[str]) -> Tokenizer:
    """The same, able to encode further words where it is one of phones by eSpeak NG's rules and those are installed."""
    if not isinstance(tokenizer, Pronounced) or not tokenizer.language or not (missing := tokenizer.uncovered(words)):
        return tokenizer
    try:
        return tokenizer.knowing(lexicon_of(missing, tokenizer.language))
    except MissingPackage:
        return tokenizer


def written(hypothesis: Hypothesis, tokenizer: Tokenizer) -> Hypothesis:
    """A hypothesis of phones with its words as they are spelt; any other as it is."""
    if not isinstance(tokenizer, Pronounced):
        return hypothesis
    stretches: list[list[int]] = [[]]
    for token in hypothesis.tokens:
        if tokenizer.symbols[token] == tokenizer.word_boundary:
            stretches.append([])
        else:
            stretches[-1].append(token)
    spelt = [tokenizer.decode(tokens) for tokens in stretches if tokens]
    words = tuple(replace(word, text=text) for word, text in zip(hypothesis.words, spelt, strict=True))
    return replace(hypothesis, text=" ".join(spelt), words=words)
