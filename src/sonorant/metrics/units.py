"""How well discrete units tell phones apart, and what they cost.

Phones and units of the same frames are counted in one table; every measure is a function of it:

- phone purity: accuracy if each unit stood for its commonest phone (Hsu et al., 2021, arXiv:2106.07447, section IV-D);
- cluster purity: likewise with each phone standing for its commonest unit;
- PNMI: the share of the phones' entropy that the units take away, I(phone; unit) / H(phone) (ibid.);
- NMI: 2·I / (H(phone) + H(unit)).

All but NMI rise by themselves as units are added (one unit a frame is perfectly pure), so compare at equal numbers of units.
Read `UnitAgreement`; then `CodeCounts` for use, perplexity and bitrate.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike

from sonorant.core.config import one_of
from sonorant.core.errors import DataError
from sonorant.core.types import Score

__all__ = [
    "MEASURES", "CodeCounts", "UnitAgreement", "bitrate", "cluster_purity", "entropy", "mutual_information", "nmi",
    "phone_purity", "pnmi",
]  # fmt: skip

_BLOCK = 4_000_000
"""Numbers of resampled tables at a time: 32 MB."""

Table = Shaped[np.ndarray, "*resample phone unit"]
Values = Float[np.ndarray, "*resample"] | np.floating


def _shares(counts: np.ndarray, axes: int) -> np.ndarray:
    total = counts.sum(axis=tuple(range(-axes, 0)), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return counts / total


def entropy(counts: Shaped[np.ndarray, "*resample code"]) -> Values:
    """Entropy in bits of the distribution that counts stand for.

    >>> entropy(np.array([1, 1, 2, 0])).item()
    1.5
    """
    shares = _shares(np.asarray(counts, dtype=np.float64), 1)
    return -(shares * np.log2(shares, out=np.zeros_like(shares), where=shares > 0)).sum(-1)


def mutual_information(table: Table) -> Values:
    """Bits that a unit says of its phone.

    >>> float(mutual_information(np.array([[2, 0], [0, 2]])))
    1.0
    """
    joint = entropy(table.reshape(*table.shape[:-2], -1))
    return np.maximum(entropy(table.sum(-1)) + entropy(table.sum(-2)) - joint, 0.0)


def pnmi(table: Table) -> Values:
    """I(phone; unit) / H(phone)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return mutual_information(table) / entropy(table.sum(-1))


def nmi(table: Table) -> Values:
    """2·I(phone; unit) / (H(phone) + H(unit)); scikit-learn's with the arithmetic mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * mutual_information(table) / (entropy(table.sum(-1)) + entropy(table.sum(-2)))


def phone_purity(table: Table) -> Values:
    """Share of frames whose phone is the commonest of their unit."""
    return _shares(table, 2).max(-2).sum(-1)


def cluster_purity(table: Table) -> Values:
    """Share of frames whose unit is the commonest of their phone."""
    return _shares(table, 2).max(-1).sum(-1)


MEASURES: dict[str, Callable[[np.ndarray], Any]] = {
    "pnmi": pnmi,
    "nmi": nmi,
    "phone_purity": phone_purity,
    "cluster_purity": cluster_purity,
}
"""Name → function of the table of counts."""


class UnitAgreement:
    """Metric: agreement of units with phones, frame by frame; an `update` is an utterance.

    Counts are kept by utterance and sparsely, so that whole utterances are resampled for the interval; frames of one
    utterance are alike.

    Args:
        measure: of `MEASURES`.
        name: of the score; the measure's where empty.
        level: of the interval.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    >>> metric = UnitAgreement("phone_purity")
    >>> metric.update(["a", "a", "b", "b"], [3, 3, 3, 1])
    >>> metric.update(["b", "b"], [1, 1])
    >>> round(metric.score().value, 4)
    0.8333
    """

    def __init__(
        self, measure: str = "pnmi", name: str = "", *, level: float = 0.95, num_resamples: int = 200, seed: int = 0
    ) -> None:
        one_of("measure", measure, list(MEASURES))
        self.measure, self.name = measure, name or measure
        self.level, self.num_resamples, self.seed = level, num_resamples, seed
        self._phones: dict[Hashable, int] = {}
        self._units: dict[Hashable, int] = {}
        # Of each utterance the cells that occur, as (phone, unit, count).
        self._items: list[Int[np.ndarray, "cell 3"]] = []

    def update(self, reference: Sequence[Hashable] | np.ndarray, hypothesis: Sequence[Hashable] | np.ndarray) -> None:
        """Adds an utterance: phones and units of its frames, equally many.

        Raises:
            DataError: unequal numbers of frames.
        """
        phones, units = (_row(side, self.name) for side in (reference, hypothesis))
        if len(phones) != len(units):
            raise DataError(
                f"{self.name}: as many units as phones are needed, got {len(units)} for {len(phones)} frames"
            )
        pairs = np.stack([_numbered(phones, self._phones), _numbered(units, self._units)], axis=1)
        cells, counts = np.unique(pairs.reshape(-1, 2), axis=0, return_counts=True)
        self._items.append(np.concatenate([cells, counts[:, None]], axis=1))

    def merge(self, other: "UnitAgreement") -> None:
        """Adds another's utterances."""
        phones, units = list(other._phones), list(other._units)
        for cells in other._items:
            rows = zip(_numbered([phones[p] for p in cells[:, 0]], self._phones),
                       _numbered([units[u] for u in cells[:, 1]], self._units), cells[:, 2])  # fmt: skip
            self._items.append(np.array(list(rows), dtype=np.int64).reshape(-1, 3))

    @property
    def table(self) -> Int[np.ndarray, "phone unit"]:
        """Counts of all frames."""
        table = np.zeros((len(self._phones), len(self._units)), dtype=np.int64)
        for cells in self._items:
            table[cells[:, 0], cells[:, 1]] += cells[:, 2]
        return table

    def values(self) -> dict[str, float]:
        """Every measure, without intervals."""
        return {name: float(of(self.table)) for name, of in MEASURES.items()}

    def score(self) -> Score:
        if not any(len(cells) for cells in self._items):
            raise DataError(f"{self.name}: no frame to score; is the test set empty?")
        of, table = MEASURES[self.measure], self.table
        value = float(of(table))
        if not np.isfinite(value):
            raise DataError(f"{self.name}: all frames bear the same phone, so that there is nothing to tell apart")
        drawn = np.concatenate([of(tables) for tables in self._resampled(table.shape)])
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Score(self.name, value, "higher", value, value, len(self._items))
        # A resample holds fewer different utterances, and all measures rise when there is less to count: the resamples tell
        # how far the value varies, not where it lies.
        drawn = drawn - drawn.mean() + value
        low, high = np.quantile(drawn, ((1 - self.level) / 2, (1 + self.level) / 2)).clip(0.0, 1.0)
        return Score(self.name, value, "higher", min(float(low), value), max(float(high), value), len(self._items))

    def _resampled(self, shape: tuple[int, int]) -> Iterator[Float[np.ndarray, "resample phone unit"]]:
        """Tables of utterances drawn with replacement, some at a time."""
        from scipy.sparse import csr_array

        # Neither the order of the utterances nor that in which labels were first seen changes what is drawn.
        phones, units = _ranks(self._phones), _ranks(self._units)
        rows = []
        for cells in self._items:
            keys = phones[cells[:, 0]] * shape[1] + units[cells[:, 1]]
            order = np.argsort(keys)
            rows.append((keys[order], cells[order, 2]))
        rows.sort(key=lambda row: (len(row[0]), row[0].tobytes(), row[1].tobytes()))
        ends = np.cumsum([0, *(len(keys) for keys, _ in rows)])
        keys, counts = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
        sparse = csr_array((counts.astype(np.float64), keys, ends), shape=(len(rows), shape[0] * shape[1]))
        generator = np.random.default_rng(self.seed)
        block = max(1, _BLOCK // (shape[0] * shape[1]))
        for start in range(0, self.num_resamples, block):
            size = min(block, self.num_resamples - start)
            drawn = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=size)
            yield (sparse.T @ drawn.T.astype(np.float64)).T.reshape(size, *shape)


def _row(values: Sequence[Hashable] | np.ndarray, name: str) -> list[Hashable]:
    if isinstance(values, np.ndarray):
        return list(values.reshape(-1).tolist())
    if isinstance(values, (list, tuple)):
        return list(values)
    raise TypeError(f"{name} takes sequences or arrays, one label a frame, got {type(values).__name__}")


def _numbered(labels: Sequence[Hashable], known: dict[Hashable, int]) -> Int[np.ndarray, " label"]:
    """Each label's number; new ones are given the next."""
    return np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64)


def _ranks(known: dict[Hashable, int]) -> Int[np.ndarray, " label"]:
    """Number of a label → its place among all in sorted order."""
    ranks = np.empty(len(known), dtype=np.int64)
    ranks[[known[label] for label in sorted(known, key=repr)]] = np.arange(len(known))
    return ranks


# --- what units cost --------------------------------------------------------------------------------------------------


class CodeCounts:
    """How evenly one codebook is used, counted as a stream; parts of a corpus add up.

    Args:
        num_codes: size of the codebook.

    >>> counts = CodeCounts(4)
    >>> counts.update(np.array([0, 0, 1, 1]))
    >>> counts.entropy, counts.perplexity, counts.usage
    (1.0, 2.0, 0.5)
    """

    def __init__(self, num_codes: int) -> None:
        self.num_codes = num_codes
        self.counts = np.zeros(num_codes, dtype=np.int64)

    def update(self, codes: ArrayLike) -> None:
        """Adds codes of any shape.

        Raises:
            DataError: a code outside the codebook.
        """
        values = np.asarray(codes).reshape(-1)
        if len(values) and not (values.min() >= 0 and values.max() < self.num_codes):
            raise DataError(f"codes must lie in 0 … {self.num_codes - 1}, got {values.min()} … {values.max()}")
        self.counts += np.bincount(values.astype(np.int64), minlength=self.num_codes)

    def merge(self, other: "CodeCounts") -> None:
        """Adds another's codes."""
        self.counts += other.counts

    @property
    def entropy(self) -> float:
        """Bits of a code if each were drawn by itself; 0 before any was counted."""
        return float(entropy(self.counts)) if self.counts.any() else 0.0

    @property
    def perplexity(self) -> float:
        """2 to the entropy: the number of codes that, evenly used, would be as uncertain."""
        return float(2**self.entropy)

    @property
    def usage(self) -> float:
        """Share of codes that occurred at all."""
        return float((self.counts > 0).mean())


def bitrate(num_tokens: Iterable[int], vocab_sizes: Iterable[float], seconds: float) -> float:
    """Bits a second of parallel streams: Σ tokens · log2 vocabulary / seconds (Interspeech 2024 discrete-unit challenge,
    arXiv:2406.07725, section 2). For what an ideal code would take, give perplexities in place of vocabularies.

    Args:
        num_tokens: of each stream; fewer where runs are merged.
        vocab_sizes: of each stream.
        seconds: of audio.

    >>> bitrate([50], [1024], seconds=1.0)
    500.0
    """
    if seconds <= 0:
        raise DataError(f"bitrate: seconds of audio must be above 0, got {seconds}")
    return float(sum(count * np.log2(size) for count, size in zip(num_tokens, vocab_sizes, strict=True)) / seconds)
