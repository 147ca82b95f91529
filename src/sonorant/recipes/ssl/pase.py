"""PASE+: many small tasks at once, on distorted speech. Ravanelli et al., 2020, arXiv:2001.09239.

Band-pass filters that are learnt, convolutions and a quasi-recurrent layer hear speech through rooms, noise and gaps; workers
say what the clean speech was: spectra, cepstra, pitch, the samples, and whether two stretches are of one utterance. Arms:
`clean` hears it undistorted, `no_<worker>` lacks one, `mfcc` is the cepstra alone. Where we differ: see `encoders.pase`; the
toy presets have narrow layers, and fewer and smaller workers.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from sonorant.audio.augment.chain import Chain
from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import load_checkpoint, save_checkpoint
from sonorant.core.config import to_plain
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.corpora.corpus import content_of
from sonorant.encoders import pase as encoders
from sonorant.encoders.pase import PaseConfig, pase_plus, pase_tiny
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.objectives import pase as objectives
from sonorant.objectives.pase import PaseObjectiveConfig, pase_distortions, pase_objective, pase_toy_objective
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="52",
    title="PASE+",
    paper="arXiv:2001.09239",
    family="ssl",
    headline="fewer phone and word errors than PASE, MFCC and filter banks on TIMIT, DIRHA and CHiME-5",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's, on 50 h of LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: PaseConfig = field(default_factory=pase_plus)
    """Section 2.2."""
    objective: PaseObjectiveConfig = field(default_factory=pase_objective)
    """The workers (section 2.3)."""
    strength: float = 1.0
    """Factor on the probabilities of distortions (table 1)."""
    cepstra: FrontConfig = field(default_factory=mfcc_front)
    """Frames of the arm mfcc."""


def paper() -> Config:
    """200 epochs of 50 h in stretches of two seconds, 32 a batch (section 3)."""
    training = PretrainConfig(
        steps=560_000,
        batches=BatchConfig(max_seconds=64),
        optim=OptimConfig(name="adam", lr=5e-4),
        schedule=ScheduleConfig(name="warmup_linear", warmup=0.0),
        loop=TrainConfig(precision="32-true"),
    )
    return Config(study=StudyConfig(training=training))


def toy() -> Config:
    """Some two minutes an arm on two cores, an hour of the built-in corpus."""
    study = toy_study(frame_rate=100, steps=300, lr=2e-3)
    return Config(
        study=replace(study, training=replace(study.training, batches=BatchConfig(max_seconds=15, memory_mb=500))),
        encoder=pase_tiny(num_filters=32, channels=(32, 48, 64, 128), recurrent_dim=96, dim=96),
        objective=pase_toy_objective(),
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    probe = replace(study.protocol.probe, noisy=True)
    return replace(
        base,
        study=replace(study, protocol=replace(study.protocol, probe=probe)),
        encoder=pase_tiny(num_filters=8, filter_size=51, channels=(8, 8, 16, 16), recurrent_dim=16, dim=16),
        objective=pase_toy_objective(hidden_dim=16, num_pairs=4, stretches=(1, 20)),
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="mfcc", why="frames tell phones apart better than cepstra"),
    Claim("phone_accuracy", of="main", above="log_mel", why="and than log-mel"),
    Claim("phone_accuracy", of="main", above="random", why="and than the untrained network"),
    Claim("phone_accuracy_noisy", of="main", above="mfcc", why="in rooms and noise too"),
    Claim("phone_accuracy_noisy", of="main", above="log_mel", why="and than log-mel there"),
    Claim("phone_accuracy_noisy", of="main", above="clean", why="having heard distorted speech helps there"),
    Claim("per", of="main", below="random", why="with few labels, fine-tuned beats the same network from scratch"),
    Claim("phone_accuracy", of="main", above="deaf", why="saying what noise was teaches nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → statistics of the workers' features → workers with and without distortions, or one less → probes."""
    study = Study(work, config.study, config.encoder)
    statistics = partial(_statistics, folder=_gathered(study, config))
    heard = {"distort": partial(distortions, strength=config.strength), "statistics": statistics}
    ablated = {
        f"no_{name}": replace(config.objective, regressors=tuple(n for n in config.objective.regressors if n != name))
        for name in config.objective.regressors
    } | {"no_pairs": replace(config.objective, stretches=())}
    arms = {"main": config.objective, **ablated, "deaf": config.objective}
    scores = study.arms(arms, always=["main"], finetuned=["main"], parts=heard)
    scores += study.arms({"clean": config.objective}, [], finetuned=[], parts={"statistics": statistics})
    if "mfcc" in work.arms:
        scores += study.judge("mfcc", study.spectrum(config.cepstra), finetune=False)
    return scores + study.references()


def distortions(strength: float) -> Chain:
    """What the encoder hears through, with coloured noise and simulated rooms."""
    return pase_distortions(strength=strength)


def _gathered(study: Study, config: Config) -> Path:
    """A stage: mean and variance of what the workers say, over ten minutes."""

    def make(folder: Path) -> None:
        objective = objectives.build(encoders.build(config.encoder), config.objective)
        objective.fit_targets(Batches(study.train, config.study.training.batches, train=False))
        save_checkpoint(folder / "workers", kind="pase", weights=objective.target_statistics(), config=config.objective)

    inputs = {"workers": to_plain(config.objective), "cuts": content_of(study.train)}
    return study.work.stage("workers", make, inputs) / "workers"


def _statistics(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder, kind="pase").weights
