"""One session of a training: its parts, what it counts, how it is stored and taken up again."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sonorant.core.config import save_config
from sonorant.core.errors import ConfigError, TrainingError, unknown_name
from sonorant.core.seed import derive
from sonorant.core.types import Score
from sonorant.train.checkpoint import Checkpoints, TrainingState, disk_errors, read_state
from sonorant.train.config import TrainConfig
from sonorant.train.devices import gather, is_sharded, make_fabric, owners, relink, reseed
from sonorant.train.doctor import Doctor
from sonorant.train.ema import Ema
from sonorant.train.feed import Feed, TrainBatches
from sonorant.train.log import TrainingLog
from sonorant.train.meter import Meter
from sonorant.train.progress import ProgressBar
from sonorant.train.record import Resume, check_record, run_record
from sonorant.train.schedule import Schedule
from sonorant.train.state import load_module, load_optimizer, module_state, optimizer_state, tensors_of
from sonorant.train.step import LossModule, Stepper
from sonorant.train.symptoms import gradient_shares

__all__ = ["Requests", "Session"]

logger = logging.getLogger(__name__)


class Requests(NamedTuple):
    """What some worker asked for during a step; the same on every worker."""

    stop: bool
    save: bool


class Session:
    """One session of a training: its parts, and what it counts."""

    def __init__(
        self,
        objective: nn.Module,
        batches: TrainBatches | Callable[[int, int], TrainBatches],
        optimizers: Mapping[str, torch.optim.Optimizer],
        folder: Path,
        config: TrainConfig,
        settings: Any,
        schedules: Mapping[str, Schedule],
        validate: Callable[[], Sequence[Score]] | None,
        diagnose: Callable[[Any], Mapping[str, float]] | None,
    ) -> None:
        self.config, self.folder, self.objective = config, folder, objective
        self._validate, self._diagnose = validate, diagnose
        self.fabric = make_fabric(config)
        self.record = run_record(config, settings, optimizers, self.fabric.world_size)
        objective.train()
        if config.compile:
            for child in objective.children():
                child.compile(dynamic=True)
        owners(objective, optimizers)
        if config.strategy == "fsdp" and len(optimizers) > 1:
            # Parameters are gathered for one backward pass and freed after it.
            raise ConfigError(f"strategy 'fsdp' takes one optimiser, got {', '.join(optimizers)}; use 'ddp'")
        wrapped = LossModule(objective)
        with relink(wrapped, optimizers):
            module = self.fabric.setup_module(wrapped)
        self.names = {id(parameter): name for name, parameter in objective.named_parameters()}
        self.feed = Feed(batches, config.seed, self.fabric.global_rank, self.fabric.world_size, self.fabric.device)
        self.stepper = Stepper(self.fabric, module, objective, optimizers, schedules, config, self.feed)
        self.doctor = Doctor(config.doctor)
        self.stepper.inspect = self.doctor.inspect
        self.ema = Ema(objective, config.ema_decay, config.ema_warmup) if config.ema_decay else None
        self.checkpoints = Checkpoints(folder, config.keep)
        self.meter = Meter()
        self.step = self.skipped = self.best_step = self.without_gain = 0
        self.stopped = ""
        self._written = time.monotonic()
        self._log: TrainingLog | None = None
        self._bar = ProgressBar(0, 0, show=False)
        self.scores: tuple[Score, ...] = ()
        self.best: Score | None = None

    # --- a step -----------------------------------------------------------------------------------------------------

    def advance(self, asked_to_stop: int) -> Requests:
        """One step on every worker; skipped, and counted, where something is not finite."""
        if self.step == 0:
            self.stepper.after_backward = lambda: self.doctor.unreached(self.objective)
        elif self._diagnosis_due(self.step + 1):
            self.stepper.after_backward = lambda: self.meter.note(gradient_shares(self.objective))
        due = self.fabric.global_rank == 0 and self._clock_is_due()
        result = self.stepper.run(self.step, (float(asked_to_stop > 0), float(due)))
        self.step += 1
        if result.fault:
            self.skipped += 1
            self.doctor.skipped(self.step, result.fault, result.ids)
        else:
            self.doctor.observe(self.step, result.losses)
            if self.ema is not None:
                self.ema.update()
        self.meter.add(result)
        self._bar.update(self.step, result.losses, result.rates, self.meter.speed())
        if self._diagnosis_due(self.step):
            self._examine()
        stop, save = result.requests
        return Requests(stop > 0, save > 0)

    def _diagnosis_due(self, step: int) -> bool:
        return self._diagnose is not None and _every(step, self.config.doctor.diagnose_every)

    def _clock_is_due(self) -> bool:
        minutes = self.config.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._written > 60 * minutes

    def _examine(self) -> None:
        assert self._diagnose is not None
        with _evaluating(self.objective):
            statistics = dict(self._diagnose(self.stepper.last_batch))
        self.meter.note(statistics)
        self.doctor.examine(self.step, statistics)

    # --- validation ---------------------------------------------------------------------------------------------------

    def validation_due(self) -> bool:
        return _every(self.step, self.config.validate_every)

    def validated(self) -> bool:
        """Validates and logs; True where the score that matters is the best so far."""
        if self._validate is None:
            return False
        # Seeded by the step, so that a validation that draws (a subset, a prompt) draws the same after a resume.
        reseed(derive(self.config.seed, "validate", self.step), self.fabric.device)
        with _evaluating(self.objective, self.ema):
            scores = tuple(self._validate())
        self.scores = self.fabric.broadcast(scores)
        if self._log is not None:
            with disk_errors("the scores", "the last checkpoint stands"):
                self._log.scores(self.step, self.scores)
        if not self.scores:
            return False
        if self.fabric.global_rank == 0:
            logger.info("step %d: %s", self.step, ", ".join(map(str, self.scores)))
        score = self._chosen()
        better = not math.isnan(score.value) and (self.best is None or _better(score, self.best))
        self.without_gain = 0 if better else self.without_gain + 1
        if better:
            self.best, self.best_step = score, self.step
        if 0 < self.config.patience <= self.without_gain:
            self.stopped = "patience"
        return better

    def _chosen(self) -> Score:
        if not self.config.best:
            return self.scores[0]
        named = {score.name: score for score in self.scores}
        if self.config.best not in named:
            raise ConfigError(unknown_name("score in 'best'", self.config.best, named))
        return named[self.config.best]

    # --- the log ------------------------------------------------------------------------------------------------------

    @contextmanager
    def opened(self, steps: int) -> Iterator[None]:
        """Log, bar and clock are there within the block; the learning rates are the caller's again after it."""
        first = self.fabric.global_rank == 0
        if first:
            with disk_errors("the configuration", "nothing was trained yet"):
                save_config(self.record, self.folder / "training.json")
                self._log = TrainingLog(self.folder, self.step, self.config.tensorboard)
        self._bar = ProgressBar(self.step, steps, first and self.config.progress)
        self._written = time.monotonic()
        self.meter.start()
        try:
            yield
        finally:
            self._bar.close()
            if self._log is not None:
                self._log.close()
            self.stepper.restore_rates()

    def log_due(self) -> bool:
        return _every(self.step, self.config.log_every)

    def log(self) -> None:
        """A row for the steps since the last one; every worker must call."""
        row = self.meter.row(self.fabric)
        speed, waiting = self.meter.speed(), self.meter.waiting_share(self.feed.waited)
        if self.meter.steps >= 100:
            self.doctor.starved(waiting)
        if self._log is not None and row:
            row |= {"audio_seconds_per_second": speed, "waiting_share": waiting}
            with disk_errors("the log", "the last checkpoint stands"):
                self._log.row(self.step, row)
            logger.info("step %d: %s", self.step, ", ".join(f"{name} {value:.4g}" for name, value in row.items()))

    # --- checkpoints ----------------------------------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        return _every(self.step, self.config.checkpoint_every)

    def save(self, best: bool = False) -> None:
        """Writes a checkpoint; every worker must call, the first one writes."""
        feeds = gather(self.fabric, self.feed.state_dict())
        self.meter.fold(self.fabric)
        first = self.fabric.global_rank == 0
        # The others are needed where tensors are sharded only: to bring them together.
        state = self._state(feeds) if first or is_sharded(self.objective) else None
        fault = ""
        if first and state is not None:
            try:
                self.checkpoints.write(state, best)
            except TrainingError as error:
                fault = str(error)
        # What stops the first worker stops all of them, with the same words.
        fault = self.fabric.broadcast(fault)
        if fault:
            raise TrainingError(fault)
        self._written = time.monotonic()

    def _state(self, feeds: list[dict[str, Any]]) -> TrainingState:
        model, extra = module_state(self.objective)
        rest = {
            "record": self.record,
            "feeds": feeds,
            "extra": extra,
            "doctor": self.doctor.state_dict(),
            "meter": self.meter.state_dict(),
            "ema_updates": 0 if self.ema is None else self.ema.num_updates,
            "skipped": self.skipped,
            "stopped": self.stopped,
            "best_step": self.best_step,
            "without_gain": self.without_gain,
            "best": None if self.best is None else vars(self.best),
            "scores": [vars(score) for score in self.scores],
        }
        return TrainingState(
            step=self.step,
            model=model,
            average={} if self.ema is None else tensors_of(self.ema.averages),
            optimizers={name: optimizer_state(opt, self.names) for name, opt in self.stepper.optimizers.items()},
            rest=rest,
        )

    def restore(self, resume: Resume) -> None:
        """Takes up the folder's newest whole checkpoint, where there is one."""
        found = None
        if self.fabric.global_rank == 0:
            self.checkpoints.sweep()
            found = self.checkpoints.latest()
        step = self.fabric.broadcast(None if found is None else found.step)
        if step is None:
            return
        path = self.checkpoints.path(step)
        state = found or read_state(path)
        for line in check_record(state.rest["record"], self.record, folder=self.folder, step=step, resume=resume):
            logger.warning("going on with another configuration: %s", line)
        self._take_up(state, str(path), resume)
        logger.info("going on from step %d in %s", step, self.folder)

    def _take_up(self, state: TrainingState, where: str, resume: Resume) -> None:
        rest = state.rest
        load_module(self.objective, state.model, rest["extra"], where)
        for name, optimizer in self.stepper.optimizers.items():
            load_optimizer(optimizer, self.names, state.optimizers.get(name, {}), where)
        if self.ema is not None and state.average:
            self.ema.load(state.average, rest["ema_updates"])
        elif self.ema is not None:
            self.ema = Ema(self.objective, self.config.ema_decay, self.config.ema_warmup)
        self.feed.take_up(rest["feeds"], self.fabric.global_rank, strict=resume == "auto")
        self.doctor.load_state_dict(rest["doctor"])
        self.meter.load_state_dict(rest["meter"])
        self.step, self.skipped, self.stopped = state.step, rest["skipped"], rest["stopped"]
        self.best_step, self.without_gain = rest["best_step"], rest["without_gain"]
        self.best = None if rest["best"] is None else Score(**rest["best"])
        self.scores = tuple(Score(**score) for score in rest["scores"])


def _every(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def _better(new: Score, old: Score) -> bool:
    return new.value < old.value if new.better == "lower" else new.value > old.value


@contextmanager
def _evaluating(module: nn.Module, ema: Ema | None = None) -> Iterator[None]:
    """Eval mode, no gradients and, if there are some, averaged weights; then each part in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            if ema is None:
                yield
            else:
                with ema.applied():
                    yield
    finally:
        for part, training in modes:
            part.training = training
