"""HuBERT: masked prediction of hidden units. Hsu et al., 2021, arXiv:2106.07447.

Round 1 clusters MFCC, and a network learns to say which cluster stands behind each frame that is hidden from it. Round 2
clusters a layer of that network, and a new network learns those units. Where we differ: the toy presets see stacked log-mel
frames at 25 a second in place of the waveform, whose convolutions would be most of a small network's work; clusters are
fitted over the whole corpus, streamed, where the paper takes a tenth of it.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import (
    TOY_MASK,
    hubert_training,
    learners_study,
    tiny_network,
    tiny_study,
    toy_network,
    toy_study,
)
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.config import at_least
from sonorant.core.types import Score
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.objectives.masked_prediction import MaskedPredictionConfig
from sonorant.units.store import UnitStore

CARD = Card(
    system="13",
    title="HuBERT",
    paper="arXiv:2106.07447",
    family="ssl",
    headline="X-Large: up to 19 % and 13 % fewer word errors than wav2vec 2.0 on dev-other and test-other",
)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of clusters and pre-training."""

    num_clusters: int = 100
    """K of k-means (section IV-B: 100 on MFCC, then 500)."""
    layer: int = 0
    """Of the round before, whose frames are clustered (section IV-B: 6 of 12); 0 for MFCC."""
    steps: int = 0
    """Updates; 0: as the study's training says."""

    def __post_init__(self) -> None:
        at_least("num_clusters", self.num_clusters, 2)
        at_least("layer", self.layer, 0)
        at_least("steps", self.steps, 0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: Wav2Vec2Config | ConformerConfig = field(default_factory=hubert_base)
    """Table I."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters are the first targets (section III-B: 39 cepstra)."""
    objective: MaskedPredictionConfig = field(default_factory=MaskedPredictionConfig)
    """Masks and weights; its head is fitted to each round's clusters."""
    rounds: tuple[Round, ...] = (Round(steps=250_000), Round(num_clusters=500, layer=6))
    """One after another, each from random weights (section IV-C: 250k updates of the first, 400k of the second)."""


def paper() -> Config:
    """The base model: 32 × 87.5 s a step (section IV-C)."""
    return Config(study=StudyConfig(training=hubert_training()))


def toy() -> Config:
    """Two rounds of some two minutes each on two cores, an hour of the built-in corpus."""
    return Config(
        study=toy_study(),
        encoder=toy_network(),
        targets=mfcc_front(25),
        # Spans of ten frames of 40 ms would hide whole words. Frames that are seen are asked for too (α of equation 2 is
        # 2/3): an hour of speech is little, and naming what one hears comes before guessing what one does not.
        objective=MaskedPredictionConfig(mask=TOY_MASK, feature_weight=0.0, unmasked_weight=0.5),
        rounds=(Round(), Round(layer=3)),
    )


def speechocean762() -> Config:
    """The toy's network on two hours of learners' English, and on what else --study.unlabelled names."""
    return replace(toy(), study=learners_study())


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    return replace(
        base,
        study=tiny_study(base.study),
        encoder=tiny_network(),
        rounds=(Round(num_clusters=8), Round(num_clusters=8, layer=1)),
    )


PRESETS = {"toy": toy, "speechocean762": speechocean762, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="round2", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="round2", above="log_mel", why="better than the spectrum that it sees"),
    Claim(
        "phone_accuracy", of="round2", above="round1", why="units of the first round teach more than clusters of MFCC"
    ),
    Claim("per", of="round2", below="random", why="with few labels, fine-tuned beats the same network from scratch"),
    Claim("pnmi", of="trained_units", above="mfcc_units", why="a layer's clusters agree with phones more than MFCC's"),
    Claim("pnmi", of="trained_units", above="random_units", why="and more than those of the untrained network"),
    Claim("phone_accuracy", of="round2", above="swapped", why="units of other utterances teach nothing"),
    Claim("phone_accuracy", of="swapped", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → clusters of MFCC → round 1 → clusters of a layer → round 2 → probes, fine-tuning, PNMI."""
    study = Study(work, config.study, config.encoder)
    scores, source = list[Score](), study.spectrum(config.targets)

    def pretrain(arm: str, each: Round, units: UnitStore) -> list[Score]:
        nonlocal source
        heads = (replace(config.objective.heads[0], num_units=each.num_clusters),)
        training = replace(config.study.training, steps=each.steps or config.study.training.steps)
        source = study.pretrain(arm, replace(config.objective, heads=heads), {"units": units}, training=training)
        return study.judge(arm, source)

    for number, each in enumerate(config.rounds, 1):
        units = study.units(f"round{number}", source, each.num_clusters, each.layer or None)
        scores += pretrain(f"round{number}", each, units)
    last, trained = config.rounds[-1], source
    if "swapped" in work.arms:
        scores += pretrain("swapped", last, study.swapped(units))
    scores += study.references()
    # As many clusters of the spectrum, of the untrained network and of the trained one.
    for arm, folder, layer in (
        ("mfcc_units", study.spectrum(config.targets), None),
        ("random_units", study.random(), last.layer or None),
        ("trained_units", trained, last.layer or None),
    ):
        scores += study.agreement(study.units(arm, folder, last.num_clusters, layer), arm)
    return scores
