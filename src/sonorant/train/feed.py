"""Batches for the loop: how far they were read, pass after pass, and how long the loop waited for them."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import derive
from sonorant.train.devices import reseed

__all__ = ["Feed", "TrainBatch", "TrainBatches"]

logger = logging.getLogger(__name__)


@runtime_checkable
class TrainBatch(Protocol):
    """What the loop asks of a batch; `core.types.Batch` has it."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def seconds(self) -> float:
        """Of audio."""
        ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any: ...


@runtime_checkable
class TrainBatches(Protocol):
    """A source of batches that can go on where it was: its state counts batches *consumed*, not prefetched."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Feed:
    """The endless stream of one worker's batches.

    Before each batch the global generators are seeded from (seed, rank, number of the batch), and again after it. So a
    dataset that draws from them in this process, and dropout that draws from them in the model, give on resume what they
    would have given, whatever was drawn in between: randomness has no state that could be lost.

    Args:
        batches: the source, or a callable that makes it from (rank, number of workers).
        seed: of the run.
        rank, world_size: this worker among all.
        device: where the model lives.
    """

    def __init__(
        self,
        batches: TrainBatches | Callable[[int, int], TrainBatches],
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        made = batches(rank, world_size) if not isinstance(batches, Iterable) and callable(batches) else batches
        if not isinstance(made, TrainBatches):
            raise ConfigError(
                "batches must be an iterable with state_dict and load_state_dict, so that training can go on where it was; "
                f"got {type(made).__name__}"
            )
        self.batches = made
        self.consumed = 0
        self.passes = 0
        self.waited = 0.0
        self._seed = derive(seed, "worker", rank)
        self._world_size = world_size
        self._device = device
        self._iterator: Iterator[TrainBatch] | None = None

    def next(self) -> TrainBatch:
        """The next batch, on the CPU.

        Raises:
            DataError: a whole pass gave nothing.
        """
        start = time.perf_counter()
        reseed(derive(self._seed, "load", self.consumed), self._device)
        batch = self._pull()
        self.consumed += 1
        reseed(derive(self._seed, "step", self.consumed), self._device)
        self.waited += time.perf_counter() - start
        return batch

    def _pull(self) -> TrainBatch:
        # Twice: a run that stopped at the very end of a pass resumes with nothing left of it.
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self.batches)
            for batch in self._iterator:
                return batch
            self._iterator = None
            self.passes += 1
        raise DataError(
            "there is nothing to train on: a whole pass over the corpus gave no batch. Is the split empty, were all items "
            "skipped (see skipped.jsonl), or is max_seconds below the shortest item?"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed, "passes": self.passes, "batches": dict(self.batches.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches.load_state_dict(state["batches"])
        self.consumed = state["consumed"]
        self.passes = state["passes"]
        self._iterator = None

    def take_up(self, states: Sequence[Mapping[str, Any]], rank: int, strict: bool = True) -> None:
        """Goes on from the states of all workers, this one's first of all.

        With another number of workers than before, or with `strict` off and batches that refuse their state because the
        corpus or their configuration changed, a new pass begins, in which no batch gets a seed that one had before.
        """
        reason = f"{len(states)} workers were, {self._world_size} are"
        if len(states) == self._world_size:
            try:
                self.load_state_dict(states[rank])
                return
            except ConfigError as error:
                if strict:
                    raise
                reason = str(error)
        logger.warning("a new pass over the corpus begins: %s", reason)
        self.consumed = max(state["consumed"] for state in states)
        self.passes = 1 + max(state["passes"] for state in states)
