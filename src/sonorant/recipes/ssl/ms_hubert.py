"""MS-HuBERT: two views that swap, and units of several sizes. Yadav, Siriwardena and Mallidi, 2024, arXiv:2406.05661.

Each item passes as a masked and as a clean view at once; after some blocks their hidden frames change places, so that the
network sees whole contexts in training too. Layers are asked for ever coarser clusterings. The arm `multi` has the
clusterings without the swap, `hubert` neither. Where we differ: the paper does not say which view bears the loss; heads are
asked at the hidden frames of both.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import TOY_MASK, hubert_training, tiny_network, tiny_study, toy_network, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.objectives.masked_prediction import MaskedPredictionConfig, hubert_objective, ms_hubert_objective
from sonorant.units.store import UnitStore

CARD = Card(
    system="119",
    title="MS-HuBERT",
    paper="arXiv:2406.05661",
    family="ssl",
    headline="about 5 % fewer word errors than HuBERT base on LibriSpeech, on average over sizes of labelled sets",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: Wav2Vec2Config | ConformerConfig = field(default_factory=hubert_base)
    """HuBERT base."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters teach the first round."""
    first_units: int = 100
    """Clusters of the first round, plain HuBERT's."""
    layer: int = 9
    """Of the first round, whose clusters teach the arms."""
    objective: MaskedPredictionConfig = field(default_factory=ms_hubert_objective)
    """Heads, each with a clustering of its own size, and the swaps."""


def paper() -> Config:
    """400k updates, as HuBERT's second round."""
    return Config(study=StudyConfig(training=hubert_training()))


def toy() -> Config:
    """Two to four minutes an arm on two cores, an hour of the built-in corpus."""
    objective = ms_hubert_objective(
        num_units=(100, 50, 25),
        layers=(4, 3, 2),
        swap=(1, 2, 3),
        mask=TOY_MASK,
        unmasked_weight=0.5,
        feature_weight=0.0,
    )
    return Config(study=toy_study(), encoder=toy_network(), targets=mfcc_front(25), layer=3, objective=objective)


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    objective = ms_hubert_objective(num_units=(8, 4), layers=(2, 1), swap=(1,), feature_weight=0.0)
    return replace(
        base, study=tiny_study(base.study), encoder=tiny_network(), first_units=8, layer=1, objective=objective
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("per", of="multi", below="hubert", why="clusterings of several sizes on several layers help"),
    Claim("per", of="main", below="multi", why="and so do views that swap"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="swapped", why="units of other utterances teach nothing"),
    Claim("phone_accuracy", of="swapped", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → HuBERT's first round → clusterings of a layer → HuBERT, with several, with swaps → probes, fine-tuning."""
    study = Study(work, config.study, config.encoder)
    plain = replace(config.objective, heads=hubert_objective(config.first_units).heads, swap=())
    units = study.units("first", study.spectrum(config.targets), config.first_units)
    first: Path = study.pretrain("first", plain, {"units": units})
    heads = config.objective.heads
    labels: dict[str, UnitStore] = {
        head.stream: study.units(head.stream, first, head.num_units, config.layer) for head in heads
    }
    fine = {heads[0].stream: labels[heads[0].stream]}
    multi = replace(config.objective, swap=())
    hubert = replace(multi, heads=(replace(heads[0], layer=-1),))
    scores = study.arms({"main": config.objective}, ["main"], labels=labels)
    scores += study.arms({"multi": multi}, [], labels=labels) + study.arms({"hubert": hubert}, [], labels=fine)
    if "swapped" in work.arms:
        control = {heads[0].stream: study.swapped(fine[heads[0].stream])}
        scores += study.arms({"swapped": hubert}, [], finetuned=[], labels=control)
    return scores + study.references()
