"""What an augmentation draws: a pure function of each item's seed, the place in the chain, and the name of the draw."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonorant.core.errors import ConfigError
from sonorant.core.seed import integers, normal, uniform
from sonorant.core.types import Batch

__all__ = ["Augmentation", "Draws", "check_range", "draws_of", "ensure_float", "per_item", "wide"]


@runtime_checkable
class Augmentation(Protocol):
    """Changes audio and whatever of the labels goes with it."""

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        """`batch` after the change; the batch that was given is left as it is.

        Args:
            batch: must bear `seeds`.
            stream: where in a chain this augmentation stands; the same augmentation draws other values elsewhere.

        Raises:
            ConfigError: the batch has no seeds.
        """
        ...


@dataclass(frozen=True)
class Draws:
    """Named draws for the items of a batch; none depends on which others were made before."""

    seeds: Int[Tensor, " batch"]
    stream: str

    @classmethod
    def of_features(cls, seeds: Int[Tensor, " batch"] | None, device: torch.device, stream: str, owner: str) -> "Draws":
        """For an augmentation of features called `owner`, from the seeds of the batch that they were made from.

        Raises:
            ConfigError: there are no seeds.
        """
        if seeds is None:
            raise ConfigError(
                f"{owner} draws from batch.seeds, and got None; "
                "make them with sonorant.core.seed.item_seeds(seed, epoch, ids)"
            )
        return cls(seeds.to(device), stream)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " batch"]:
        """One draw for each item from [low, high)."""
        return uniform(self.seeds, f"{self.stream}/{name}", 1, low, high)[:, 0]

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "batch count"]:
        """`count` draws for each item from [low, high)."""
        return uniform(self.seeds, f"{self.stream}/{name}", count, low, high)

    def integer(self, name: str, low: int, high: int | Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """One whole number for each item from [low, high)."""
        return integers(self.seeds, f"{self.stream}/{name}", 1, low, high)[:, 0]

    def normals(self, name: str, count: int) -> Float[Tensor, "batch count"]:
        """`count` standard normal draws for each item."""
        return normal(self.seeds, f"{self.stream}/{name}", count)

    def chosen(self, prob: float) -> Bool[Tensor, " batch"]:
        """True for the items that are to be changed: none at 0, all at 1."""
        return self.uniform("prob") < prob

    def at(self, index: Int[Tensor, " part"]) -> "Draws":
        """The same draws for some of the items."""
        return Draws(self.seeds[index], self.stream)


def draws_of(batch: Batch, stream: str) -> Draws:
    """The draws of a batch at a place in a chain.

    Raises:
        ConfigError: the batch has no seeds.
    """
    if batch.seeds is None:
        raise ConfigError(
            f"augmentation '{stream}' draws from batch.seeds, and this batch has none; "
            "make them with sonorant.core.seed.item_seeds(seed, epoch, ids) and pass Batch(..., seeds=...)"
        )
    return Draws(batch.seeds.to(batch.waveform.device), stream)


def check_range(name: str, value: tuple[float, float], low: float = -float("inf"), high: float = float("inf")) -> None:
    """Refuses a range that is not (smaller, larger) inside [low, high], by name.

    >>> check_range("Volume.gain_db", (6.0, -6.0))
    Traceback (most recent call last):
    sonorant.core.errors.ConfigError: Volume.gain_db must be (low, high) with low <= high in [-inf, inf], got (6.0, -6.0)
    """
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ConfigError(f"{name} must be (low, high) with low <= high in [{low}, {high}], got {tuple(value)}")


def per_item(value: Tensor, like: Tensor) -> Tensor:
    """One value an item, shaped and typed to broadcast over `like (batch, …)`."""
    kind = like.dtype if like.is_floating_point() else value.dtype
    return value.to(device=like.device, dtype=kind).view(-1, *[1] * (like.dim() - 1))


def ensure_float(waveform: Tensor) -> Tensor:
    """At least float32: transforms and long sums are not made for half precision."""
    return waveform if waveform.dtype in (torch.float32, torch.float64) else waveform.float()


def wide(like: Tensor) -> torch.dtype:
    """The widest float that the tensor's device has: running sums over a whole item want more than float32."""
    return torch.float32 if like.device.type == "mps" else torch.float64
