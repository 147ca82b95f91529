"""ABX of an encoder's layer on the phones of a corpus: nothing is trained, so that nothing has to be chosen."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sonorant.benchmark.probe import alignment_of
from sonorant.benchmark.workspace import Workspace
from sonorant.core.alignment import first_centre, frames_within
from sonorant.core.checkpoint import checkpoint_digest
from sonorant.core.config import one_of, to_plain
from sonorant.core.files import atomic_write
from sonorant.core.types import Score, Segment
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import content_of, speaker_of
from sonorant.encoders.checkpoint import load_trained_encoder
from sonorant.metrics.abx import Abx
from sonorant.units.tokenizer import layer_of, streamed

__all__ = ["abx_scores", "abx_stage", "phone_items"]

Context = Literal["triphone", "any"]


def phone_items(
    cut: Any, num_frames: int, frame_rate: float, offset: float, context: Context, silence: Sequence[str]
) -> Iterator[tuple[tuple[str, str, str], slice]]:
    """The phones of a cut: (phone, context, speaker), and the frames that stand for it.

    Args:
        cut: with a phone alignment and a speaker.
        num_frames, frame_rate, offset: of the encoder.
        context: `triphone` takes the frames of both neighbours in, and compares phones between the same ones; `any` takes
            the phone's own frames.
        silence: phones that are neither compared nor neighbours.
    """
    speaker = speaker_of(cut)
    phones = alignment_of(cut, "phone")
    for place, phone in enumerate(phones):
        around = phones[place - 1 : place + 2] if place else []
        if context == "any":
            span, where = [phone], ""
        elif len(around) == 3 and _together(around):
            span, where = around, f"{around[0].label} {around[2].label}"
        else:
            continue
        first, end = frames_within(span[0].start, span[-1].end, num_frames, frame_rate, offset)
        if end > first and not any(part.label in silence for part in span):
            yield (phone.label, where, speaker), slice(first, end)


def _together(phones: Sequence[Segment]) -> bool:
    return all(after.start - before.end < 1e-3 for before, after in zip(phones, phones[1:]))


def abx_scores(
    encoder: nn.Module,
    cuts: Any,
    arm: str,
    *,
    layer: int | None = None,
    context: Context = "triphone",
    batches: BatchConfig | None = None,
    sample_rate: int = 16000,
    silence: Sequence[str] = ("sil",),
    **options: Any,
) -> list[Score]:
    """`arm/abx_within` and `arm/abx_across`: shares of triples answered wrongly.

    Args:
        encoder: frozen, from waveforms.
        cuts: with phone alignments and speakers.
        arm: before the slash of the scores' names.
        layer: see `units.tokenizer.layer_of`.
        context: see `phone_items`.
        batches: budgets.
        sample_rate: Hz, of what the encoder takes.
        silence: phones that do not count.
        options: of `metrics.abx.Abx`, such as `distance` and `max_items`.

    Raises:
        DataError: no two phones share a context and a speaker; take `context="any"` or more cuts.
    """
    one_of("context", context, ("triphone", "any"))
    cuts = list(cuts)
    encoder.eval()
    by_id, frozen = {cut.id: cut for cut in cuts}, encoder
    offset = first_centre(frozen.output_lengths, sample_rate)  # type: ignore[arg-type]
    metrics = [Abx(mode, f"{arm}/abx_{mode}", **options) for mode in ("within", "across")]  # type: ignore[arg-type]
    device = next((tensor.device for tensor in [*encoder.parameters(), *encoder.buffers()]), torch.device("cpu"))
    budget = replace(batches or BatchConfig(max_seconds=60), sample_rate=sample_rate)
    for batch, found in streamed(cuts, budget, lambda audio: layer_of(encoder, audio, layer), device=device):
        values: Tensor = found.values.cpu()
        for row, (name, count) in enumerate(zip(batch.ids, found.lengths.tolist(), strict=True)):
            for told, frames in phone_items(by_id[name], count, found.frame_rate, offset, context, silence):
                for metric in metrics:
                    # A copy: a slice would keep the whole batch's memory.
                    metric.update(told, values[row, frames].clone())
    return [metric.score() for metric in metrics]


def abx_stage(
    work: Workspace, arm: str, encoder: Path, cuts: Any, *, layer: int | None = None, **options: Any
) -> list[Score]:
    """`abx_scores` of a stored encoder as a stage: `arm/abx_within` and `arm/abx_across`.

    Args:
        work: where.
        arm: before the slash of the scores' names.
        encoder: folder of a trained encoder.
        cuts: with phone alignments and speakers.
        layer: see `units.tokenizer.layer_of`.
        options: plain ones of `abx_scores`, such as `context` and `max_items`.
    """

    def make(folder: Path) -> None:
        scores = abx_scores(load_trained_encoder(encoder), cuts, arm, layer=layer, **options)
        with atomic_write(folder / "scores.json") as file:
            file.write(json.dumps([to_plain(score) for score in scores], indent=1).encode())

    inputs = {"encoder": checkpoint_digest(encoder), "cuts": content_of(cuts), "layer": layer, "options": options}
    folder = work.stage(f"abx-{arm}", make, inputs)
    return [Score(**row) for row in json.loads((folder / "scores.json").read_text())]
