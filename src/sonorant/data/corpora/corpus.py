"""A corpus as the rest of the toolkit sees it: named splits of cuts, and a card that says where they come from.

Read `Card`, then `Corpus`. `Fault` is what an importer found wrong while it read; `describe` turns it all into rows.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from lhotse import AudioSource, CutSet
from lhotse.cut import Cut, MixedCut
from lhotse.cut.data import DataCut
from numpy.typing import NDArray

from sonorant.core.errors import DataError, unknown_name

__all__ = ["Card", "Corpus", "Fault", "SplitSummary", "audio_sources", "content_of", "describe", "extra", "load_audio",
           "named_splits", "speaker_of", "summarise", "text_of", "unreadable"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a corpus comes from and under which terms it may be used."""

    name: str
    """Short name, such as "librispeech"."""
    source: str = ""
    """Folder, file or address it was read from."""
    version: str = ""
    """The source's own version, commit or release, where it names one."""
    licence: str = ""
    """Terms of use in the source's words; empty where none is known."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes as the labels bear them."""
    notes: tuple[str, ...] = ()
    """What a user must know: rules used for the splits, parts left out, how to cite."""


@dataclass(frozen=True)
class Fault:
    """Something an importer found wrong in one item of the source."""

    split: str
    id: str
    reason: str
    """A short fixed phrase, so that faults can be counted by it."""
    detail: str = ""
    dropped: bool = False
    """True where the item could not be taken into the corpus at all."""


@dataclass(frozen=True)
class SplitSummary:
    """Size of one split."""

    num_items: int
    seconds: float
    num_speakers: int
    """Named speakers; 0 where the source names none."""
    num_sentences: int
    """Distinct transcripts."""
    num_words: int
    """Words of all transcripts, split at white space."""

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return self.seconds / 3600


@dataclass(frozen=True)
class Corpus:
    """Named splits of cuts with their card.

    Args:
        name: short name.
        splits: split name → cuts, in the source's order.
        card: provenance.
        faults: what the importer found wrong; `check_corpus` counts it.
        sizes: split name → summary, where it is already known (a prepared corpus knows it); else computed when asked for.
    """

    name: str
    splits: Mapping[str, CutSet]
    card: Card
    faults: tuple[Fault, ...] = ()
    sizes: Mapping[str, SplitSummary] | None = field(default=None, repr=False)

    @cached_property
    def summary(self) -> dict[str, SplitSummary]:
        """Size of each split; the first call goes through all cuts."""
        return dict(self.sizes) if self.sizes is not None else {n: summarise(cuts) for n, cuts in self.splits.items()}

    @property
    def hours(self) -> float:
        """Hours of audio in all splits."""
        return sum(size.hours for size in self.summary.values())

    @property
    def num_items(self) -> int:
        """Cuts in all splits."""
        return sum(size.num_items for size in self.summary.values())

    @cached_property
    def speakers(self) -> dict[str, tuple[str, ...]]:
        """Split → sorted names of its speakers."""
        return {name: tuple(sorted(_speakers(cuts))) for name, cuts in self.splits.items()}

    def split(self, name: str) -> CutSet:
        """The cuts of one split.

        Raises:
            DataError: there is no such split; the message lists those there are.
        """
        if name not in self.splits:
            raise DataError(f"corpus '{self.name}': {unknown_name('split', name, self.splits)}")
        return self.splits[name]

    def with_splits(self, splits: Mapping[str, CutSet]) -> "Corpus":
        """The same corpus with other splits; sizes are counted anew."""
        return replace(self, splits=splits, sizes=None)


def named_splits(splits: Mapping[str, Iterable[Cut]]) -> dict[str, CutSet]:
    """Lists of cuts as splits, in the order in which they are used: train, dev, test, then others as they came."""
    ranks = {"tr": 0, "de": 1, "va": 1, "te": 2, "ev": 2}
    names = sorted(splits, key=lambda name: ranks.get(name[:2].lower(), 3))
    return {name: CutSet.from_cuts(splits[name]) for name in names}


def unreadable(split: str, id: str, error: DataError) -> Fault:
    """The fault of an item whose audio could not be opened; the error's message is "reason: detail"."""
    reason, _, detail = str(error).partition(": ")
    return Fault(split, id, reason, detail, dropped=True)


def summarise(cuts: Iterable[Cut]) -> SplitSummary:
    """Counts items, seconds, speakers, sentences and words in one pass."""
    items, seconds, words = 0, 0.0, 0
    speakers: set[str] = set()
    sentences: set[str] = set()
    for cut in cuts:
        items += 1
        seconds += cut.duration
        for supervision in cut.supervisions:
            if supervision.speaker:
                speakers.add(supervision.speaker)
            if supervision.text:
                sentences.add(supervision.text)
                words += len(supervision.text.split())
    return SplitSummary(items, seconds, len(speakers), len(sentences), words)


def text_of(cut: Cut) -> str | None:
    """The cut's transcript: its supervisions' texts in order of time, or None where it bears none."""
    turns = cut.supervisions if len(cut.supervisions) < 2 else sorted(cut.supervisions, key=lambda turn: turn.start)
    texts = [turn.text for turn in turns if turn.text is not None]
    return " ".join(texts) if texts else None


def speaker_of(cut: Cut) -> str:
    """The cut's speaker, the first who is named where several speak; "" where none is."""
    return next((turn.speaker for turn in cut.supervisions if turn.speaker), "")


def audio_sources(cut: Cut) -> Iterator[bytes]:
    """What tells a cut's audio from any other: of each file its place, size and time of change; audio in memory itself.

    Raises:
        DataError: a file is gone.
    """
    for source in _sources(cut):
        if isinstance(source.source, bytes):
            yield source.source
        elif source.type != "file":
            yield f"{source.type} {source.source};".encode()
        else:
            try:
                status = os.stat(source.source)
            except FileNotFoundError:
                raise DataError(f"item '{cut.id}': no audio at {source.source}") from None
            yield f"{source.source} {status.st_size} {status.st_mtime_ns};".encode()


def content_of(cuts: Iterable[Cut]) -> str:
    """What a result on these cuts depends on, in sixteen hexadecimal digits: audio, stretches of it, and transcripts.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(f"{cut.id}\t{cut.start:.4f}\t{cut.duration:.4f}\t{text_of(cut) or ''}\n".encode())
        for source in audio_sources(cut):
            digest.update(source)
    return digest.hexdigest()[:16]


def load_audio(cut: Cut) -> NDArray[np.float32]:
    """The cut's samples in [-1, 1], `(channel, time)`.

    Raises:
        DataError: the audio is the output of a command, as lhotse's manifests may have it.
    """
    for source in _sources(cut):
        if source.type == "command":
            raise DataError(
                f"item '{cut.id}': its audio is a command ({str(source.source)[:60]}); commands in data are never run. "
                "Write their output to files and name those"
            )
    return np.atleast_2d(cut.load_audio())


def _sources(cut: Cut) -> Iterator[AudioSource]:
    parts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    for part in parts:
        if isinstance(part, DataCut) and part.recording is not None:
            yield from part.recording.sources


def extra(cut: Cut, name: str, default: Any = None) -> Any:
    """A field that the source's manifest had beside the common ones, such as `"emotion"` or `"words"`.

    Importers keep such fields in the supervision's `custom` where the cut has one supervision, else in the cut's own.
    """
    for owner in (*cut.supervisions, cut):
        custom = getattr(owner, "custom", None)
        if custom and name in custom:
            return custom[name]
    return default


def describe(corpus: Corpus) -> list[tuple[str, str]]:
    """Provenance and sizes as rows (what, value), for a table on the screen."""
    card = corpus.card
    rows = [("name", corpus.name), ("source", card.source or "unknown"), ("version", card.version or "not given")]
    rows += [("licence", card.licence or "none recorded"), ("languages", ", ".join(card.languages) or "not given")]
    for name, size in corpus.summary.items():
        rows.append((name, size_in_words(size)))
    rows.append(("all", f"{corpus.num_items} items, {corpus.hours:.2f} h"))
    if corpus.faults:
        dropped = sum(fault.dropped for fault in corpus.faults)
        rows.append(("faults", f"{len(corpus.faults)} found while reading, {dropped} items left out for them"))
    return rows + [("note", note) for note in card.notes]


def size_in_words(size: SplitSummary) -> str:
    """One line about a split.

    >>> size_in_words(SplitSummary(10, 3600.0, 2, 9, 40))
    '10 items, 1.00 h, 2 speakers, 9 sentences, 40 words'
    """
    parts = [f"{size.num_items} items", f"{size.hours:.2f} h"]
    parts.append(f"{size.num_speakers} speakers" if size.num_speakers else "speakers not named")
    if size.num_sentences:
        parts.append(f"{size.num_sentences} sentences, {size.num_words} words")
    return ", ".join(parts)


def _speakers(cuts: Iterable[Cut]) -> set[str]:
    return {s.speaker for cut in cuts for s in cut.supervisions if s.speaker}
