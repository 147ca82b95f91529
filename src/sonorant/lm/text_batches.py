"""Batches of token sequences for training a language model: shuffled, filled by length, and able to go on where they were.

`TokenBatch` has what `train.fit` asks of a batch; `TextBatches` what it asks of a source of batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonorant.core.config import at_least
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import pad
from sonorant.core.seed import derive

__all__ = ["TextBatches", "TokenBatch", "token_batch"]


@dataclass(frozen=True)
class TokenBatch:
    """Token sequences under the names that a `Batch` of speech has them: `labels["tokens"]` padded with 0, and
    `labels["tokens_lengths"]`."""

    labels: Mapping[str, Tensor]
    ids: tuple[str, ...] = ()
    seconds: float = field(default=0.0)
    """Of audio: there is none."""

    def __len__(self) -> int:
        return len(self.labels["tokens"])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """The same batch on `device`."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.labels.items()}
        return replace(self, labels=moved)


def token_batch(sequences: Sequence[Sequence[int]], ids: Sequence[str] = ()) -> TokenBatch:
    """Sequences of token ids as one batch.

    >>> token_batch([[3, 1], [2]]).labels["tokens"].tolist()
    [[3, 1], [2, 0]]
    """
    tokens, lengths = pad([torch.tensor(list(sequence), dtype=torch.long) for sequence in sequences])
    return TokenBatch({"tokens": tokens, "tokens_lengths": lengths}, tuple(ids))


class TextBatches:
    """Passes over sequences in batches of at most `max_tokens` tokens, padding counted.

    Each pass is shuffled by (seed, pass) alone, sequences of like length stand together, and the state counts batches
    that were taken. A sequence longer than `max_tokens` is a batch by itself. Raises `DataError` where there is none.
    """

    _POOL = 64
    """Batches' worth of shuffled sequences that are sorted by length together."""

    def __init__(
        self, sequences: Sequence[Sequence[int]], max_tokens: int = 4096, *, seed: int = 0, shuffle: bool = True
    ) -> None:
        at_least("max_tokens", max_tokens, 1)
        if not len(sequences):
            raise DataError("no text to make batches of")
        self.sequences, self.max_tokens, self.seed, self.shuffle = sequences, max_tokens, seed, shuffle
        self._lengths = np.array([len(sequence) + 1 for sequence in sequences])  # with the sentence's end
        self._pass = 0
        self._consumed = 0

    def __iter__(self) -> Iterator[TokenBatch]:
        batches = self._batches(self._pass)
        for index in range(self._consumed, len(batches)):
            chosen = batches[index].tolist()
            self._consumed = index + 1
            if self._consumed == len(batches):
                self._pass, self._consumed = self._pass + 1, 0
            yield token_batch([self.sequences[item] for item in chosen], [str(item) for item in chosen])

    def state_dict(self) -> dict[str, Any]:
        """Which pass, and how many of its batches were taken."""
        return {"pass": self._pass, "consumed": self._consumed, "num_sequences": len(self.sequences)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there. Raises `ConfigError` for the state of another text."""
        if state["num_sequences"] != len(self.sequences):
            raise ConfigError(f"the text had {state['num_sequences']} sequences and has {len(self.sequences)} now")
        self._pass, self._consumed = state["pass"], state["consumed"]

    def _batches(self, number: int) -> list[np.ndarray]:
        count = len(self.sequences)
        if not self.shuffle:
            return _cut(np.arange(count), self._lengths, self.max_tokens)
        generator = np.random.default_rng(derive(self.seed, "pass", number))
        order = generator.permutation(count)
        pool = max(1, int(self._POOL * self.max_tokens / max(float(self._lengths.mean()), 1.0)))
        batches: list[np.ndarray] = []
        for start in range(0, count, pool):
            part = order[start : start + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += _cut(part, self._lengths, self.max_tokens)
        return [batches[index] for index in generator.permutation(len(batches))]


def _cut(order: np.ndarray, lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Consecutive items whose number times the longest stays within `max_tokens`."""
    batches: list[np.ndarray] = []
    start, longest = 0, 0
    for index, item in enumerate(order.tolist()):
        longest = max(longest, int(lengths[item]))
        if index > start and longest * (index - start + 1) > max_tokens:
            batches.append(order[start:index])
            start, longest = index, int(lengths[item])
    batches.append(order[start:])
    return batches
