"""Word, character, phone and token error rates; alignments; an alignment in columns to look at.

Counts come from rapidfuzz's bit-parallel search. Several alignments may be equally short and split the same number of
edits differently into substitutions, deletions and insertions, so the choice is a rule, and `align` (our own dynamic
programme) follows the same one: common ends are set aside first; then, walking back from the end, a deletion is taken
where the reference symbol just before costs one less, else an insertion where skipping it is cheaper than the diagonal,
else match or substitution. jiwer counts by this rule too.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from sonorant.core.config import one_of
from sonorant.core.errors import DataError
from sonorant.core.types import Score
from sonorant.metrics.bootstrap import bootstrap_interval

__all__ = [
    "AlignedPair",
    "EditCounts",
    "ErrorRate",
    "align",
    "confusions",
    "edit_counts",
    "error_rate",
    "format_alignment",
    "split_units",
]

Unit = Literal["word", "char", "token"]
Symbols = Sequence[Hashable]
Utterance = str | Sequence[Hashable] | np.ndarray

_LARGEST_TABLE = 64_000_000
"""Cells up to which `align` fills its own table (one byte each); longer pairs are aligned by rapidfuzz."""


class EditCounts(NamedTuple):
    """How a hypothesis differs from its reference; counts of several pairs add up with `+`."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def edits(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Edits over reference length: 0 without edits, infinite where there are edits and no reference."""
        if self.reference_length:
            return self.edits / self.reference_length
        return math.inf if self.edits else 0.0

    def __add__(self, other: object) -> "EditCounts":  # type: ignore[override]  # sums, not a longer tuple
        if not isinstance(other, EditCounts):
            return NotImplemented
        return EditCounts(*(left + right for left, right in zip(self, other, strict=True)))


class AlignedPair(NamedTuple):
    """One column of an alignment: indices into reference and hypothesis, None for a gap, and what happened."""

    reference: int | None
    hypothesis: int | None
    kind: Literal["hit", "substitution", "deletion", "insertion"]


def split_units(text: Utterance, unit: Unit) -> Symbols:
    """What is counted: words parted by white space, characters of the stripped text (spaces among them), or the tokens
    of a sequence. A sequence of words or phones is taken as it is."""
    if not isinstance(text, str):
        if isinstance(text, Sequence):
            return text
        if isinstance(text, np.ndarray):
            return list(text.tolist())
        raise TypeError(f"an error rate takes strings or sequences of symbols, got {type(text).__name__}")
    if unit == "token":
        raise TypeError(
            f"unit 'token' takes sequences of symbols, got a string: {text[:40]!r}; unit 'word' splits strings"
        )
    return text.split() if unit == "word" else text.strip()


def edit_counts(reference: Symbols, hypothesis: Symbols) -> EditCounts:
    """Edits that turn `reference` into `hypothesis`; both sequences of hashables, or strings as sequences of characters.

    >>> edit_counts("the cat sat".split(), "a cat sat down".split())
    EditCounts(hits=2, substitutions=1, deletions=0, insertions=1)
    """
    num_reference, num_hypothesis = len(reference), len(hypothesis)
    edits = 0 if reference == hypothesis else Levenshtein.distance(reference, hypothesis)
    # Every alignment has deletions − insertions = surplus, so the split is free only where a deletion and an insertion
    # could stand for two of the substitutions.
    surplus = num_reference - num_hypothesis
    if edits <= abs(surplus) + 1:
        deletions, insertions = max(surplus, 0), max(-surplus, 0)
    else:
        tags = [operation[0] for operation in Levenshtein.editops(reference, hypothesis).as_list()]
        deletions, insertions = tags.count("delete"), tags.count("insert")
    substitutions = edits - deletions - insertions
    return EditCounts(num_reference - substitutions - deletions, substitutions, deletions, insertions)


def error_rate(references: Iterable[str], hypotheses: Iterable[str], unit: Unit = "word") -> float:
    """All edits over all reference symbols: never the mean of the utterances' rates.

    >>> error_rate(["a b c d", "e"], ["a b c d", "x"])
    0.2
    """
    total = EditCounts()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        total += edit_counts(split_units(reference, unit), split_units(hypothesis, unit))
    return total.rate


def align(reference: Symbols, hypothesis: Symbols) -> list[AlignedPair]:
    """The shortest alignment by the rule in this module's docstring, from left to right.

    >>> [pair.kind for pair in align("abc", "xbcd")]
    ['substitution', 'hit', 'hit', 'insertion']
    """
    prefix = _common(reference, hypothesis)
    inner_reference, inner_hypothesis = reference[prefix:], hypothesis[prefix:]
    suffix = _common(inner_reference[::-1], inner_hypothesis[::-1])
    rows, columns = len(inner_reference) - suffix, len(inner_hypothesis) - suffix
    inner_reference, inner_hypothesis = inner_reference[:rows], inner_hypothesis[:columns]
    if rows * columns > _LARGEST_TABLE:
        pairs = _from_editops(inner_reference, inner_hypothesis)
    else:
        pairs = _trace_back(inner_reference, inner_hypothesis)
    head = [AlignedPair(index, index, "hit") for index in range(prefix)]
    middle = [_shifted(pair, prefix) for pair in pairs]
    tail = [AlignedPair(prefix + rows + index, prefix + columns + index, "hit") for index in range(suffix)]
    return head + middle + tail


def _common(left: Symbols, right: Symbols) -> int:
    """Length of the common beginning."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _shifted(pair: AlignedPair, by: int) -> AlignedPair:
    return AlignedPair(
        None if pair.reference is None else pair.reference + by,
        None if pair.hypothesis is None else pair.hypothesis + by,
        pair.kind,
    )


def _steps(reference: Symbols, hypothesis: Symbols) -> np.ndarray:
    """`distance[i, j] - distance[i - 1, j]` in {-1, 0, 1} for i ≥ 1, where i counts the reference: what the walk back
    asks. Rows are filled at once: within a row insertions chain, which is a running minimum of distance − j."""
    ids: dict[Hashable, int] = {}
    codes = np.array([ids.setdefault(symbol, len(ids)) for symbol in hypothesis], dtype=np.int64)
    columns = np.arange(len(hypothesis) + 1)
    row = columns.copy()
    steps = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=np.int8)
    for index, symbol in enumerate(reference, 1):
        below = np.empty_like(row)
        below[0] = index
        below[1:] = np.minimum(row[1:] + 1, row[:-1] + (codes != ids.get(symbol, -1)))
        below = np.minimum.accumulate(below - columns) + columns
        steps[index] = below - row
        row = below
    return steps


def _trace_back(reference: Symbols, hypothesis: Symbols) -> list[AlignedPair]:
    steps = _steps(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    pairs: list[AlignedPair] = []
    while row and column:
        if steps[row, column] == 1:
            row -= 1
            pairs.append(AlignedPair(row, None, "deletion"))
            continue
        column -= 1
        if column and steps[row, column] == -1:
            pairs.append(AlignedPair(None, column, "insertion"))
            continue
        row -= 1
        pairs.append(AlignedPair(row, column, "hit" if reference[row] == hypothesis[column] else "substitution"))
    pairs += [AlignedPair(index, None, "deletion") for index in reversed(range(row))]
    pairs += [AlignedPair(None, index, "insertion") for index in reversed(range(column))]
    return pairs[::-1]


def _from_editops(reference: Symbols, hypothesis: Symbols) -> list[AlignedPair]:
    pairs: list[AlignedPair] = []
    for block in Levenshtein.opcodes(reference, hypothesis):
        rows, columns = range(block.src_start, block.src_end), range(block.dest_start, block.dest_end)
        if block.tag in ("equal", "replace"):
            kind: Literal["hit", "substitution"] = "hit" if block.tag == "equal" else "substitution"
            pairs += [AlignedPair(row, column, kind) for row, column in zip(rows, columns, strict=True)]
        elif block.tag == "delete":
            pairs += [AlignedPair(row, None, "deletion") for row in rows]
        else:
            pairs += [AlignedPair(None, column, "insertion") for column in columns]
    return pairs


_MARKS = {"hit": " ", "substitution": "S", "deletion": "D", "insertion": "I"}


def format_alignment(reference: Symbols, hypothesis: Symbols, *, width: int = 100, gap: str = "*") -> str:
    """Reference over hypothesis over marks (S, D, I), in columns, wrapped at `width` terminal cells.

    East Asian wide characters count two cells, combining marks none. A gap is filled with `gap`.

    >>> print(format_alignment("the cat sat".split(), "the hat sat down".split()))
    REF: the cat sat ****
    HYP: the hat sat down
    OPS:     S       I
    """
    blocks: list[list[tuple[str, str, str]]] = [[]]
    used = 0
    for pair in align(reference, hypothesis):
        left = "" if pair.reference is None else str(reference[pair.reference])
        right = "" if pair.hypothesis is None else str(hypothesis[pair.hypothesis])
        cells = max(_cells(left), _cells(right), 1)
        if blocks[-1] and used + cells + 1 > width - 5:
            blocks.append([])
            used = 0
        used += cells + 1
        left = left if pair.reference is not None else gap * cells
        right = right if pair.hypothesis is not None else gap * cells
        blocks[-1].append((_fill(left, cells), _fill(right, cells), _fill(_MARKS[pair.kind], cells)))
    return "\n\n".join(
        "\n".join(f"{name}: {' '.join(column[row] for column in block)}".rstrip() for row, name in enumerate(_ROWS))
        for block in blocks
    )


_ROWS = ("REF", "HYP", "OPS")


def _cells(text: str) -> int:
    """Terminal cells that a text takes."""
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def _fill(text: str, cells: int) -> str:
    return text + " " * (cells - _cells(text))


def confusions(pairs: Iterable[tuple[Symbols, Symbols]]) -> Counter[tuple[Hashable, Hashable]]:
    """What was taken for what: counts of (reference symbol, hypothesis symbol), with "" for a gap; hits left out.

    >>> confusions([("the cat".split(), "a cat".split())])
    Counter({('the', 'a'): 1})
    """
    counts: Counter[tuple[Hashable, Hashable]] = Counter()
    for reference, hypothesis in pairs:
        for left, right, kind in align(reference, hypothesis):
            if kind != "hit":
                counts["" if left is None else reference[left], "" if right is None else hypothesis[right]] += 1
    return counts


class ErrorRate:
    """Metric: all edits over all reference symbols, with a bootstrap interval over utterances or groups of them.

    `unit`: "word" (WER; also PER on phones parted by spaces), "char" (CER), "token" (sequences of anything hashable).
    An utterance with an empty reference counts its insertions; `score` is infinite where no reference has a symbol and
    there are edits, and raises `DataError` before the first utterance.

    >>> wer = ErrorRate()
    >>> wer.update("one two three", "one too three")
    >>> wer.update("", "noise")
    >>> print(round(wer.score().value, 3), wer.total)
    0.667 EditCounts(hits=2, substitutions=1, deletions=0, insertions=1)
    """

    def __init__(
        self,
        unit: Unit = "word",
        name: str = "",
        *,
        level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        one_of("unit", unit, ("word", "char", "token"))
        self.unit: Unit = unit
        self.name = name or {"word": "wer", "char": "cer", "token": "ter"}[unit]
        self.level, self.num_resamples, self.seed = level, num_resamples, seed
        self.counts: list[EditCounts] = []
        """Of each utterance, in order of arrival."""
        self.groups: list[str] = []
        """What each utterance is resampled with (its speaker); the empty string stands for alone."""

    def update(self, reference: Utterance, hypothesis: Utterance, *, group: str = "") -> None:
        """Adds one utterance; `group`, such as its speaker, is resampled as a whole."""
        self.counts.append(edit_counts(split_units(reference, self.unit), split_units(hypothesis, self.unit)))
        self.groups.append(group)

    def update_many(self, references: Iterable[Utterance], hypotheses: Iterable[Utterance]) -> None:
        """Adds many; raises `ValueError` where the two differ in number."""
        for reference, hypothesis in zip(references, hypotheses, strict=True):
            self.update(reference, hypothesis)

    def merge(self, other: "ErrorRate") -> None:
        """Adds another's utterances; the result is that of one metric which saw them all."""
        if other.unit != self.unit:
            raise ValueError(f"error rates of different units cannot be merged, got {self.unit} and {other.unit}")
        self.counts += other.counts
        self.groups += other.groups

    @property
    def total(self) -> EditCounts:
        """Sum over all utterances."""
        if not self.counts:
            return EditCounts()
        return EditCounts(*(int(count) for count in np.array(self.counts, dtype=np.int64).sum(axis=0)))

    def score(self) -> Score:
        """The rate with its bootstrap interval."""
        if not self.counts:
            raise DataError(f"{self.name}: no utterance to score; is the test set empty?")
        table = np.array(self.counts, dtype=np.float64)
        edits, lengths = table[:, 1:].sum(axis=1), table[:, :3].sum(axis=1)
        value = self.total.rate
        if not lengths.any():
            return Score(self.name, value, "lower", value, value, len(self.counts))
        # One speaker alone says nothing of how speakers differ: then utterances are resampled.
        several = len(set(self.groups)) > 1
        groups = [group or f"\0{index}" for index, group in enumerate(self.groups)] if several else None
        low, high = bootstrap_interval(
            edits, lengths, level=self.level, num_resamples=self.num_resamples, groups=groups, seed=self.seed
        )
        return Score(self.name, value, "lower", low, high, len(self.counts))

    def __iter__(self) -> Iterator[EditCounts]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)
