"""Waveforms → units: an encoder (or spectral frames), one of its layers, a quantiser.

`UnitTokenizer` works on batches; `tokenise` streams a corpus through one, longest items first, on the model's device.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.alignment import first_centre
from sonorant.core.config import at_least, within
from sonorant.core.errors import DataError
from sonorant.core.types import Batch, Features, Units
from sonorant.data.batches import BatchConfig, Batches

__all__ = ["UnitTokenizer", "layer_of", "streamed", "tokenise"]


def layer_of(encoder: Any, batch: Batch, layer: int | None = None) -> Features:
    """What one layer of a waveform encoder makes of a batch.

    Args:
        encoder: with `input == "waveform"`.
        batch: audio.
        layer: 0 is what enters the first block, then blocks are counted; None for what the encoder gives out.
    """
    if layer is None:
        return encoder(batch.waveform, batch.lengths)  # type: ignore[no-any-return]
    return encoder(batch.waveform, batch.lengths, layers=True)[layer]  # type: ignore[no-any-return]


class UnitTokenizer(nn.Module):
    """An encoder's layer and a quantiser as one function from batches to units.

    Args:
        encoder: from waveforms; a `SpectralFront` is one.
        quantiser: with `encode(Features) -> Units`, such as `KMeans`.
        layer: see `layer_of`.
        sample_rate: Hz, of what the encoder takes.
    """

    def __init__(
        self, encoder: nn.Module, quantiser: nn.Module, layer: int | None = None, sample_rate: int = 16000
    ) -> None:
        super().__init__()
        self.encoder, self.quantiser, self.layer, self.sample_rate = encoder, quantiser, layer, sample_rate
        if layer is not None:
            within("layer", layer, 0, int(encoder.num_layers))  # type: ignore[arg-type]

    @property
    def frame_rate(self) -> float:
        """Units a second."""
        return float(self.encoder.frame_rate)  # type: ignore[arg-type]

    @property
    def offset(self) -> float:
        """Seconds to the middle of the first frame."""
        return first_centre(self.output_lengths, self.sample_rate)

    def output_lengths(self, lengths: int | Tensor) -> Any:
        """Units for samples."""
        return self.encoder.output_lengths(lengths)  # type: ignore[operator]

    @torch.no_grad()
    def forward(self, batch: Batch) -> Units:
        """Units of each item; 0 beyond its length.

        Raises:
            DataError: audio at another sample rate.
        """
        if batch.sample_rate != self.sample_rate:
            raise DataError(f"units are made of audio at {self.sample_rate} Hz, this batch has {batch.sample_rate}")
        return self.quantiser.encode(layer_of(self.encoder, batch, self.layer))  # type: ignore[operator, no-any-return]


def streamed(
    cuts: Any, config: BatchConfig, work: Callable[[Batch], Any], *, device: torch.device | str = "cpu", **options: Any
) -> Iterator[tuple[Batch, Any]]:
    """`work` on a corpus, batch by batch, longest items first, without gradients; nothing is left out.

    Args:
        cuts: a lhotse `CutSet`, a list of cuts, or a Shar folder.
        config: budgets and workers.
        work: what to do with a batch on the device.
        device: where.
        options: of `Batches`, such as `labels`.
    """
    whole = replace(config, by_duration=True, shuffle=False, min_item_seconds=0.0, max_item_seconds=None)
    for batch in Batches(cuts, whole, train=False, **options):
        batch = batch.to(device)
        with torch.no_grad():
            yield batch, work(batch)


def tokenise(
    tokenizer: UnitTokenizer, cuts: Any, config: BatchConfig | None = None
) -> Iterator[tuple[str, Units, int]]:
    """Units of every cut: its id, units of a batch of one, and the samples that they stand for.

    Args:
        tokenizer: on any device, put into `eval()` meanwhile.
        cuts: see `streamed`.
        config: budgets; two minutes of audio a batch where None.
    """
    config = replace(config or BatchConfig(), sample_rate=tokenizer.sample_rate)
    at_least("max_seconds", config.max_seconds, 0)
    device = next((tensor.device for tensor in [*tokenizer.parameters(), *tokenizer.buffers()]), torch.device("cpu"))
    was_training = tokenizer.training
    tokenizer.eval()
    try:
        for batch, units in streamed(cuts, config, tokenizer, device=device):
            units = units.to("cpu")
            for row, (name, length) in enumerate(zip(batch.ids, units.lengths.tolist(), strict=True)):
                ids = units.ids[row : row + 1, :length]
                one = Units(ids, units.lengths[row : row + 1], units.frame_rate, units.num_units)
                yield name, one, int(batch.lengths[row])
    finally:
        tokenizer.train(was_training)
