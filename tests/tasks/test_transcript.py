import json

from sonorant.core.types import Segment
from sonorant.tasks.asr.transcript import FORMATS, Transcript, captions

WORDS = (Segment(0.5, 0.25, "hello", 0.9), Segment(0.8, 0.4, "<world>", 0.8), Segment(9.0, 0.5, "again", 0.7))
HELLO = Transcript("a b.wav", "hello <world> again", WORDS, 0.8, 10.0)


def test_captions_break_at_pauses() -> None:
    assert [(c.label, c.start, round(c.end, 3)) for c in captions(WORDS)] == [
        ("hello <world>", 0.5, 1.2),
        ("again", 9.0, 9.5),
    ]


def test_captions_stay_short() -> None:
    words = [Segment(0.3 * i, 0.3, "word", 1.0) for i in range(100)]
    made = captions(words, max_seconds=3.0, max_chars=40)
    assert all(c.duration <= 3.0 + 1e-9 and len(c.label) <= 40 for c in made)
    assert " ".join(c.label for c in made).split() == ["word"] * 100


def test_srt_and_vtt_clocks() -> None:
    late = Transcript("x", "late", (Segment(3725.4996, 0.5, "late", 1.0),))
    assert "01:02:05,500 --> 01:02:06,000" in FORMATS["srt"]([late])
    assert "01:02:05.500 --> 01:02:06.000" in FORMATS["vtt"]([late])


def test_vtt_escapes_and_ctm_keeps_its_columns() -> None:
    assert "&lt;world&gt;" in FORMATS["vtt"]([HELLO])
    rows = FORMATS["ctm"]([HELLO]).splitlines()
    assert [len(row.split()) for row in rows] == [6, 6, 6]
    assert rows[0] == "a_b.wav 1 0.500 0.250 hello 0.9000"


def test_json_carries_words_and_text_carries_names_of_several() -> None:
    row = json.loads(FORMATS["json"]([HELLO]))[0]
    assert row["words"][1] == {"word": "<world>", "start": 0.8, "end": 1.2, "confidence": 0.8}
    assert FORMATS["text"]([HELLO]) == "hello <world> again\n"
    assert FORMATS["text"]([HELLO, HELLO]).startswith("a b.wav\thello")


def test_silence_has_no_captions() -> None:
    silent = Transcript("s", "", (), 0.0, 1.0)
    assert FORMATS["srt"]([silent]) == ""
    assert FORMATS["vtt"]([silent]) == "WEBVTT\n"
    assert FORMATS["ctm"]([silent]) == ""
