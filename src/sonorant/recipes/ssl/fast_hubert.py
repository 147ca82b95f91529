"""Fast-HuBERT: HuBERT's masked prediction at a fraction of its cost. Yang et al., 2023, arXiv:2309.13860.

Log-mel and two strided convolutions in place of the convolutions over the waveform, frames of 40 ms, a linear layer in place
of cosines with codewords, and a second loss on a middle layer. Arms: `hubert`, the same Transformer on the waveform at 50
frames a second; `cosine` and `last_only`, each with one of the tricks undone. Where we differ: the units are clusters of a
HuBERT layer, or of MFCC in the toy presets, rather than MonoBERT's.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import TOY_MASK, hubert_training, tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.encoders.fast_hubert import FastHubertConfig, fast_hubert_base
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.masked_prediction import MaskedPredictionConfig, fast_hubert_objective, hubert_objective

CARD = Card(
    system="47",
    title="Fast-HuBERT",
    paper="arXiv:2309.13860",
    family="ssl",
    headline="HuBERT base in 1.1 days on eight V100, 5.2 times faster, without loss on SUPERB",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front, training, judges."""
    encoder: FastHubertConfig = field(default_factory=fast_hubert_base)
    """Section 3.1."""
    objective: MaskedPredictionConfig = field(default_factory=fast_hubert_objective)
    """Linear heads on layers 4 and 12 (section 3.3)."""
    waveform: Wav2Vec2Config = field(default_factory=hubert_base)
    """Network of the arm hubert, with as many layers."""
    hubert: MaskedPredictionConfig = field(default_factory=hubert_objective)
    """Its objective."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters are the units."""
    num_units: int = 500
    """Clusters."""


def paper() -> Config:
    """400k updates of HuBERT's batches (section 4.1)."""
    return Config(study=StudyConfig(training=hubert_training()))


def toy() -> Config:
    """Four minutes on two cores, most of them the waveform network's; an hour of the built-in corpus."""
    size = {"dim": 160, "num_layers": 4, "num_heads": 4, "ffn_dim": 480, "dropout": 0.05, "norm_first": True}
    still = {"layer_drop": 0.0, "position_groups": 8}
    convs = ((128, 10, 5), *[(128, 3, 2)] * 4, *[(128, 2, 2)] * 2)
    heads = fast_hubert_objective(100, layers=(-1, 2), label_rate=50.0).heads
    return Config(
        study=toy_study(frame_rate=100, steps=800),
        encoder=fast_hubert_base(local_dim=160, position_kernel=32, **size, **still),
        objective=MaskedPredictionConfig(
            mask=TOY_MASK, heads=heads, feature_weight=0.0, local_gradient=1.0, unmasked_weight=0.5
        ),
        waveform=hubert_base(conv_layers=convs, attention_dropout=0.05, position_kernel=64, **size, **still),
        # No small gradient for the front end: it is as new as the rest, and the training short.
        hubert=hubert_objective(
            100, 50.0, mask=MaskConfig(prob=0.65, span=10), feature_weight=0.0, local_gradient=1.0, unmasked_weight=0.5
        ),
        targets=mfcc_front(50),
        num_units=100,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    size: dict[str, Any] = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
    size |= {"position_kernel": 8, "position_groups": 4}
    heads = tuple(replace(head, num_units=8, layer=min(head.layer, 1)) for head in base.objective.heads)
    return replace(
        base,
        study=tiny_study(base.study),
        encoder=replace(base.encoder, local_dim=16, **size),
        objective=replace(base.objective, heads=heads),
        waveform=replace(base.waveform, conv_layers=((16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2), **size),
        hubert=replace(base.hubert, heads=(replace(base.hubert.heads[0], num_units=8),)),
        num_units=8,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("cheaper", of="main", above=3.0, why="three times the audio a second of the waveform network's, and more"),
    Claim("phone_accuracy", of="main", above="hubert", why="no worse with as many steps"),
    Claim("phone_accuracy", of="main", above="last_only", why="a second loss on a middle layer helps"),
    Claim("phone_accuracy", of="main", above="cosine", why="a linear layer does as well as cosines"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="swapped", why="units of other utterances teach nothing"),
    Claim("phone_accuracy", of="swapped", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → units → Fast-HuBERT and what it is made of, beside HuBERT on the waveform → probes, speed."""
    study = Study(work, config.study, config.encoder)
    labels = {"units": study.units("targets", study.spectrum(config.targets), config.num_units)}
    heads = config.objective.heads
    cosine = tuple(replace(head, kind="cosine", temperature=0.1) for head in heads)
    main = study.pretrain("main", config.objective, labels)
    waveform = study.pretrain("hubert", config.hubert, labels, encoder=config.waveform)
    rates = [*study.speed("main", main), *study.speed("hubert", waveform)]
    ratio = rates[0].value / rates[1].value
    scores = [*rates, Score("main/cheaper", ratio, "higher", num_items=rates[0].num_items)]
    scores += study.judge("main", main) + study.judge("hubert", waveform, finetune=False)
    undone = {
        "cosine": replace(config.objective, heads=cosine),
        "last_only": replace(config.objective, heads=heads[:1]),
    }
    scores += study.arms(undone, [], finetuned=[], labels=labels)
    if "swapped" in work.arms:
        control = {"units": study.swapped(labels["units"])}
        scores += study.arms({"swapped": config.objective}, [], finetuned=[], labels=control)
    return scores + study.references()
