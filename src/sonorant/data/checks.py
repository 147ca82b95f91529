"""What is looked at before training: audio, durations, transcripts, and what the splits share.

`check_corpus` goes through all cuts, leaves out the bad ones, counts them by reason, lists them in `skipped.jsonl`, and stops
where too many are bad or where speakers stand in two splits. Read it first, then `CheckReport`.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut, MonoCut, MultiCut

from sonorant.core.config import to_plain, within
from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write
from sonorant.data.corpora.audio_probe import Problem, evenly, files_of, in_threads, probe_cut, probe_file
from sonorant.data.corpora.corpus import Corpus, size_in_words, text_of
from sonorant.text.tokenizer import Tokenizer

__all__ = ["CheckReport", "Shared", "Skipped", "check_corpus"]

_EXAMPLES = 5
# Seconds; lhotse itself allows as much between a cut and its audio.
_OVERRUN = 0.025


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, or one kept with a remark."""

    split: str
    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Shared:
    """What two splits have in common."""

    splits: tuple[str, str]
    count: int
    """Distinct speakers or sentences."""
    num_items: int
    """Items of the second split that are touched."""
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """What the checks found; `corpus` is what is left to train on."""

    corpus: Corpus
    """The corpus without the items that were left out."""
    num_items: int
    """Items looked at, those that an importer could not take in among them."""
    skipped: tuple[Skipped, ...]
    """Items left out, in the order of the corpus."""
    remarks: tuple[Skipped, ...] = ()
    """Items that are kept and should be looked at."""
    uncovered: Mapping[str, int] = field(default_factory=dict)
    """Character → count over all transcripts, the commonest first."""
    shared_speakers: tuple[Shared, ...] = ()
    shared_sentences: tuple[Shared, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences for the user, about the corpus as a whole."""
    num_files_probed: int = 0
    num_cuts_decoded: int = 0
    seconds: float = 0.0
    """Time the checks took."""

    @property
    def licence(self) -> str:
        """Terms of use, as the corpus' card has them."""
        return self.corpus.card.licence

    @property
    def reasons(self) -> dict[str, int]:
        """Reason → number of items left out for it, the commonest first."""
        return dict(Counter(item.reason for item in self.skipped).most_common())

    def rows(self) -> list[tuple[str, str]]:
        """The report as rows (what, finding) for a table."""
        rows = [("items", f"{self.num_items} looked at, {len(self.skipped)} left out")]
        rows += [(f"left out: {reason}", str(count)) for reason, count in self.reasons.items()]
        rows += [(f"remark: {r}", str(n)) for r, n in Counter(item.reason for item in self.remarks).most_common()]
        if self.uncovered:
            shown = ", ".join(f"{symbol!r} ×{count}" for symbol, count in list(self.uncovered.items())[:20])
            rows.append(("uncovered characters", shown))
        for what, found in (("speakers", self.shared_speakers), ("sentences", self.shared_sentences)):
            rows += [(f"shared {what}", _shared_in_words(item)) for item in found[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                rows.append((f"shared {what}", f"and between {len(found) - _EXAMPLES} more pairs of splits"))
        rows += [(name, size_in_words(size)) for name, size in self.corpus.summary.items()]
        rows.append(("licence", self.licence or "none recorded"))
        rows.append(("audio", f"{self.num_files_probed} files probed, {self.num_cuts_decoded} items decoded"))
        return rows + [("warning", text) for text in self.warnings]

    def to_plain(self) -> dict[str, Any]:
        """The report as plain values for JSON; the skipped items are in `skipped.jsonl`."""
        return {
            "corpus": self.corpus.name,
            "licence": self.licence,
            "num_items": self.num_items,
            "num_skipped": len(self.skipped),
            "reasons": self.reasons,
            "remarks": [to_plain(item) for item in self.remarks],
            "uncovered": dict(self.uncovered),
            "shared_speakers": [to_plain(item) for item in self.shared_speakers],
            "shared_sentences": [to_plain(item) for item in self.shared_sentences],
            "splits": {name: to_plain(size) for name, size in self.corpus.summary.items()},
            "warnings": list(self.warnings),
            "num_files_probed": self.num_files_probed,
            "num_cuts_decoded": self.num_cuts_decoded,
            "seconds": round(self.seconds, 3),
        }


def check_corpus(
    corpus: Corpus,
    *,
    tokenizer: Tokenizer | None = None,
    normalise: Callable[[str], str] | None = None,
    frame_rate: float | None = None,
    spare_frames: int = 0,
    min_seconds: float = 0.1,
    max_seconds: float | None = None,
    max_bad_share: float = 0.05,
    allow_shared_speakers: bool = False,
    audio_sample: int | None = None,
    decode_sample: int | None = 200,
    num_workers: int = 0,
    out_folder: Path | None = None,
) -> CheckReport:
    """Checks a corpus, leaves bad items out, and stops where it cannot be trained on honestly.

    Args:
        corpus: the corpus; its splits are gone through once.
        tokenizer: the vocabulary; with it, items need a transcript, which it covers where they are trained on. Items of
            the splits dev and test that it does not cover, or that have too few frames, stay with a remark: they count as
            errors.
        normalise: applied to transcripts before the vocabulary sees them.
        frame_rate: frames a second which a CTC loss will see; with a tokenizer, items must have at least as many frames
            as tokens plus one for each pair of equal neighbours, which CTC has to part by a blank.
        spare_frames: frames that the windows of front ends lose at the ends of an item.
        min_seconds: shorter items are left out.
        max_seconds: longer items are left out; None keeps all.
        max_bad_share: share of a split's items that may be bad.
        allow_shared_speakers: go on where speakers stand in two splits.
        audio_sample: number of files whose header, beginning and end are read, spread over the corpus; None for all.
        decode_sample: number of items that are decoded whole to find silence, clipping and values that are not finite;
            None for all.
        num_workers: threads for the audio; 0 chooses.
        out_folder: where `skipped.jsonl` and `check.json` are written, also where the check stops.

    Raises:
        DataError: more than `max_bad_share` of a split is bad (with a table of reasons and examples), a split has no
            good item, or splits share speakers.
    """
    within("max_bad_share", max_bad_share, 0, 1)
    began = time.monotonic()
    survey = _Survey(corpus, normalise)
    items, problems, uncovered = survey.items, _Problems(survey.items), Counter[str]()
    problems.add(_faulty_ids(items))
    problems.add(_lengths(items, min_seconds, max_seconds))
    if tokenizer is not None:
        uncovered = tokenizer.uncovered(item.text for item in items if item.text)
        problems.add(_labels(items, tokenizer, uncovered, frame_rate, spare_frames))
    files = evenly(list(survey.files), audio_sample)
    problems.add(_probed(survey, files, num_workers))
    chosen = evenly([i for i, item in enumerate(items) if i not in problems.bad and item.has_audio], decode_sample)
    problems.add(_decoded(corpus, chosen, num_workers))
    good = [item for index, item in enumerate(items) if index not in problems.bad]
    dropped = [Skipped(f.split, f.id, f.reason, f.detail) for f in corpus.faults if f.dropped]
    remarks = [Skipped(f.split, f.id, f.reason, f.detail) for f in corpus.faults if not f.dropped]
    report = CheckReport(
        corpus=corpus.with_splits(_without(corpus, problems.bad)),
        num_items=len(items) + len(dropped),
        skipped=(*dropped, *(items[index].with_problem(problems.bad[index]) for index in sorted(problems.bad))),
        remarks=(*remarks, *(items[index].with_problem(problem) for index, problem in problems.remarks)),
        uncovered=dict(uncovered.most_common()),
        shared_speakers=tuple(_shared(good, lambda item: item.speakers)),
        shared_sentences=tuple(_shared(good, _sentence)),
        warnings=tuple(_warnings(corpus, good)),
        num_files_probed=len(files),
        num_cuts_decoded=len(chosen),
        seconds=time.monotonic() - began,
    )
    if out_folder is not None:
        _write(report, out_folder)
    _stop_if_bad(report, items, max_bad_share, out_folder)
    if report.shared_speakers and not allow_shared_speakers:
        raise DataError(_speakers_message(report))
    return report


# --- one pass over the cuts -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """What the checks need of a cut; cuts of a stream are not kept."""

    split: str
    id: str
    seconds: float
    text: str | None
    speakers: tuple[str, ...]
    has_audio: bool
    overrun: float
    """Seconds by which the cut reaches beyond its recording."""

    def with_problem(self, problem: Problem) -> Skipped:
        return Skipped(self.split, self.id, *problem)


class _Survey:
    """All items in order, and for each audio file its rate, its length and who uses it."""

    def __init__(self, corpus: Corpus, normalise: Callable[[str], str] | None):
        self.items: list[_Item] = []
        self.files: dict[Path, tuple[int, int, list[int]]] = {}
        for split, cuts in corpus.splits.items():
            for cut in cuts:
                self._add(split, cut, normalise)

    def _add(self, split: str, cut: Cut, normalise: Callable[[str], str] | None) -> None:
        text = text_of(cut)
        audio = cut.recording if isinstance(cut, MonoCut | MultiCut) and cut.has_recording else None
        if audio is not None:
            for path in files_of(audio):
                entry = self.files.setdefault(path, (audio.sampling_rate, audio.num_samples, []))
                entry[2].append(len(self.items))
        self.items.append(
            _Item(
                split,
                cut.id,
                cut.duration,
                normalise(text) if normalise and text else text,
                tuple(sorted({s.speaker for s in cut.supervisions if s.speaker})),
                cut.has_recording,
                cut.start + cut.duration - audio.duration if audio is not None else 0.0,
            )
        )


# --- single checks ----------------------------------------------------------------------------------------------------

_Items = Sequence[_Item]
_Found = Iterable[tuple[int, Problem]]
_REMARKS = frozenset({"clipped"})
_UNLEARNABLE = frozenset({"uncovered characters", "too few frames"})
"""What a training cannot use and a test must not leave out: nobody who is tested may choose the questions."""
_EXAMINED = frozenset({"dev", "test"})


class _Problems:
    """The first problem of each item, by its place in the corpus, and remarks beside."""

    def __init__(self, items: _Items) -> None:
        self._items = items
        self.bad: dict[int, Problem] = {}
        self.remarks: list[tuple[int, Problem]] = []

    def add(self, found: _Found) -> None:
        for index, problem in found:
            examined = self._items[index].split in _EXAMINED
            if problem[0] in _REMARKS or (problem[0] in _UNLEARNABLE and examined):
                self.remarks.append((index, problem))
            else:
                self.bad.setdefault(index, problem)


def _faulty_ids(items: _Items) -> _Found:
    seen: dict[str, str] = {}
    for index, item in enumerate(items):
        if not item.id:
            yield index, ("no id", "")
        elif item.id in seen:
            yield index, ("duplicate id", f"already in split '{seen[item.id]}'")
        else:
            seen[item.id] = item.split


def _lengths(items: _Items, min_seconds: float, max_seconds: float | None) -> _Found:
    for index, item in enumerate(items):
        if item.seconds < min_seconds:
            yield index, ("too short", f"{item.seconds:.3f} s, at least {min_seconds} s wanted")
        elif max_seconds is not None and item.seconds > max_seconds:
            yield index, ("too long", f"{item.seconds:.2f} s, at most {max_seconds} s wanted")
        elif item.overrun > _OVERRUN:
            yield index, ("past the end", f"ends {item.overrun:.3f} s after its recording")


def _labels(
    items: _Items, tokenizer: Tokenizer, uncovered: Mapping[str, int], frame_rate: float | None, spare_frames: int
) -> _Found:
    for index, item in enumerate(items):
        text = item.text
        if not text or not text.strip():
            yield index, ("no transcript", "the text is empty" if text is not None else "the item has no text")
            continue
        # One call over all texts has said whether any is uncovered; mostly none is, and the items need not be asked.
        missing = tokenizer.uncovered([text]) if uncovered else None
        if missing:
            shown = ", ".join(f"{symbol!r}" for symbol in list(missing)[:8])
            yield index, ("uncovered characters", f"{shown} in “{text[:60]}”")
            continue
        tokens = tokenizer.encode(text)
        if not tokens:
            yield index, ("no transcript", f"“{text[:60]}” encodes to no token")
        elif frame_rate is not None:
            frames = max(0, int(item.seconds * frame_rate) - spare_frames)
            repeats = sum(left == right for left, right in zip(tokens, tokens[1:]))
            if frames < len(tokens) + repeats:
                yield index, ("too few frames", f"{frames} frames for {len(tokens)} tokens and {repeats} repeats")


def _probed(survey: _Survey, files: Sequence[Path], num_workers: int) -> _Found:
    """Reads each file once; its problem is that of every item over it."""
    results = in_threads(lambda path: probe_file(path, *survey.files[path][:2]), files, num_workers)
    for path, problem in zip(files, results, strict=True):
        if problem is not None:
            yield from ((index, problem) for index in survey.files[path][2])


def _decoded(corpus: Corpus, chosen: Sequence[int], num_workers: int) -> _Found:
    wanted = set(chosen)
    cuts = (cut for cuts in corpus.splits.values() for cut in cuts)
    found = [(index, cut) for index, cut in enumerate(cuts) if index in wanted] if wanted else []
    results = in_threads(lambda pair: probe_cut(pair[1]), found, num_workers)
    for (index, _), problems in zip(found, results, strict=True):
        yield from ((index, problem) for problem in problems)


def _warnings(corpus: Corpus, good: _Items) -> Iterator[str]:
    if not corpus.card.licence:
        yield "no licence is recorded for this corpus; find out before you publish or share what is trained on it"
    counts = Counter(item.split for item in good)
    for split in corpus.splits:
        if counts[split] == 0:
            yield f"split '{split}' holds no item"
    if good and not any(item.speakers for item in good):
        yield "no speaker is named, so shared speakers cannot be found"


# --- what splits share ------------------------------------------------------------------------------------------------


def _sentence(item: _Item) -> tuple[str, ...]:
    """The words without case and spacing; single words do not count, since isolated words are meant to recur."""
    words = item.text.casefold().split() if item.text else []
    return (" ".join(words),) if len(words) > 1 else ()


def _shared(items: _Items, values: Callable[[_Item], tuple[str, ...]]) -> Iterator[Shared]:
    by_split: dict[str, Counter[str]] = {}
    for item in items:
        by_split.setdefault(item.split, Counter()).update(values(item))
    for left, right in combinations(by_split, 2):
        common = sorted(by_split[left].keys() & by_split[right].keys())
        if common:
            touched = sum(by_split[right][value] for value in common)
            yield Shared((left, right), len(common), touched, tuple(common[:_EXAMPLES]))


def _shared_in_words(item: Shared) -> str:
    left, right = item.splits
    examples = ", ".join(f"“{text[:60]}”" for text in item.examples)
    return f"{item.count} of '{left}' also in '{right}' ({item.num_items} items there), such as {examples}"


def _speakers_message(report: CheckReport) -> str:
    lines = [f"corpus '{report.corpus.name}': splits share speakers, so a score would not be one on unseen voices:"]
    lines += [f"  {_shared_in_words(item)}" for item in report.shared_speakers[:_EXAMPLES]]
    lines.append("Split by speaker, or pass allow_shared_speakers=True where that is what you want to measure.")
    return "\n".join(lines)


# --- the end ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Without:
    """Cuts without those at some places; a stream stays a stream."""

    cuts: CutSet
    places: frozenset[int]

    def __iter__(self) -> Iterator[Cut]:
        return (cut for place, cut in enumerate(self.cuts) if place not in self.places)


def _without(corpus: Corpus, bad: Mapping[int, Problem]) -> dict[str, CutSet]:
    splits, first = {}, 0
    for name, cuts in corpus.splits.items():
        length = sum(1 for _ in cuts) if cuts.is_lazy else len(cuts)
        places = frozenset(index - first for index in range(first, first + length) if index in bad)
        kept = _Without(cuts, places)
        splits[name] = cuts if not places else CutSet(kept) if cuts.is_lazy else CutSet.from_cuts(kept)
        first += length
    return splits


def _stop_if_bad(report: CheckReport, items: _Items, max_bad_share: float, out_folder: Path | None) -> None:
    totals = Counter(item.split for item in items)
    totals.update(fault.split for fault in report.corpus.faults if fault.dropped)
    if not totals:
        raise DataError(f"corpus '{report.corpus.name}' holds no item")
    bad = Counter(item.split for item in report.skipped)
    for split, total in totals.items():
        if bad[split] == total or bad[split] > max_bad_share * total:
            listed = f"; all are listed in {out_folder / 'skipped.jsonl'}" if out_folder else ""
            raise DataError(
                f"corpus '{report.corpus.name}': {bad[split]} of {total} items of split '{split}' are bad, "
                f"and at most {max_bad_share:.0%} may be{listed}\n{_table(report, split)}"
            )


def _table(report: CheckReport, split: str) -> str:
    """Reasons with counts and an example each, as text."""
    examples: dict[str, Skipped] = {}
    counts: Counter[str] = Counter()
    for item in report.skipped:
        if item.split == split:
            counts[item.reason] += 1
            examples.setdefault(item.reason, item)
    width = max(len(reason) for reason in counts)
    lines = [f"  {r:<{width}}  {n:>6}  e.g. {examples[r].id}: {examples[r].detail}" for r, n in counts.most_common()]
    if report.uncovered and "uncovered characters" in counts:
        shown = ", ".join(f"{symbol!r} ×{count}" for symbol, count in list(report.uncovered.items())[:20])
        lines.append(f"  the vocabulary lacks {shown}")
    return "\n".join(lines)


def _write(report: CheckReport, folder: Path) -> None:
    with atomic_write(folder / "skipped.jsonl") as file:
        for item in report.skipped:
            file.write((json.dumps(to_plain(item), ensure_ascii=False) + "\n").encode())
    with atomic_write(folder / "check.json") as file:
        file.write((json.dumps(report.to_plain(), indent=1, ensure_ascii=False) + "\n").encode())
