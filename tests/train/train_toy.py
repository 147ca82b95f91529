"""A training so small that it can be run, killed and run again many times; also a script, for tests that need a process.

The objective has dropout and uneven lengths, so that random state and exact means are on trial; the batches know how many
of them were consumed.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sonorant.core.errors import SonorantError
from sonorant.core.types import Batch, Loss, Score
from sonorant.train.config import DoctorConfig, TrainConfig
from sonorant.train.devices import full_tensor
from sonorant.train.loop import FitResult, fit
from sonorant.train.signals import Interrupted

DIM = 6
RATE = 100


class Regression(nn.Module):
    """Predicts the mean of each second of noise through a small net; counts seconds, so lengths matter."""

    def __init__(self, dropout: float = 0.1, seed: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(RATE, DIM), nn.Tanh(), nn.Dropout(dropout), nn.Linear(DIM, 1))

    def losses(self, batch: Batch) -> dict[str, Loss]:
        seconds = batch.waveform.unflatten(1, (-1, RATE))
        valid = torch.arange(seconds.shape[1])[None] < (batch.lengths // RATE)[:, None]
        error = (self.net(seconds)[..., 0] - seconds.mean(-1) * 5 - 0.5) ** 2
        total = (error * valid).sum()
        return {"model": Loss(total, valid.sum(), {"squared": total.detach()})}


class Adversaries(nn.Module):
    """A generator that is told apart from ones by a discriminator; both losses come from one pass."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.generator = nn.Linear(RATE, 2)
            self.discriminator = nn.Linear(2, 1)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        made = self.generator(batch.waveform[:, :RATE])
        count = torch.tensor(float(len(batch)))
        fooled = (self.discriminator(made) - 1) ** 2
        told = self.discriminator(made.detach()) ** 2 + (self.discriminator(torch.ones_like(made)) - 1) ** 2
        return {"generator": Loss(fooled.sum(), count), "discriminator": Loss(told.sum(), count)}


def make_batch(index: int, size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(index)
    seconds = torch.randint(1, 6, (size,), generator=generator)
    waveform = torch.rand(size, int(seconds.max()) * RATE, generator=generator) - 0.3
    waveform = waveform * (torch.arange(waveform.shape[1])[None] < seconds[:, None] * RATE)
    return Batch(waveform, seconds * RATE, RATE, ids=tuple(f"item{index}-{i}" for i in range(size)))


class ToyBatches:
    """Passes of `per_pass` batches, shared out among ranks; optionally fetched by loader processes ahead of use."""

    def __init__(
        self, per_pass: int = 7, rank: int = 0, world: int = 1, num_workers: int = 0, pause: float = 0
    ) -> None:
        self.per_pass, self.rank, self.world, self.num_workers, self.pause = per_pass, rank, world, num_workers, pause
        self.consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        if not self.per_pass:
            return
        start = self.consumed % self.per_pass
        order = [(self.consumed // self.per_pass, i) for i in range(start, self.per_pass)]
        indices = [1000 * turn + i * self.world + self.rank for turn, i in order]
        source: Any = map(make_batch, indices)
        if self.num_workers:
            dataset = _Indexed(indices)
            source = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=self.num_workers)
        for batch in source:
            time.sleep(self.pause)
            self.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.consumed = state["consumed"]


class _Indexed(torch.utils.data.Dataset):
    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        return make_batch(self.indices[position])


QUIET: dict[str, Any] = {"tensorboard": False, "progress": False, "log_every": 5, "accelerator": "cpu"}
OFF = DoctorConfig(flat_steps=0, frozen_steps=0)


def toy_optimizers(objective: nn.Module, lr: float = 0.02) -> dict[str, torch.optim.Optimizer]:
    return {"model": torch.optim.AdamW(objective.parameters(), lr=lr)}


def train(
    folder: Path | str, *, steps: int = 20, dropout: float = 0.1, lr: float = 0.02, **options: Any
) -> tuple[Regression, FitResult]:
    """One training; `options` go to TrainConfig but for those of `ToyBatches` and `fit`."""
    objective = Regression(dropout)
    data = {key: options.pop(key) for key in ("per_pass", "num_workers", "pause") if key in options}
    given = {
        key: options.pop(key) for key in ("settings", "schedules", "validate", "diagnose", "resume") if key in options
    }
    batches = options.pop("batches", None) or (lambda rank, world: ToyBatches(rank=rank, world=world, **data))
    config = TrainConfig(**{**QUIET, "doctor": OFF, **options})
    result = fit(objective, batches, toy_optimizers(objective, lr), steps=steps, folder=folder, config=config, **given)
    return objective, result


def digest(objective: nn.Module) -> str:
    """Every bit of the weights."""
    tensors = [full_tensor(tensor.detach()).contiguous() for tensor in objective.state_dict().values()]
    return "".join(tensor.view(torch.uint8).numpy().tobytes().hex() for tensor in tensors)


def train_and_tell(folder: str, options: dict[str, Any], kill_at: int = 0, terminate_at: int = 0) -> str:
    """Trains, perhaps killing its own process on the way; writes the weights' digest into the folder."""
    if kill_at or terminate_at:
        strike(Regression, kill_at or terminate_at, signal.SIGKILL if kill_at else signal.SIGTERM)
    objective, _ = train(folder, **options)
    told = digest(objective)
    if os.environ.get("RANK", "0") == "0":
        (Path(folder) / "digest.txt").write_text(told)
    return told


def strike(cls: Any, at: int, number: int = signal.SIGKILL) -> None:
    """Sends this process a signal in the midst of its `at`-th batch of this session."""
    # Loader processes look only so often whether whoever feeds them still lives, and the test waits for them too.
    torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL = 0.2
    calls = 0
    losses = cls.losses

    def counted(self: Any, batch: Batch) -> dict[str, Loss]:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), number)
        return losses(self, batch)

    cls.losses = counted


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--terminate-at", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(1)
    try:
        train_and_tell(arguments.folder, arguments.options, arguments.kill_at, arguments.terminate_at)
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        return 128 + error.number
    except SonorantError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def mean_error(objective: nn.Module) -> list[Score]:
    with torch.no_grad():
        losses = [objective.losses(make_batch(10**6 + i))["model"] for i in range(3)]
    total = sum(float(loss.total) for loss in losses) / sum(float(loss.count) for loss in losses)
    return [Score("error", total, "lower", num_items=9)]


if __name__ == "__main__":
    sys.exit(main())
