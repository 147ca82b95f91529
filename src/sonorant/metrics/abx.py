"""ABX: is a sound nearer to another of its kind than to one of another kind? No labels are learnt from, no classifier stands
between (Schatz et al., 2013, https://doi.org/10.21437/Interspeech.2013-441).

A, B and X are stretches of frames in the same context (such as the phones on either side); A and X are the same phone, B is
another. Within speakers all three are of one, across speakers X is of another than A and B. An error is a triple with
d(A, X) > d(B, X), a tie half of one, with d the mean cost along the best path of dynamic time warping. Errors are averaged
over triples, contexts, speakers and pairs of phones, in this order, as in Libri-light (arXiv:1912.07875).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import DataError
from sonorant.core.lengths import pad
from sonorant.core.types import Score
from sonorant.metrics.bootstrap import bootstrap_interval

__all__ = ["Abx", "dtw_distances", "frame_distances"]

Distance = Literal["angular", "cosine", "euclidean"]
_CELLS = 1 << 22
"""Cells of padded cost matrices at a time: some 50 MB."""


def frame_distances(
    a: Float[Tensor, "pair frame_a dim"], b: Float[Tensor, "pair frame_b dim"], distance: Distance = "angular"
) -> Float[Tensor, "pair frame_a frame_b"]:
    """Distance of each frame of a to each of b: the angle over π, 1 − cosine, or Euclid's."""
    one_of("distance", distance, ("angular", "cosine", "euclidean"))
    if distance == "euclidean":
        # Directly, not by squares and products: those of equal frames would not cancel.
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    a, b = (side / side.norm(dim=-1, keepdim=True).clamp(min=1e-12) for side in (a, b))
    cosine = (a @ b.transpose(1, 2)).clamp(-1.0, 1.0)
    return 1 - cosine if distance == "cosine" else cosine.arccos() / torch.pi


def dtw_distances(
    a: Float[Tensor, "pair frame_a dim"],
    a_lengths: Int[Tensor, " pair"],
    b: Float[Tensor, "pair frame_b dim"],
    b_lengths: Int[Tensor, " pair"],
    distance: Distance = "angular",
) -> Float[Tensor, " pair"]:
    """Mean cost along the cheapest path from the first frames to the last, steps (1, 1), (1, 0), (0, 1); of equally cheap
    paths the one with the fewest steps. All pairs move together, one anti-diagonal at a time.

    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> dtw_distances(x, torch.tensor([2]), x[:, [0, 0, 1]], torch.tensor([3])).item()
    0.0
    """
    cost = frame_distances(a, b, distance)
    rows, columns = cost.shape[1:]
    total = cost.new_full((len(cost), rows + 1, columns + 1), torch.inf)
    steps = cost.new_zeros(total.shape)
    total[:, 0, 0] = 0
    for diagonal in range(rows + columns - 1):
        i = torch.arange(max(0, diagonal - columns + 1), min(diagonal, rows - 1) + 1, device=cost.device)
        j = diagonal - i
        before = torch.stack([total[:, i, j], total[:, i, j + 1], total[:, i + 1, j]])
        lengths = torch.stack([steps[:, i, j], steps[:, i, j + 1], steps[:, i + 1, j]])
        cheapest = before.amin(0)
        total[:, i + 1, j + 1] = cost[:, i, j] + cheapest
        steps[:, i + 1, j + 1] = 1 + lengths.masked_fill(before > cheapest, torch.inf).amin(0)
    pair = torch.arange(len(cost), device=cost.device)
    return total[pair, a_lengths, b_lengths] / steps[pair, a_lengths, b_lengths]


class Abx:
    """Metric: share of ABX triples that are answered wrongly; 0.5 is chance.

    Args:
        mode: `"within"` or `"across"` speakers.
        name: of the score; `abx_<mode>` where empty.
        distance: of frames: angular, cosine or euclidean.
        max_items: items of one phone, context and speaker that are used; which ones depends on `seed` and their content.
        max_speakers: other speakers that X is taken from, for each of A and B, across speakers.
        level, num_resamples, seed: of the bootstrap over pairs of phones, and of the choices.

    An `update` is one item: `(phone, context, speaker)` and its frames `(frame, dim)`.
    """

    def __init__(
        self,
        mode: Literal["within", "across"] = "within",
        name: str = "",
        *,
        distance: Distance = "angular",
        max_items: int = 5,
        max_speakers: int = 5,
        level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        one_of("mode", mode, ("within", "across"))
        one_of("distance", distance, ("angular", "cosine", "euclidean"))
        at_least("max_items", max_items, 1)
        at_least("max_speakers", max_speakers, 1)
        self.mode, self.name, self.distance = mode, name or f"abx_{mode}", distance
        self.max_items, self.max_speakers = max_items, max_speakers
        self.level, self.num_resamples, self.seed = level, num_resamples, seed
        # (context, speaker, phone) → items.
        self._cells: defaultdict[tuple[Any, Any, Any], list[Tensor]] = defaultdict(list)

    def update(self, reference: tuple[Any, Any, Any], hypothesis: Any) -> None:
        """Adds an item.

        Raises:
            DataError: no frames, or frames that are not finite.
        """
        if not isinstance(reference, tuple) or len(reference) != 3:
            raise TypeError(
                f"{self.name}: an item is told by (phone, context, speaker), got {type(reference).__name__}"
            )
        if not isinstance(hypothesis, Tensor | np.ndarray):
            raise TypeError(f"{self.name}: an item is an array (frame, dim), got {type(hypothesis).__name__}")
        # A copy: a stretch of an utterance would keep the whole utterance, or its padded batch.
        frames = torch.as_tensor(hypothesis).detach().to("cpu", torch.float32, copy=True)
        if frames.dim() != 2 or not len(frames) or not bool(torch.isfinite(frames).all()):
            raise DataError(
                f"{self.name}: item {reference} must be finite frames (frame, dim), got {tuple(frames.shape)}"
            )
        phone, context, speaker = reference
        self._cells[context, speaker, phone].append(frames)

    def merge(self, other: "Abx") -> None:
        """Adds another's items."""
        for key, items in other._cells.items():
            self._cells[key] += items

    def score(self) -> Score:
        """Raises `DataError` where no triple can be formed."""
        errors: defaultdict[Any, defaultdict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
        for pair, speakers, error in self._triples():
            errors[pair][speakers].append(error)
        if not errors:
            raise DataError(
                f"{self.name}: no triple A, B, X among {sum(map(len, self._cells.values()))} items: it takes two phones in "
                f"one context{' of one speaker' if self.mode == 'within' else ' of two speakers'}"
            )
        # Over contexts, over speakers; then pairs of phones are the units that are averaged and resampled.
        pairs = [np.mean([np.mean(rows) for rows in by_speaker.values()]) for by_speaker in errors.values()]
        low, high = bootstrap_interval(
            pairs, np.ones(len(pairs)), level=self.level, num_resamples=self.num_resamples, seed=self.seed
        )
        return Score(self.name, float(np.sort(pairs).mean()), "lower", low, high, sum(map(len, self._cells.values())))

    def _triples(self) -> Iterator[tuple[Any, Any, float]]:
        """(phone of A, phone of B), speakers, share of wrong triples; one for each context."""
        contexts: defaultdict[Any, dict[tuple[Any, Any], list[Tensor]]] = defaultdict(dict)
        for (context, speaker, phone), items in self._cells.items():
            contexts[context][speaker, phone] = self._chosen(items)
        for context in sorted(contexts, key=repr):
            cells = contexts[context]
            questions = list(self._questions(cells))
            distances = self._distances(cells, questions)
            for a, b, x in questions:
                same, other = distances[a, x], distances[b, x]
                wrong = (same[:, None] > other[None]).float() + 0.5 * (same[:, None] == other[None]).float()
                if a == x:
                    # An item is not compared with itself.
                    wrong = wrong[~torch.eye(len(same), dtype=torch.bool)[:, None].expand_as(wrong)]
                yield (a[1], b[1]), (a[0], x[0]), float(wrong.mean())

    def _chosen(self, items: list[Tensor]) -> list[Tensor]:
        """Some items, whatever the order in which they came."""
        keys = [_digest(f"{self.seed};".encode() + item.numpy().tobytes()) for item in items]
        return [items[place] for place in _first(keys, self.max_items)]

    def _questions(self, cells: dict[tuple[Any, Any], list[Tensor]]) -> Iterator[tuple[Any, Any, Any]]:
        """Cells of A, B and X."""
        speakers: defaultdict[Any, list[Any]] = defaultdict(list)
        for speaker, phone in sorted(cells, key=repr):
            speakers[speaker].append(phone)
        for speaker, phones in speakers.items():
            for one, other in permutations(phones, 2):
                a, b = (speaker, one), (speaker, other)
                if self.mode == "within":
                    if len(cells[a]) > 1:
                        yield a, b, a
                    continue
                others = [x for x in speakers if x != speaker and (x, one) in cells]
                for x in self._sampled(others, (speaker, one, other)):
                    yield a, b, (x, one)

    def _sampled(self, speakers: list[Any], where: Any) -> list[Any]:
        keys = [_digest(f"{self.seed};{where!r};{speaker!r}".encode()) for speaker in speakers]
        return [speakers[place] for place in _first(keys, self.max_speakers)]

    def _distances(
        self, cells: dict[tuple[Any, Any], list[Tensor]], questions: Sequence[tuple[Any, Any, Any]]
    ) -> dict[tuple[Any, Any], Tensor]:
        """(cell, cell) → distances of all their items, each pair of items computed once."""
        wanted = dict.fromkeys((side, x) for a, b, x in questions for side in (a, b))
        items = [(cell, place) for cell in cells for place in range(len(cells[cell]))]
        number = {item: i for i, item in enumerate(items)}
        pairs = sorted(
            {
                tuple(sorted((number[left, i], number[right, j])))
                for left, right in wanted
                for i, j in product(range(len(cells[left])), range(len(cells[right])))
            }
        )
        found = torch.zeros(len(items), len(items))
        frames = [cells[cell][place] for cell, place in items]
        for rows, values in _in_blocks(pairs, frames, self.distance):
            found[rows[:, 0], rows[:, 1]] = values
            found[rows[:, 1], rows[:, 0]] = values
        # (A or B, X): rows of X, columns of the other.
        index = {cell: [number[cell, place] for place in range(len(cells[cell]))] for cell in cells}
        return {(side, x): found[index[x]][:, index[side]].T for side, x in wanted}


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _first(keys: Sequence[bytes], count: int) -> list[int]:
    """Places of the `count` smallest keys."""
    return sorted(range(len(keys)), key=keys.__getitem__)[:count]


def _in_blocks(
    pairs: Sequence[tuple[int, ...]], frames: Sequence[Tensor], distance: Distance
) -> Iterator[tuple[Int[Tensor, "pair 2"], Float[Tensor, " pair"]]]:
    """Pairs of similar lengths together, so that little is padded."""
    order = sorted(pairs, key=lambda pair: (len(frames[pair[0]]), len(frames[pair[1]])))
    start = 0
    while start < len(order):
        end, longest = start, (0, 0)
        while end < len(order):
            sizes = (len(frames[order[end][0]]), len(frames[order[end][1]]))
            longest = (max(longest[0], sizes[0]), max(longest[1], sizes[1]))
            if end > start and (end - start + 1) * (longest[0] + 1) * (longest[1] + 1) > _CELLS:
                break
            end += 1
        rows = order[start:end]
        sides = [pad([frames[pair[side]] for pair in rows]) for side in (0, 1)]
        yield torch.tensor(rows), dtw_distances(*sides[0], *sides[1], distance=distance)
        start = end
