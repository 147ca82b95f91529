"""A transcript with word times, and the formats it is written in: text, JSON, SRT, VTT, CTM.

`FORMATS` leads from a format's name to its writer; each takes a list of transcripts and gives the text of a file.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sonorant.core.types import Segment

__all__ = ["FORMATS", "Transcript", "captions", "to_ctm", "to_json", "to_srt", "to_text", "to_vtt"]


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording."""

    id: str
    """File name or cut id."""
    text: str
    words: tuple[Segment, ...] = ()
    """Times in seconds from the recording's start; `score` is the word's confidence in [0, 1]."""
    confidence: float = 0.0
    """Mean of the words' confidences; 0 where nothing was said."""
    duration: float = 0.0
    """Seconds of audio."""
    speaker: str = ""
    """Where it is known."""
    meta: dict[str, str] = field(default_factory=dict)
    """Model, decoder and their versions, for the JSON."""


def to_text(transcripts: Sequence[Transcript]) -> str:
    """One line a recording; with its name in front where there are several."""
    if len(transcripts) == 1:
        return transcripts[0].text + "\n"
    return "".join(f"{t.id}\t{t.text}\n" for t in transcripts)


def to_json(transcripts: Sequence[Transcript]) -> str:
    """A list of objects with text, confidence, duration and words."""
    rows = [
        {
            "id": t.id,
            "text": t.text,
            "confidence": round(t.confidence, 4),
            "duration": round(t.duration, 3),
            "words": [
                {"word": w.label, "start": round(w.start, 3), "end": round(w.end, 3), "confidence": round(w.score, 4)}
                for w in t.words
            ],
            **({"speaker": t.speaker} if t.speaker else {}),
            **t.meta,
        }
        for t in transcripts
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def to_ctm(transcripts: Sequence[Transcript]) -> str:
    """NIST's CTM: recording, channel, start, duration, word, confidence.

    >>> print(to_ctm([Transcript("a b", "hi", (Segment(0.5, 0.25, "hi", 0.9),))]), end="")
    a_b 1 0.500 0.250 hi 0.9000
    """
    lines = [
        f"{_one_field(t.id)} 1 {w.start:.3f} {w.duration:.3f} {_one_field(w.label)} {w.score:.4f}\n"
        for t in transcripts
        for w in t.words
    ]
    return "".join(lines)


def to_srt(transcripts: Sequence[Transcript]) -> str:
    """SubRip captions; several recordings follow one another, each from its own start."""
    blocks = []
    for number, caption in enumerate((c for t in transcripts for c in captions(t.words)), start=1):
        start, end = _clock(caption.start, ","), _clock(caption.end, ",")
        blocks.append(f"{number}\n{start} --> {end}\n{caption.label}\n")
    return "\n".join(blocks)


def to_vtt(transcripts: Sequence[Transcript]) -> str:
    """WebVTT captions."""
    blocks = ["WEBVTT\n"]
    for caption in (c for t in transcripts for c in captions(t.words)):
        text = caption.label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(caption.start, '.')} --> {_clock(caption.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def captions(
    words: Sequence[Segment], max_seconds: float = 6.0, max_chars: int = 84, pause: float = 0.8
) -> list[Segment]:
    """Words gathered into captions: a new one after a pause, or where the old one would grow too long.

    84 characters are two lines of 42, the usual limit for readable captions.
    """
    groups: list[list[Segment]] = []
    for word in words:
        last = groups[-1] if groups else None
        fits = last is not None and (
            word.start - last[-1].end < pause
            and word.end - last[0].start <= max_seconds
            and len(" ".join(w.label for w in last)) + 1 + len(word.label) <= max_chars
        )
        if fits and last is not None:
            last.append(word)
        else:
            groups.append([word])
    return [Segment(g[0].start, g[-1].end - g[0].start, " ".join(w.label for w in g)) for g in groups]


FORMATS: dict[str, Callable[[Sequence[Transcript]], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "ctm": to_ctm,
}


def _one_field(text: str) -> str:
    """CTM's fields are divided by blanks."""
    return "_".join(text.split()) or "-"


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"
