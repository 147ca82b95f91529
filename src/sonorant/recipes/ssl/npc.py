"""NPC: each frame from its surroundings, all at once. Liu, Chung and Glass, 2020, arXiv:2011.00406.

Convolutions that are blind to a frame and its neighbours say what it was, through a quantiser. APC (Chung et al., 2019,
arXiv:1904.03240) predicts frames to come with a recurrence, VQ-APC (arXiv:2005.08392) through a quantiser.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import learners_study, tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.apc import ApcConfig, apc
from sonorant.encoders.npc import NpcConfig, npc
from sonorant.objectives.reconstruction import (
    ReconstructionConfig,
    apc_objective,
    npc_objective,
    vq_apc_objective,
)
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="26",
    title="NPC",
    paper="arXiv:2011.00406",
    family="ssl",
    headline="27.2 % of the phones of WSJ's frames wrong, from frozen frames: as good as APC, without its recurrence",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's, on LibriSpeech's 360 h."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front, training, judges."""
    encoder: NpcConfig = field(default_factory=npc)
    """Four blocks of 512, masks of five frames (section 3.1)."""
    objective: ReconstructionConfig = field(default_factory=npc_objective)
    """Four groups of 64 codes (section 3.1)."""
    recurrent: ApcConfig = field(default_factory=apc)
    """Network of the arms apc and vq_apc."""
    apc: ReconstructionConfig = field(default_factory=apc_objective)
    """Of the arm apc: frames ahead."""
    vq_apc: ReconstructionConfig = field(default_factory=vq_apc_objective)
    """Of the arm vq_apc."""


def paper() -> Config:
    """100 epochs of batches of 32 utterances, Adam at 1e-3 (section 3.1)."""
    training = PretrainConfig(
        steps=320_000,
        batches=BatchConfig(max_seconds=400),
        optim=OptimConfig(name="adam", lr=1e-3),
        schedule=ScheduleConfig(name="constant", warmup=0.0),
    )
    return Config(study=StudyConfig(training=training))


def toy() -> Config:
    """Two minutes an arm on two cores, an hour of the built-in corpus; 50 frames a second, as 20 ms are hidden on a side."""
    study = toy_study(frame_rate=50, steps=800)
    return Config(
        study=study,
        encoder=npc(dim=160, num_blocks=3, kernel_size=11, mask_size=3),
        objective=npc_objective(num_codes=64, num_groups=4),
        recurrent=apc(dim=160, num_layers=3),
        apc=apc_objective(shift=2),
        vq_apc=vq_apc_objective(shift=2, num_codes=128),
    )


def speechocean762() -> Config:
    """The toy's network on two hours of learners' English, and on what else --study.unlabelled names."""
    return replace(toy(), study=learners_study(frame_rate=50))


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    return replace(
        base,
        study=tiny_study(base.study),
        encoder=npc(dim=32, num_blocks=2, kernel_size=9, mask_size=3),
        objective=npc_objective(num_codes=8, num_groups=2),
        recurrent=apc(dim=32, num_layers=2),
        vq_apc=vq_apc_objective(shift=2, num_codes=8),
    )


PRESETS = {"toy": toy, "speechocean762": speechocean762, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="log_mel", why="better than the spectrum that it sees"),
    Claim("phone_accuracy", of="main", above="random", why="better than the untrained network"),
    Claim("phone_accuracy", of="apc", above="log_mel", why="so is APC"),
    Claim("phone_accuracy", of="vq_apc", above="log_mel", why="and VQ-APC"),
    Claim("phone_accuracy", of="main", above="deaf", why="noise has no frame that others tell of"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → NPC, APC, VQ-APC → probes and fine-tuning."""
    study = Study(work, config.study, config.encoder)
    scores = study.arms({"main": config.objective, "deaf": config.objective}, always=["main"])
    recurrent = {"apc": config.apc, "vq_apc": config.vq_apc}
    return scores + study.arms(recurrent, always=[], encoder=config.recurrent) + study.references()
