"""What it costs to encode: multiply-adds for a second of audio, parameters, and the audio that passes in a second."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import load_checkpoint
from sonorant.core.config import to_plain
from sonorant.core.files import atomic_write
from sonorant.core.seed import normal
from sonorant.core.types import Score
from sonorant.encoders.checkpoint import KIND, load_trained_encoder
from sonorant.nn.cost import measure_cost

__all__ = ["encoding_scores", "encoding_stage"]


def encoding_scores(encoder: Any, arm: str, seconds: float = 10.0, sample_rate: int = 16000) -> list[Score]:
    """`arm/gmacs`, `arm/encode_rate` and `arm/parameters`.

    Args:
        encoder: of waveforms.
        arm: before the slash of the scores' names.
        seconds: of the longest of four items; attention costs more the longer they are.
        sample_rate: Hz, of what the encoder takes.

    Returns:
        Thousands of millions of multiply-adds for a second of audio, of one item of so many seconds; seconds of audio that
        are encoded in a second, four items from half as long on in a batch, the best of five tries, as other work on the
        machine only ever slows; millions of parameters.
    """
    encoder.eval()
    longest = round(seconds * sample_rate)
    lengths = torch.linspace(1.0, 0.5, 4).mul(longest).long()
    waveform: Tensor = 0.1 * normal(torch.arange(4), "encoding", longest)
    cost = measure_cost(encoder, waveform[:1], lengths[:1])
    encoder.eval()
    audio = float(lengths.sum()) / sample_rate
    taken = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            encoder(waveform, lengths)
            taken.append(time.perf_counter() - start)
    return [
        Score(f"{arm}/gmacs", cost.multiply_adds / seconds / 1e9, "lower", num_items=1),
        Score(f"{arm}/encode_rate", audio / min(taken), "higher", num_items=5),
        Score(f"{arm}/parameters", cost.parameters / 1e6, "lower", num_items=1),
    ]


def encoding_stage(work: Workspace, arm: str, encoder: Path, seconds: float = 10.0) -> list[Score]:
    """`encoding_scores` of a stored encoder as a stage: what was measured once stays.

    Args:
        work: where.
        arm: before the slash of the scores' names.
        encoder: folder of an encoder; its weights do not matter.
        seconds: of the longest item.
    """

    def make(folder: Path) -> None:
        scores = encoding_scores(load_trained_encoder(encoder), arm, seconds)
        with atomic_write(folder / "scores.json") as file:
            file.write(json.dumps([to_plain(score) for score in scores], indent=1).encode())

    told = dict(load_checkpoint(encoder, kind=KIND, verify=False).config)
    folder = work.stage(f"encoding-{arm}", make, {"encoder": told, "seconds": seconds})
    return [Score(**row) for row in json.loads((folder / "scores.json").read_text())]
