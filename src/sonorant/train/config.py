"""What can be set about a training, beside the model, the data and the optimisers."""

from dataclasses import dataclass, field, fields
from typing import Any

from sonorant.core.config import at_least, one_of, to_plain, within

__all__ = ["DoctorConfig", "TrainConfig", "learning_fields"]


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """When the doctor stops a training; 0 turns a check off."""

    max_nonfinite: int = 10
    """Steps in a row whose loss or gradient is not finite, skipped each, until it stops."""
    dead_share: float = 0.5
    """Share of items with constant audio, or with no target, above which it stops."""
    inspect_first: int = 20
    """Batches inspected at the start of each session…"""
    inspect_every: int = 100
    """…and then each so manyeth batch."""
    spike_factor: float = 20.0
    """A loss is a spike when it stands above the running median by so many times the median's size."""
    spike_steps: int = 50
    """Spikes in a row until it stops."""
    flat_steps: int = 3000
    """Steps after which the loss must have fallen from where it started (0 for adversarial training)."""
    flat_tolerance: float = 0.005
    """Fall, as a share of the first median, below which a loss is flat."""
    frozen_steps: int = 100
    """Steps in a row with exactly the same loss until it stops."""
    diagnose_every: int = 200
    """Steps between calls of the task's `diagnose`."""
    blank_share: float = 0.999
    """Share of blank frames (`diagnose` → "blank_share") that counts as blank output."""
    blank_steps: int = 5000
    """Steps after which output may no longer be all blank: CTC begins with blanks, always, and leaves them."""
    collapse_steps: int = 500
    """Steps after which a representation may no longer be collapsed; at first, many are."""
    collapse_checks: int = 3
    """Calls of `diagnose` in a row that must find it so until it stops."""
    min_variation: float = 1e-3
    """Variance of frames over their mean square (`diagnose` → "frame_variation") below which frames are all alike."""
    min_rank: float = 1.5
    """Directions in use ("effective_rank") below which a representation is a line."""
    min_perplexity: float = 1.5
    """Codes in equal use ("…_perplexity") below which one code stands for everything."""
    chance_steps: int = 3000
    """Steps after which a contrastive choice must be better than chance…"""
    chance_factor: float = 1.5
    """…by so many times."""
    starved_share: float = 0.5
    """Share of the time spent waiting for data above which it warns."""

    def __post_init__(self) -> None:
        for name in ("dead_share", "blank_share", "starved_share"):
            within(name, getattr(self, name), 0, 1)
        for f in fields(self):
            at_least(f.name, getattr(self, f.name), 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How `fit` trains. The device, the log and the checkpoints do not change what is learnt; the rest does."""

    accumulate: int = 1
    """Batches of each worker whose gradients make one step."""
    clip_norm: float = 5.0
    """Largest norm of one optimiser's gradient; 0 for none."""
    ema_decay: float = 0.0
    """Share kept at each step by the moving average of the weights; 0 for none."""
    ema_warmup: bool = True
    """Let the average follow faster at the start."""
    precision: str = "32-true"
    """32-true, bf16-mixed, or auto: the latter where the device computes it natively, so another machine may train otherwise.
    Half precision is left out: bfloat16 needs no loss scaling."""
    seed: int = 0
    """Of dropout and whatever else the objective draws from global generators."""
    lr_batch_seconds: float = 0.0
    """Seconds of audio in a step for which the learning rates are meant: each step's are scaled by its real seconds over
    this. 0 leaves them alone."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    strategy: str = "auto"
    """auto (= ddp with several workers), ddp, ddp_find_unused (parts of the model rest in some steps) or fsdp."""
    compile: bool = False
    """torch.compile the direct children of the objective."""
    log_every: int = 50
    """Steps between rows of the log."""
    validate_every: int = 0
    """Steps between validations; 0 for one at the end."""
    best: str = ""
    """Name of the score whose best checkpoint is kept; empty takes the first score."""
    patience: int = 0
    """Validations in a row without a better score after which training ends; 0 never."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0 leaves it to the clock."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints; 0 leaves it to the steps. The clock decides when one is written, never what is learnt."""
    keep: int = 2
    """Newest checkpoints that stay, beside the best one."""
    progress: bool = True
    """Show a bar where standard error is a terminal."""
    tensorboard: bool = True
    """Write TensorBoard events beside the CSV files."""
    doctor: DoctorConfig = field(default_factory=DoctorConfig)
    """When to stop with a diagnosis."""

    def __post_init__(self) -> None:
        at_least("accumulate", self.accumulate, 1)
        within("ema_decay", self.ema_decay, 0, 1)
        at_least("keep", self.keep, 1)
        at_least("log_every", self.log_every, 1)
        one_of("precision", self.precision, ("32-true", "bf16-mixed", "auto"))
        one_of("accelerator", self.accelerator, ("auto", "cpu", "cuda", "mps"))
        one_of("strategy", self.strategy, ("auto", "ddp", "ddp_find_unused", "fsdp"))
        counts = ("validate_every", "patience", "checkpoint_every", "checkpoint_minutes")
        for name in ("clip_norm", "lr_batch_seconds", *counts):
            at_least(name, getattr(self, name), 0)


_LEARNT = ("accumulate", "clip_norm", "ema_decay", "ema_warmup", "precision", "seed", "lr_batch_seconds")


def learning_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields that change what is learnt; a folder that was trained with other ones is refused."""
    return {name: to_plain(getattr(config, name)) for name in _LEARNT}
