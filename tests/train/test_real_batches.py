"""The same promises with the toolkit's own batches from audio files: resume with loader processes and with two workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from train_toy import OFF, QUIET, digest, strike

from sonorant.core.errors import ConfigError, TrainingError
from sonorant.core.types import Batch, Loss
from sonorant.data.batches import BatchConfig, Batches
from sonorant.train.config import TrainConfig
from sonorant.train.launch import launch
from sonorant.train.loop import FitResult, fit

RATE, FRAME = 8000, 80


class Loudness(nn.Module):
    """Predicts each frame's power, with dropout; draws a gain from the items' seeds, as augmentations do."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(FRAME, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))

    def losses(self, batch: Batch) -> dict[str, Loss]:
        assert batch.seeds is not None
        gain = 0.5 + (batch.seeds % 1000)[:, None] / 1000
        frames = (batch.waveform * gain).unfold(1, FRAME, FRAME)
        valid = torch.arange(frames.shape[1])[None] < (batch.lengths // FRAME)[:, None]
        error = (self.net(frames)[..., 0] - frames.square().mean(-1)) ** 2
        return {"model": Loss((error * valid).sum(), valid.sum())}


def cuts_of(folder: Path, count: int = 24) -> list[Any]:
    from lhotse import MonoCut, Recording

    folder.mkdir(parents=True, exist_ok=True)
    cuts = []
    for i in range(count):
        path = folder / f"t{i}.wav"
        if not path.exists():
            time = np.arange(int(RATE * (0.2 + 0.03 * (i * 7 % 11)))) / RATE
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 20 * i) * time), RATE)
        recording = Recording.from_file(path, recording_id=path.stem)
        cuts.append(MonoCut(path.stem, 0.0, recording.duration, 0, recording=recording))
    return cuts


def run(audio: str, folder: str, options: dict[str, Any], kill_at: int = 0) -> str:
    """One training on files; `options`: steps, num_workers, max_seconds, resume."""
    if kill_at:
        strike(Loudness, kill_at)
    objective, _ = trained(audio, folder, **options)
    told = digest(objective)
    (Path(folder) / "digest.txt").write_text(told)
    return told


def trained(
    audio: str, folder: str, steps: int, num_workers: int = 0, max_seconds: float = 1.5, **given: Any
) -> tuple[Loudness, FitResult]:
    objective = Loudness()
    config = BatchConfig(max_seconds=max_seconds, sample_rate=RATE, num_workers=num_workers)
    optimizers = {"model": torch.optim.AdamW(objective.parameters(), lr=0.01)}
    result = fit(
        objective,
        lambda rank, world: Batches(cuts_of(Path(audio)), config, seed=3, rank=rank, world_size=world),
        optimizers,
        steps=steps,
        folder=folder,
        config=TrainConfig(**{**QUIET, "doctor": OFF, "checkpoint_every": 3}),
        **given,
    )
    return objective, result


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("audio")
    cuts_of(folder)
    return str(folder)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_kills_change_nothing(num_workers: int, audio: str, tmp_path: Path, outcome: Callable[..., int]) -> None:
    # Some seven batches an epoch, so that the kills fall into different ones; the last part changes the loaders.
    options = {"steps": 12, "num_workers": num_workers}
    alone, _ = trained(audio, str(tmp_path / "alone"), steps=12)
    folder = str(tmp_path / "killed")
    assert outcome(run, audio, folder, options, 5) == -9
    assert outcome(run, audio, folder, options, 6) == -9
    assert outcome(run, audio, folder, {**options, "num_workers": num_workers // 2}) == 0
    assert (tmp_path / "killed" / "digest.txt").read_text() == digest(alone)


def test_two_workers_killed_and_resumed(audio: str, tmp_path: Path, server: Any) -> None:
    options = {"steps": 8, "num_workers": 1}
    together = launch(run, 2, audio, str(tmp_path / "alone"), options, start_method="forkserver")
    with pytest.raises(TrainingError, match="ended without a word"):
        launch(run, 2, audio, str(tmp_path / "killed"), options, 6, start_method="forkserver")
    assert launch(run, 2, audio, str(tmp_path / "killed"), options, start_method="forkserver") == together


def test_other_batches_are_refused_or_begin_a_new_pass(audio: str, tmp_path: Path) -> None:
    trained(audio, str(tmp_path), steps=5)
    with pytest.raises(ConfigError, match="cannot go on exactly where they stood"):
        trained(audio, str(tmp_path), steps=7, max_seconds=1.0)
    _, result = trained(audio, str(tmp_path), steps=7, max_seconds=1.0, resume="ignore-config")
    assert result.step == 7
