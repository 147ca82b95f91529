"""Babble: several people talking at once, from a bank of speech or from the other items of the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.augment.clips import Clips, partners
from sonorant.audio.augment.draws import Draws, check_range, draws_of, ensure_float, wide
from sonorant.audio.augment.items import Change, Items, augmented
from sonorant.audio.augment.noise import add_noise
from sonorant.core.config import at_least, within
from sonorant.core.types import Batch

__all__ = ["Babble"]


@dataclass(frozen=True, kw_only=True)
class Babble:
    """Adds the sum of several talkers, each at the same level, at a drawn ratio to the speech.

    Talkers from the batch cost nothing to load, but then an item's sound depends on its neighbours: give `clips` where an
    item must be the same in every batch. A batch of one item has nobody to babble and stays as it is.
    """

    clips: Clips | None = None
    """Speech of other people; None for the other items of the batch."""
    num_talkers: int = 5
    """At most as many as the batch has other items, where they come from it."""
    snr_db: tuple[float, float] = (5.0, 20.0)
    """Range of the ratio of speech to babble."""
    prob: float = 1.0

    def __post_init__(self) -> None:
        within("Babble.prob", self.prob, 0, 1)
        at_least("Babble.num_talkers", self.num_talkers, 1)
        check_range("Babble.snr_db", self.snr_db)

    def __call__(self, batch: Batch, stream: str = "") -> Batch:
        stream = f"{stream}/babble"
        if self.clips is not None:
            self.clips.expect_rate(batch.sample_rate, "Babble")
            return augmented(batch, stream, self.prob, lambda items: self._change(items, self._from_bank(items)))
        draws = draws_of(batch, stream)
        others = partners(draws, self.num_talkers)
        waveform = ensure_float(batch.waveform if batch.waveform.dim() == 3 else batch.waveform[:, None]).detach()
        lengths = batch.lengths.to(waveform.device)
        clips = Clips.of_batch(waveform, lengths, batch.sample_rate)
        return augmented(
            batch, stream, self.prob, lambda items: self._change(items, _talk(items, clips, others[items.index]))
        )

    def _change(self, items: Items, babble: Tensor) -> Change:
        snr_db = items.draws.uniform("snr_db", *self.snr_db)
        return Change(add_noise(items.waveform, items.lengths, babble, snr_db, sample_rate=items.sample_rate))

    def _from_bank(self, items: Items) -> Tensor:
        assert self.clips is not None
        highs = [items.draws.integer(f"clip/{k}", 0, len(self.clips)) for k in range(self.num_talkers)]
        return _talk(items, self.clips, torch.stack(highs, dim=1))


def _talk(items: Items, clips: Clips, index: Tensor) -> Float[Tensor, "part channel time"]:
    """The sum of the clips `index (part, talker)`, each from a place of its own and at unit power."""
    babble = torch.zeros_like(items.waveform)
    levels = _levels(clips).to(items.waveform)
    for talker in range(index.shape[1]):
        chosen = index[:, talker]
        start = _start(items.draws, talker, clips.lengths.to(chosen.device)[chosen])
        babble = babble + clips.take(chosen, start, babble.shape[-1]) / levels[chosen][:, None, None]
    return babble


def _start(draws: Draws, talker: int, lengths: Tensor) -> Tensor:
    return draws.integer(f"start/{talker}", 0, lengths)


def _levels(clips: Clips) -> Tensor:
    """Root mean square of each clip, by differences of a running sum, which needs no padding."""
    square = clips.samples.to(wide(clips.samples)).square().mean(dim=0)
    running = torch.cat((square.new_zeros(1), square.cumsum(dim=0)))
    total = running[clips.offsets + clips.lengths] - running[clips.offsets]
    return (total / clips.lengths).clamp(min=1e-12).sqrt()
