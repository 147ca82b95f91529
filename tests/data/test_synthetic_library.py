"""One copy of eSpeak NG: what was said before never changes what is said now."""

import hashlib
import random
import subprocess
import sys

import pytest

from sonorant.core.errors import ConfigError, MissingPackage
from sonorant.data.synthetic import library as module
from sonorant.data.synthetic.elf import writable_spans
from sonorant.data.synthetic.library import Library, languages
from sonorant.data.synthetic.voices import draw_voice, voice_file

pytest.importorskip("espeakng_loader")

VOICES = ["", *(voice_file(draw_voice(0, str(number)), whisper=number == 3) for number in range(5))]
SAID = "turn on the light in kitchen please call anna at seven thirty what is weather in paris on monday"
WORDS = tuple(SAID.split())
Case = tuple[str, str, dict[str, int]]


def cases(count: int, words: tuple[str, ...] = WORDS) -> list[Case]:
    draws = random.Random(7)
    return [
        (
            " ".join(draws.choices(words, k=draws.randint(1, 14))),
            draws.choice(VOICES),
            {"rate": draws.randint(110, 260), "pitch": draws.randint(20, 80), "pitch_range": draws.randint(0, 100)},
        )
        for _ in range(count)
    ]


def test_any_order_gives_the_same_bytes() -> None:
    wanted = cases(60)
    first, second = Library("en"), Library("en")
    forward = [first.speak(text, voice, **settings) for text, voice, settings in wanted]
    order = list(range(len(wanted)))
    random.Random(1).shuffle(order)
    for index in order:
        text, voice, settings = wanted[index]
        assert second.speak(text, voice, **settings) == forward[index]


@pytest.mark.parametrize("language", ["en", "fr", "de"])
def test_putting_the_state_back_equals_loading_anew(language: str) -> None:
    # "jazz" and "studio" make the French voice change its language within the sentence.
    words = {"fr": ["allume", "la", "lumière", "dans", "le", "studio", "avec", "du", "jazz", "à", "Tokyo"]}.get(
        language, WORDS
    )
    quick, slow = Library(language), Library(language, snapshot=False)
    if sys.platform == "linux":
        assert quick.restores
    assert not slow.restores
    for text, voice, settings in cases(25, words):
        assert quick.speak(text, voice, **settings) == slow.speak(text, voice, **settings)


def test_without_a_symbol_table_the_library_is_loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = cases(4)
    expected = [Library("en").speak(text, voice, **settings) for text, voice, settings in wanted]
    monkeypatch.setattr(module, "writable_spans", lambda *arguments: None)
    fallback = Library("en")
    assert not fallback.restores
    assert [fallback.speak(text, voice, **settings) for text, voice, settings in wanted] == expected


def test_a_forgotten_voice_comes_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_STATES", 2)
    library = Library("en")
    first = [library.speak("one two three", voice) for voice in VOICES]
    assert [library.speak("one two three", voice) for voice in VOICES] == first
    assert len({audio for audio, _ in first}) == len(VOICES)


def test_two_processes_say_the_same() -> None:
    code = (
        "import hashlib; from sonorant.data.synthetic.library import Library;"
        "print(hashlib.sha256(Library('en').speak('what is the weather')[0]).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    library = Library("en")
    library.speak("something else", VOICES[2], pitch=70)
    assert hashlib.sha256(library.speak("what is the weather")[0]).hexdigest() == other.strip()


def test_spans_leave_the_named_variables_out() -> None:
    library = Library("en")
    if not library.restores:
        pytest.skip("no ELF symbol table here")
    path = library._original
    whole = writable_spans(library._library, "espeak_Synth", library._path, (), path)
    parts = writable_spans(library._library, "espeak_Synth", library._path, ("translator", "outbuf"), path)
    assert whole is not None
    assert parts is not None
    assert len(parts) == len(whole) + 2
    assert sum(size for _, size in whole) - sum(size for _, size in parts) == 16  # two pointers
    assert writable_spans(library._library, "espeak_Synth", library._path, ("no such variable",), path) is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"eSpeak language 'xx-klingon'"):
        Library("xx-klingon")
    assert {"en", "en-us", "fr", "de", "es"} <= set(languages())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    module._folder.cache_clear()
    try:
        with pytest.raises(MissingPackage, match=r"pip install 'sonorant\[synthetic\]'"):
            module._folder(-1)
    finally:
        module._folder.cache_clear()
