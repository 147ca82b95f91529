import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonorant.core.config import from_plain, to_plain
from sonorant.core.errors import ConfigError
from sonorant.text.alphabet import Alphabet
from sonorant.text.normalise import Normaliser, normalise


@pytest.mark.parametrize(
    "language, text, expected",
    [
        ("en", "Hello,  World!\n", "hello world"),
        ("en", "don’t ‘quote’ 'me' dogs'", "don't quote me dogs"),
        ("en", "twenty–one — dashes", "twenty one dashes"),
        ("en", "R&D is 5% more", "r and d is five percent more"),
        ("en", "soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("en", "ﬁne ½", "fine one two"),
        ("en", "٣ ３", "three three"),
        ("fr", "L'ÉTÉ à 14 h", "l'été à quatorze h"),
        ("de", "GROẞ 2 Straße", "groß zwei straße"),
        ("es", "¿Qué? ¡21!", "qué veintiuno"),
        ("en", "e\u0301t\u00e9", "été"),
    ],
)
def test_known_texts(language: str, text: str, expected: str) -> None:
    assert normalise(text, language) == expected


def test_options() -> None:
    assert normalise("Don't Stop-Here 5", case="upper", apostrophes="drop", hyphens="inner", numbers=False) == (
        "DONT STOP-HERE 5"
    )
    assert normalise("Don't, stop.", apostrophes="space", punctuation="keep", case="keep") == "Don t, stop."
    assert normalise("naïve café", accents="strip") == "naive cafe"
    assert normalise("日本語 テスト。", "ja", numbers=False) == "日本語 テスト"


OPTIONS = st.fixed_dictionaries(
    {
        "language": st.sampled_from(["en", "fr", "es", "de"]),
        "form": st.sampled_from(["NFC", "NFKC"]),
        "case": st.sampled_from(["lower", "upper", "keep"]),
        "numbers": st.booleans(),
        "years": st.booleans(),
        "punctuation": st.sampled_from(["drop", "keep"]),
        "apostrophes": st.sampled_from(["inner", "drop", "space", "keep"]),
        "hyphens": st.sampled_from(["inner", "drop", "space", "keep"]),
        "accents": st.sampled_from(["keep", "strip"]),
    }
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text("aA'’-–.,%& 0123456789\u00a0\u202fßİΣéstndth½²١", max_size=20),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, OPTIONS)
def test_normalising_twice_changes_nothing(text: str, options: dict) -> None:
    normaliser = Normaliser(**options)
    once = normaliser(text)
    assert normaliser(once) == once
    assert once == " ".join(once.split())
    assert unicodedata.is_normalized(options["form"], once)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_by_default_only_lower_case_letters_marks_and_inner_apostrophes_are_left(text: str) -> None:
    for word in normalise(text).split():
        assert not word.startswith("'")
        assert not word.endswith("'")
        assert all(char == "'" or unicodedata.category(char)[0] in "LMN" for char in word)
        assert not any(char in "0123456789" for char in word)


def test_it_is_a_configuration() -> None:
    normaliser = Normaliser(language="fr", accents="strip")
    assert from_plain(Normaliser, to_plain(normaliser)) == normaliser
    with pytest.raises(ConfigError, match="case"):
        from_plain(Normaliser, {"case": "title"})
    with pytest.raises(ConfigError, match="numbers=False"):
        Normaliser(language="zh")


@pytest.mark.parametrize(
    "pack, language, size",
    [("speechocean762", "en", 29), ("mboshi_french", "fr", 45), ("tts_kerstin_de", "de", 35)],
)
def test_real_transcripts_need_few_characters(packs: Path, pack: str, language: str, size: int) -> None:
    texts = []
    for line in (packs / pack / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        texts.append(entry.get("translation") or entry["text"] or "")
    written = [normalise(text, language) for text in texts]
    assert all(normalise(text, language) == text for text in written)
    alphabet = Alphabet.build(written)
    assert not alphabet.uncovered(written)
    assert alphabet.vocab_size <= size, alphabet.symbols
