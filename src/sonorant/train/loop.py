"""`fit`: the training loop. Read it first, then `session.py` (what a training is made of) and `step.py` (one exact step)."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from sonorant.core.config import at_least
from sonorant.core.types import Score
from sonorant.train.config import TrainConfig
from sonorant.train.feed import TrainBatches
from sonorant.train.record import Resume
from sonorant.train.schedule import Schedule
from sonorant.train.session import Session
from sonorant.train.signals import Interrupted, Interrupts

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What a training came to."""

    step: int
    """Steps made, in all sessions."""
    stopped: Literal["steps", "patience"]
    losses: Mapping[str, float]
    """Optimiser → mean loss since the last row of the log."""
    scores: tuple[Score, ...]
    """Of the last validation."""
    best: Score | None
    best_step: int
    skipped_steps: int
    """Steps left out because a loss or gradient was not finite."""
    audio_seconds: float
    """Trained on in all sessions, over all workers."""
    seconds: float
    """Of this session."""
    audio_seconds_per_second: float
    """In this session."""
    waiting_share: float
    """Share of this session's time spent waiting for data."""
    checkpoint: Path
    """The last one."""


def fit(
    objective: nn.Module,
    batches: TrainBatches | Callable[[int, int], TrainBatches],
    optimizers: Mapping[str, torch.optim.Optimizer],
    *,
    steps: int,
    folder: str | Path,
    config: TrainConfig | None = None,
    settings: Any = None,
    schedules: Mapping[str, Schedule] | None = None,
    validate: Callable[[], Sequence[Score]] | None = None,
    diagnose: Callable[[Any], Mapping[str, float]] | None = None,
    resume: Resume = "auto",
) -> FitResult:
    """Trains until `steps` steps are made in all, going on from whatever the folder holds.

    Killed at any moment and started again with the same arguments, it ends with the same weights, bit for bit.

    Args:
        objective: a module with `losses(batch) -> {optimiser name: Loss}`; trained in place.
        batches: source of batches with `state_dict` and `load_state_dict` (this worker's share), or a callable that makes
            it from (rank, number of workers). A pass that ends is followed by the next.
        optimizers: name → optimiser over parameters of the objective; each that learns in exactly one.
        steps: in all, over every session.
        folder: for checkpoints and logs; seen by all workers.
        config: how to train.
        settings: the whole configuration of the run, dataclass or mapping; a folder trained with another is refused.
        schedules: optimiser name → step → multiplier of its learning rates; 1 where absent.
        validate: gives scores; called on every worker, in eval mode, under no_grad, with the averaged weights where there
            are some. What the first worker returns counts.
        diagnose: batch → statistics of the present output, logged; `"blank_share"` is judged by the doctor.
        resume: `"ignore-config"` goes on in a folder that was trained with another configuration.

    Raises:
        TrainingError: another configuration in the folder, a full disk.
        Diagnosis: training cannot succeed; the message says why and what to do.
        Interrupted: SIGTERM or Ctrl-C came; the step was finished and all is written.
        DataError: nothing to train on.
        ConfigError: optimisers, losses and parameters do not match.
    """
    at_least("steps", steps, 1)
    session = Session(
        objective,
        batches,
        optimizers,
        Path(folder),
        config or TrainConfig(),
        settings,
        schedules or {},
        validate,
        diagnose,
    )
    session.restore(resume)
    with Interrupts() as interrupts, session.opened(steps):
        while session.step < steps and not session.stopped:
            asked = session.advance(interrupts.number)
            last = session.step == steps
            if last or session.log_due():
                session.log()
            improved = session.validated() if last or session.validation_due() else False
            if last or improved or session.stopped or asked.stop or asked.save or session.checkpoint_due():
                session.save(improved)
            if asked.stop and not last:
                raise Interrupted(
                    f"training was asked to stop and did, after step {session.step} of {steps}; everything is written in "
                    f"{folder}. Run the same command to go on",
                    interrupts.number or signal.SIGTERM,
                )
    return _result(session)


def _result(session: Session) -> FitResult:
    return FitResult(
        step=session.step,
        stopped="patience" if session.stopped else "steps",
        losses=dict(session.meter.losses),
        scores=session.scores,
        best=session.best,
        best_step=session.best_step,
        skipped_steps=session.skipped,
        audio_seconds=session.meter.audio_seconds,
        seconds=session.meter.elapsed(),
        audio_seconds_per_second=session.meter.speed(),
        waiting_share=session.meter.waiting_share(session.feed.waited),
        checkpoint=session.checkpoints.path(session.step),
    )
