"""DinoSR: self-distillation and online clustering. Liu et al., 2023, arXiv:2305.10005.

A teacher that averages the student's blocks hears the whole item; each of its top layers has a codebook that follows the
teacher's frames, and the student, from which frames are hidden, says the codes of all those layers.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import hubert_training, tiny_network, tiny_study, toy_dinosr, toy_network, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, dinosr_base
from sonorant.objectives.self_distillation import DinoSrConfig

CARD = Card(
    system="10",
    title="DinoSR",
    paper="arXiv:2305.10005",
    family="ssl",
    headline="fewer word errors than HuBERT and data2vec base with ten minutes to ten hours of LibriSpeech labels",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: Wav2Vec2Config | ConformerConfig = field(default_factory=dinosr_base)
    """wav2vec 2.0 base with positions from five convolutions."""
    objective: DinoSrConfig = field(default_factory=DinoSrConfig)
    """Masks, teacher, codebooks (section 3)."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters its units are compared with."""
    num_units: int = 100
    """Clusters of each source that is compared."""
    layer: int = 8
    """Whose frames are clustered."""


def paper() -> Config:
    """The base model: 400k updates of 63 minutes (section 4.1)."""
    training = hubert_training(batch_seconds=3800, batches=BatchConfig(max_seconds=237))
    training = replace(training, optim=replace(training.optim, name="adam"))
    return Config(study=StudyConfig(training=training))


def toy() -> Config:
    """Two minutes on two cores, an hour of the built-in corpus."""
    return Config(study=toy_study(), encoder=toy_network(), objective=toy_dinosr(), targets=mfcc_front(25), layer=3)


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    objective = replace(base.objective, top_layers=2, codebook_size=8)
    return replace(
        base, study=tiny_study(base.study), encoder=tiny_network(), objective=objective, num_units=8, layer=1
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="log_mel", why="better than the spectrum that it sees"),
    Claim("per", of="main", below="random", why="with few labels, fine-tuned beats the same network from scratch"),
    Claim("pnmi", of="main_units", above="mfcc_units", why="clusters of a layer agree with phones more than MFCC's"),
    Claim("pnmi", of="main_units", above="random_units", why="and more than those of the untrained network"),
    Claim("phone_accuracy", of="main", above="deaf", why="clusters of noise teach nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → distilled codes → probes, fine-tuning, agreement of units with phones."""
    study = Study(work, config.study, config.encoder)
    main = study.pretrain("main", config.objective)
    scores = study.judge("main", main) + study.arms({"deaf": config.objective}, always=[]) + study.references()
    for arm, source, layer in (
        ("main_units", main, config.layer),
        ("random_units", study.random(), config.layer),
        ("mfcc_units", study.spectrum(config.targets), None),
    ):
        scores += study.agreement(study.units(arm, source, config.num_units, layer), arm)
    return scores
