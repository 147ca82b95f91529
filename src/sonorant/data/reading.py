"""References of items → `Batch`: what runs in workers, or in the process that trains."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonorant.audio.resample import resample_soxr
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import pad
from sonorant.core.seed import derive
from sonorant.core.types import Batch
from sonorant.data.collate import collate_labels

__all__ = ["Kept", "Loaded", "Reader", "read_cut"]


@dataclass
class Loaded:
    """What a worker sends back."""

    batch: Batch | None = None
    num_items: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    failure: str = ""


class Kept:
    """Decoded audio by item, up to so many bytes. What came first stays: over epochs every item is asked for equally often,
    and throwing out the one that was used longest ago would throw out the one that is needed next."""

    def __init__(self, room: float) -> None:
        self.room, self._left, self._audio = room, room, dict[str, Tensor]()

    def __reduce__(self) -> tuple[type, tuple[float]]:
        # To other processes it travels empty.
        return Kept, (self.room,)

    def get(self, ref: Any, read: Callable[[], Tensor]) -> Tensor:
        """The item's audio; whoever gets it must not change it in place."""
        key = str(ref)
        if key in self._audio:
            return self._audio[key]
        audio = read()
        size = audio.numel() * audio.element_size()
        if size <= self._left:
            self._audio[key], self._left = audio, self._left - size
        return audio


@dataclass(frozen=True)
class Reader:
    """References of items → batch. A map-style data set whose index is (references, passes)."""

    source: Any
    sample_rate: int
    channels: int | None
    labels: Mapping[str, Callable[[Any], Any]]
    seed: int
    train: bool
    kept: Kept

    def __getitem__(self, order: tuple[Sequence[Any], Sequence[int]]) -> Loaded:
        """Errors come back as text, so that they name the item also across processes."""
        try:
            return self._load(*order)
        except DataError as error:
            return Loaded(failure=str(error))
        except Exception:
            return Loaded(failure=f"reading a batch failed:\n{traceback.format_exc()}")

    def _load(self, refs: Sequence[Any], passes: Sequence[int]) -> Loaded:
        loaded = Loaded(num_items=len(refs))
        cuts, audio, seeds = [], [], []
        for ref, done in zip(refs, passes):
            cut = self.source.cut(ref)
            try:
                signal_ = self.kept.get(ref, partial(self._audio, cut, ref))
            except ConfigError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
                if not self.train:
                    raise DataError(f"item '{cut.id}' cannot be read: {reason}") from error
                loaded.skipped[cut.id] = reason
                continue
            cuts.append(cut)
            audio.append(signal_)
            # One pass over everything has no epochs; a corpus in a mixture has its own.
            seeds.append(derive(self.seed, done if self.train else 0, cut.id))
        if cuts:
            loaded.batch = self._batch(cuts, audio, seeds)
        return loaded

    def _audio(self, cut: Any, ref: Any) -> Tensor:
        return read_cut(self.source.filled(cut, ref), self.sample_rate, self.channels)

    def _batch(self, cuts: list[Any], audio: list[Tensor], seeds: list[int]) -> Batch:
        # pad() wants time first; items are (time) or (channel, time).
        multichannel = audio[0].dim() == 2
        waveform, lengths = pad([item.t() if multichannel else item for item in audio])
        waveform = waveform.transpose(1, 2).contiguous() if multichannel else waveform
        labels: dict[str, Any] = {}
        for name, label in self.labels.items():
            labels.update(collate_labels(name, [_labelled(name, label, cut) for cut in cuts], [cut.id for cut in cuts]))
        ids = tuple(cut.id for cut in cuts)
        return Batch(waveform, lengths, self.sample_rate, labels, ids, torch.tensor(seeds, dtype=torch.int64))


def _labelled(name: str, label: Callable[[Any], Any], cut: Any) -> Any:
    try:
        return label(cut)
    except Exception as error:
        raise DataError(f"label '{name}' of item '{cut.id}' failed: {type(error).__name__}: {error}") from error


def read_cut(cut: Any, sample_rate: int, channels: int | None = None) -> Tensor:
    """A cut's audio as float32 in [-1, 1], (time) or, with `channels`, (channel, time).

    Args:
        cut: a lhotse cut.
        sample_rate: Hz of what comes back; another rate is resampled by soxr.
        channels: how many there must be; None averages them.

    Raises:
        DataError: empty audio, samples that are not finite, audio that is the output of a command.
        ConfigError: another number of channels.
    """
    # Here, because lhotse takes a second to import and whoever reads cuts has imported it.
    from sonorant.data.corpora.corpus import load_audio

    samples = load_audio(cut)
    if channels is None:
        samples = samples.mean(axis=0, keepdims=True) if len(samples) > 1 else samples
    elif len(samples) != channels:
        raise ConfigError(
            f"item '{cut.id}' has {len(samples)} channels, expected channels={channels}; None averages them"
        )
    if not samples.shape[1] or not np.isfinite(samples).all():
        raise DataError(f"item '{cut.id}' is empty or holds samples that are not finite")
    if cut.sampling_rate != sample_rate:
        samples = resample_soxr(samples.T, cut.sampling_rate, sample_rate).T
    signal_ = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    return signal_ if channels is not None else signal_[0]
