"""MR-HuBERT: masked prediction at two frame rates. Shi et al., 2023, arXiv:2310.02720.

The middle layers see half as many frames, and units are asked for there too, as well as of the last layer at the full rate.
The arm `hubert` has as many layers, all at the full rate; `high_only` has the hierarchy without the loss at the low rate.
Where we differ: the toy presets have few convolutions over the waveform, with wider strides, as those would be most of a
small network's work and hide what the hierarchy saves; their units are clusters of MFCC rather than of a HuBERT's layer.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import hubert_training, tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.encoders.mr_hubert import MrHubertConfig, mr_hubert_base
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.masked_prediction import MaskedPredictionConfig, mr_hubert_objective

CARD = Card(
    system="31",
    title="MR-HuBERT",
    paper="arXiv:2310.02720",
    family="ssl",
    headline="9 % to 13 % less computation than HuBERT, with fewer word errors on LibriSpeech and better on SUPERB",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: MrHubertConfig = field(default_factory=mr_hubert_base)
    """Three times four layers, at 20, 40 and 20 ms (table 1)."""
    objective: MaskedPredictionConfig = field(default_factory=mr_hubert_objective)
    """A head at each rate (section 3.2)."""
    hubert: Wav2Vec2Config = field(default_factory=hubert_base)
    """Network of the arm hubert, with as many layers."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters are the units."""
    num_units: int = 500
    """Clusters."""


def paper() -> Config:
    """400k updates, as HuBERT's second round (section 4.1)."""
    return Config(study=StudyConfig(training=hubert_training()))


def toy() -> Config:
    """Three or four minutes an arm on two cores, an hour of the built-in corpus."""
    size: dict[str, Any] = {
        "conv_layers": ((48, 10, 5), (48, 8, 4), (96, 4, 4), (160, 4, 4)), "dim": 160, "num_heads": 4, "ffn_dim": 480,
        "dropout": 0.05, "attention_dropout": 0.05, "layer_drop": 0.0, "norm_first": True, "position_kernel": 64,
        "position_groups": 8,
    }  # fmt: skip
    # No small gradient for the front end: it is as new as the rest, and the training short.
    objective = mr_hubert_objective(
        100, 4, mask=MaskConfig(prob=0.65, span=10), feature_weight=0.0, local_gradient=1.0, unmasked_weight=0.5
    )
    study = toy_study()
    probe = replace(study.protocol.probe, words=True)
    return Config(
        study=replace(study, protocol=replace(study.protocol, probe=probe)),
        encoder=mr_hubert_base(layers=(1, 3, 1), **size),
        objective=objective,
        hubert=hubert_base(num_layers=5, **size),
        targets=mfcc_front(50),
        num_units=100,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    size: dict[str, Any] = {
        "conv_layers": ((8, 10, 5), (8, 8, 4), (16, 4, 4), (16, 4, 4)), "dim": 32, "num_heads": 2, "ffn_dim": 32,
        "position_kernel": 8, "position_groups": 4,
    }  # fmt: skip
    high, low = (replace(head, num_units=8) for head in base.objective.heads)
    probe = replace(study.protocol.probe, words=True)
    return replace(
        base,
        study=replace(study, protocol=replace(study.protocol, probe=probe)),
        encoder=replace(base.encoder, layers=(1, 1, 1), **size),
        objective=replace(base.objective, heads=(high, replace(low, layer=2))),
        hubert=replace(base.hubert, num_layers=3, **size),
        num_units=8,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("saved", of="main", above=0.09, why="nine percent less work for a second of audio, or more"),
    Claim("per", of="main", below="hubert", why="no worse than HuBERT when it is fine-tuned"),
    Claim("word_accuracy", of="main", above="hubert", why="words, which are long, profit"),
    Claim("phone_accuracy", of="main", above="high_only", why="the loss at the low rate is part of it"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="swapped", why="units of other utterances teach nothing"),
    Claim("phone_accuracy", of="swapped", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → units → both networks, the hierarchy with one loss and two → probes, fine-tuning, cost."""
    study = Study(work, config.study, config.encoder)
    labels = {"units": study.units("targets", study.spectrum(config.targets), config.num_units)}
    high = replace(config.objective, heads=config.objective.heads[:1])
    main = study.pretrain("main", config.objective, labels)
    hubert = study.pretrain("hubert", high, labels, encoder=config.hubert)
    scores = study.judge("main", main) + study.judge("hubert", hubert)
    costs = {
        score.name: score for arm, each in (("main", main), ("hubert", hubert)) for score in study.encoding(arm, each)
    }
    saved = 1 - costs["main/gmacs"].value / costs["hubert/gmacs"].value
    scores += [*costs.values(), Score("main/saved", saved, "higher", num_items=1)]
    scores += study.speed("main", main) + study.speed("hubert", hubert)
    scores += study.arms({"high_only": high}, [], finetuned=[], labels=labels)
    if "swapped" in work.arms:
        control = {"units": study.swapped(labels["units"])}
        scores += study.arms({"swapped": config.objective}, [], finetuned=[], labels=control)
    return scores + study.references()
