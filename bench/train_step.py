"""What the training loop costs: `fit` against a bare PyTorch loop on the same model and batches, and checkpoints.

The bare loop does what any careful one does (zero, forward, backward, clip, step); `fit` adds exact accumulation, guards,
seeding of each batch, the doctor, the log, and its position in the data. Both run in this process, in turn.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from harness import interleaved, peak_memory_mb, report
from torch import nn

from sonorant.core.types import Batch, Loss
from sonorant.train.checkpoint import Checkpoints
from sonorant.train.config import DoctorConfig, TrainConfig
from sonorant.train.loop import fit

RATE = 16000
HOP = 160


class Recurrent(nn.Module):
    """A small recogniser: frames of waveform, two GRU layers, CTC over 32 tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.front = nn.Linear(HOP * 2, dim)
        self.rnn = nn.GRU(dim, dim, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * dim, 32)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        frames = batch.waveform.unfold(1, 2 * HOP, 2 * HOP)
        log_probs = self.head(self.rnn(torch.relu(self.front(frames)))[0]).log_softmax(-1)
        total = nn.functional.ctc_loss(
            log_probs.transpose(0, 1),
            batch.labels["tokens"],
            batch.lengths // (2 * HOP),
            batch.labels["tokens_lengths"],
            reduction="sum",
            zero_infinity=True,
        )
        return {"model": Loss(total, batch.labels["tokens_lengths"].sum())}


class Prepared:
    """Batches that are ready in memory, so that only the loop is timed."""

    def __init__(self, seconds: float, items: int, count: int = 8) -> None:
        generator = torch.Generator().manual_seed(0)
        samples = int(seconds * RATE)
        self.batches = []
        for index in range(count):
            lengths = torch.linspace(0.6, 1.0, items).mul(samples).long()
            tokens = torch.randint(1, 32, (items, 12), generator=generator)
            labels = {"tokens": tokens, "tokens_lengths": torch.full((items,), 12)}
            waveform = torch.randn(items, samples, generator=generator) * 0.1
            ids = tuple(f"{index}-{i}" for i in range(items))
            self.batches.append(Batch(waveform, lengths, RATE, labels, ids=ids))
        self.consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.consumed = state["consumed"]


def bare_step(objective: Recurrent, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step as one would write it by hand; returns the loss, which any loop wants to show."""
    loss = objective.losses(batch)["model"]
    optimizer.zero_grad(set_to_none=True)
    mean = loss.total / loss.count
    mean.backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 5.0)
    optimizer.step()
    return mean.item()


class Interleaved(Prepared):
    """Makes a bare step of the peer before each batch that it gives to `fit`, and times both.

    From the moment a batch is handed out until the next one is asked for, all that happens is `fit`'s own step. Seconds are
    of this thread's processor, so that other work on the machine does not count.
    """

    def __init__(self, dim: int, seconds: float, items: int) -> None:
        super().__init__(seconds, items)
        self.peer = Recurrent(dim)
        self.optimizer = torch.optim.AdamW(self.peer.parameters(), lr=1e-4)
        self.ours_seconds: list[float] = []
        self.peer_seconds: list[float] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            start = time.thread_time()
            bare_step(self.peer, self.optimizer, batch)
            self.peer_seconds.append(time.thread_time() - start)
            self.consumed += 1
            start = time.thread_time()
            yield batch
            self.ours_seconds.append(time.thread_time() - start)


def overhead(dim: int, seconds: float, items: int, steps: int) -> dict[str, Any]:
    """One row: `fit`'s step against a bare one, the median over pairs."""
    batches = Interleaved(dim, seconds, items)
    config = TrainConfig(
        accelerator="cpu", tensorboard=False, progress=False, checkpoint_every=0, doctor=DoctorConfig(flat_steps=0)
    )
    objective = Recurrent(dim)
    optimizers = {"model": torch.optim.AdamW(objective.parameters(), lr=1e-4)}
    with tempfile.TemporaryDirectory() as folder:
        fit(objective, batches, optimizers, steps=steps, folder=folder, config=config)
    pairs = list(zip(batches.ours_seconds, batches.peer_seconds))[5:]
    ours, peer = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    audio = statistics.mean(batch.seconds for batch in batches.batches)
    return {
        "what": f"training step, GRU {dim} wide, {items} × {seconds:g} s",
        "ours": f"{ours * 1e3:.2f} ms",
        "peer": f"{peer * 1e3:.2f} ms (bare loop)",
        "ratio": 1 / ratio,
        "ours / peer": f"{ratio:.3f}",
        "audio-seconds/s": audio / ours,
        "memory_mb": peak_memory_mb(),
    }


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def checkpoint(dim: int, repeats: int) -> dict[str, Any]:
    """Seconds to write a training state durably, and to read and verify it; against torch.save of the same."""
    from sonorant.train.state import module_state, optimizer_state

    objective = Recurrent(dim)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4)
    bare_step(objective, optimizer, Prepared(0.5, 2, count=1).batches[0])
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)

        def write() -> Path:
            from sonorant.train.checkpoint import TrainingState

            model, extra = module_state(objective)
            moments = {"model": optimizer_state(optimizer, names)}
            return checkpoints.write(TrainingState(1, model, {}, moments, {"extra": extra}))

        def pickled() -> None:
            state = {"model": objective.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "peer.pt")

        pair = interleaved(write, pickled, repeats)
        size = sum(file.stat().st_size for file in checkpoints.path(1).iterdir()) / 1e6
        read = _timed(checkpoints.latest)
    return {
        "what": f"checkpoint of {size:.0f} MB: write, checksum, force to disk (read and verify {read:.2f} s)",
        "ours": f"{pair.ours_seconds:.3f} s",
        "peer": f"{pair.peer_seconds:.3f} s (torch.save, neither atomic nor forced)",
        "ratio": pair.ratio,
        "memory_mb": peak_memory_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    steps = 40 if quick else 160
    rows = [overhead(32, 1.0, 2, steps), overhead(64, 2.0, 4, steps), overhead(128, 4.0, 8, steps // 4)]
    rows += [checkpoint(256, 3 if quick else 7), checkpoint(1024, 3)]
    notes = "`ours / peer` is the loop's overhead, aim ≤ 1.05; processor seconds of one thread, steps in turn."
    report("train_step", "Training loop and checkpoints", rows, notes)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
