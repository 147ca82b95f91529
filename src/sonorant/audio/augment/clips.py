"""Many clips of unequal length in one flat tensor, from which a batch takes pieces by index, and the partners of items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.augment.draws import Draws
from sonorant.audio.augment.items import silenced
from sonorant.core.errors import ConfigError, DataError

__all__ = ["Clips", "partners"]


@dataclass(frozen=True)
class Clips:
    """A bank of sounds, `Clips.of([rain, street], 16000)`; pieces wrap around at the end of a clip.

    >>> clips = Clips.of([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9.0])], 16000)
    >>> clips.take(torch.tensor([0, 1]), torch.tensor([1, 0]), 4)[:, 0].tolist()
    [[2.0, 3.0, 1.0, 2.0], [9.0, 9.0, 9.0, 9.0]]
    """

    samples: Float[Tensor, "channel time"]
    """All clips, one after another."""
    offsets: Int[Tensor, " clip"]
    """Where each clip starts."""
    lengths: Int[Tensor, " clip"]
    sample_rate: int

    @classmethod
    def of(cls, clips: Sequence[Tensor], sample_rate: int) -> "Clips":
        """A bank of mono clips `(time)`, or of clips `(channel, time)` with equally many channels.

        Raises:
            DataError: no clip, an empty one, or unequal numbers of channels.
        """
        if not clips:
            raise DataError("a bank of clips needs at least one clip, got none")
        two = [clip if clip.dim() == 2 else clip[None] for clip in clips]
        for index, clip in enumerate(two):
            if not clip.shape[1] or clip.shape[0] != two[0].shape[0]:
                raise DataError(
                    f"clip {index} must have samples and {two[0].shape[0]} channels like the first, "
                    f"got shape {tuple(clip.shape)}"
                )
        lengths = torch.tensor([clip.shape[1] for clip in two])
        return cls(torch.cat(two, dim=1), lengths.cumsum(0) - lengths, lengths, sample_rate)

    @classmethod
    def of_batch(
        cls, waveform: Float[Tensor, "batch channel time"], lengths: Int[Tensor, " batch"], sample_rate: int
    ) -> "Clips":
        """The items of a batch as clips, without their padding and without a copy where they are mono."""
        batch, channels, num_samples = waveform.shape
        offsets = torch.arange(batch, device=waveform.device) * num_samples
        return cls(waveform.transpose(0, 1).reshape(channels, batch * num_samples), offsets, lengths, sample_rate)

    def __len__(self) -> int:
        return len(self.lengths)

    def expect_rate(self, sample_rate: int, owner: str) -> None:
        """Refuses a batch of another rate.

        Raises:
            ConfigError: the rates differ.
        """
        if sample_rate != self.sample_rate:
            raise ConfigError(
                f"{owner}: its clips have {self.sample_rate} Hz and the batch {sample_rate} Hz; "
                f"resample the clips to {sample_rate} Hz (sonorant.audio.resample) before making the bank"
            )

    def take(
        self, index: Int[Tensor, " part"], start: Int[Tensor, " part"], num_samples: int
    ) -> Float[Tensor, "part channel time"]:
        """From clip `index`, `num_samples` samples from `start` on, wrapping around at the clip's end."""
        samples, offsets, lengths = (value.to(index.device) for value in (self.samples, self.offsets, self.lengths))
        steps = torch.arange(num_samples, device=index.device)
        where = (start[:, None] + steps) % lengths[index][:, None] + offsets[index][:, None]
        return samples[:, where].transpose(0, 1)

    def padded(self, index: Int[Tensor, " part"]) -> Float[Tensor, "part channel time"]:
        """The clips `index` from their beginnings, with zeros after their ends."""
        clips = self.take(index, torch.zeros_like(index), int(self.lengths.max()))
        return silenced(clips, self.lengths.to(index.device)[index])

    def draw(self, draws: Draws, name: str, num_samples: int) -> Float[Tensor, "part channel time"]:
        """A random clip for each item, from a random place in it."""
        index = draws.integer(f"{name}/clip", 0, len(self))
        start = draws.integer(f"{name}/start", 0, self.lengths.to(index.device)[index])
        return self.take(index, start, num_samples)


def partners(draws: Draws, count: int) -> Int[Tensor, "batch partner"]:
    """For each item of a batch `count` others, or as many as there are.

    Items stand in a ring in the order of a hash of their seeds, and the partners are the next ones round it: no item is
    its own partner, and the order of the items in the batch plays no part.
    """
    size = len(draws.seeds)
    order = draws.integer("ring", 0, 2**47).argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(size, device=order.device)
    steps = torch.arange(1, min(count, size - 1) + 1, device=order.device)
    return order[(rank[:, None] + steps) % size]
