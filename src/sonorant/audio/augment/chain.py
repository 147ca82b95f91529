"""Chains: augmentations one after another, or one of several for each item."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sonorant.audio.augment.draws import Augmentation, draws_of
from sonorant.audio.augment.subset import put_items, take_items
from sonorant.core.config import within
from sonorant.core.errors import ConfigError
from sonorant.core.types import Batch

__all__ = ["Chain", "OneOf"]


@dataclass(frozen=True)
class Chain:
    """Augmentations in order; each draws from a stream named after its place, so two `Noise` entries differ.

    >>> from sonorant.audio.augment.volume import Volume
    >>> batch = Batch(torch.ones(1, 4), torch.tensor([4]), 16000, seeds=torch.tensor([1]))
    >>> Chain([Volume(gain_db=(6, 6)), Volume(gain_db=(-6, -6))])(batch).waveform
    tensor([[1., 1., 1., 1.]])
    """

    steps: Sequence[Augmentation]
    prob: float = 1.0
    """Share of items that the chain is applied to; the others pass all of it by."""

    def __post_init__(self) -> None:
        within("Chain.prob", self.prob, 0, 1)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        stream = f"{stream}/chain"
        if self.prob == 1:
            return self._all(batch, stream)
        index = draws_of(batch, stream).chosen(self.prob).nonzero()[:, 0]
        return put_items(batch, index, self._all(take_items(batch, index), stream)) if len(index) else batch

    def _all(self, batch: Batch, stream: str) -> Batch:
        for place, step in enumerate(self.steps):
            batch = step(batch, f"{stream}.{place}")
        return batch


@dataclass(frozen=True)
class OneOf:
    """One of several augmentations for each item, drawn with given weights.

    Augmentations that take partners from the batch (`Mix`, `Babble` without clips) find them among the items that drew them.
    """

    choices: Sequence[Augmentation]
    weights: Sequence[float] | None = None
    """One for each choice, above 0; equal where None."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("OneOf.prob", self.prob, 0, 1)
        if not self.choices:
            raise ConfigError("OneOf.choices must hold at least one augmentation, got none")
        if self.weights is not None and (len(self.weights) != len(self.choices) or min(self.weights) <= 0):
            raise ConfigError(
                f"OneOf.weights must hold {len(self.choices)} numbers above 0, one for each choice, got {self.weights}"
            )

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        stream = f"{stream}/one_of"
        draws = draws_of(batch, stream)
        weights = torch.tensor(self.weights or [1.0] * len(self.choices), device=draws.seeds.device)
        edges = (weights / weights.sum()).cumsum(dim=0)[:-1]
        which = torch.searchsorted(edges, draws.uniform("which"), right=True)
        which = torch.where(draws.chosen(self.prob), which, len(self.choices))
        for place, choice in enumerate(self.choices):
            index = (which == place).nonzero()[:, 0]
            if len(index):
                batch = put_items(batch, index, choice(take_items(batch, index), f"{stream}.{place}"))
        return batch
