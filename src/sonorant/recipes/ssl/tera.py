"""TERA: restoring altered frames. Liu, Li and Lee, 2020, arXiv:2007.06028.

Spans of frames and a block of bands are zeroed, magnitudes disturbed, and a Transformer says what was there. The arm `time`
alters along time only; `mockingjay` (Liu et al., 2019, arXiv:1910.12638) is what came before. Where we differ: log-mel in
place of fMLLR, and the toy presets see frames stacked to 25 a second.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import tiny_network, tiny_study, toy_network, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.tera import TeraConfig, tera
from sonorant.nn.alteration import Alteration
from sonorant.objectives.reconstruction import ReconstructionConfig, mockingjay_objective, tera_objective
from sonorant.train.optim import OptimConfig

CARD = Card(
    system="112",
    title="TERA",
    paper="arXiv:2007.06028",
    family="ssl",
    headline="ahead of CPC, APC and Mockingjay in phone and speaker classification from frozen frames",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front, training, judges."""
    encoder: TeraConfig | ConformerConfig = field(default_factory=tera)
    """Three layers of 768 (section III-A)."""
    objective: ReconstructionConfig = field(default_factory=tera_objective)
    """What is altered, and how much (section II)."""


def paper() -> Config:
    """960 h: 1M steps of 12 utterances (section III-B)."""
    training = PretrainConfig(
        steps=1_000_000,
        batches=BatchConfig(max_seconds=150),
        optim=OptimConfig(name="adamw", lr=2e-4, weight_decay=0.01),
    )
    return Config(study=StudyConfig(training=training))


def toy() -> Config:
    """Two minutes an arm on two cores, an hour of the built-in corpus."""
    # Spans of two frames of 40 ms, where the paper hides seven of 10 ms; log-mel bands stand side by side in a frame.
    objective = tera_objective(alter=Alteration(time_share=0.3, span=2))
    return Config(study=toy_study(), encoder=toy_network(), objective=objective)


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    return replace(base, study=tiny_study(base.study), encoder=tiny_network())


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="log_mel", why="better than the spectrum that it sees"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("speaker_accuracy", of="main", above="time", why="altering bands and magnitudes helps to tell voices"),
    Claim("phone_accuracy", of="main", above="mockingjay", why="three axes of alteration beat one"),
    Claim("phone_accuracy", of="main", above="deaf", why="restoring noise teaches nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → restoration of frames altered in one way or three → probes and fine-tuning."""
    study = Study(work, config.study, config.encoder)
    alter = config.objective.alter or Alteration()
    arms = {
        "main": config.objective,
        "time": replace(config.objective, alter=replace(alter, band_share=0.0, noise_prob=0.0)),
        "mockingjay": mockingjay_objective(span=alter.span, head_layers=config.objective.head_layers),
        "deaf": config.objective,
    }
    return study.arms(arms, always=["main"], finetuned=["main"]) + study.references()
