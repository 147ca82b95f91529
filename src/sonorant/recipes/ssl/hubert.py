"""HuBERT: masked prediction of hidden units. Hsu et al., 2021, arXiv:2106.07447.

Round 1 clusters MFCC, and a network learns to say which cluster stands behind each frame that is hidden from it. Round 2
clusters a layer of that network, and a new network learns those units. Where we differ: the toy presets see stacked log-mel
frames at 25 a second in place of the waveform, whose convolutions would be most of a small network's work; clusters are
fitted over the whole corpus, streamed, where the paper takes a tenth of it.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import (
    PretrainConfig,
    agreement,
    cluster_stage,
    load_kmeans,
    pretrain_stage,
    statistics_stage,
    units_stage,
)
from sonorant.benchmark.protocol import (
    TINY_CORPUS,
    TOY_CORPUS,
    ProtocolConfig,
    from_waveforms,
    judge,
    network,
    random_encoder,
    references,
    swapped_units,
    tiny_protocol,
    toy_protocol,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.checkpoint import load_trained_encoder
from sonorant.encoders.spectral import FrontConfig, log_mel_front, mfcc_front
from sonorant.encoders.tera import TeraConfig, tera
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.masked_prediction import MaskedPrediction, MaskedPredictionConfig
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.units.store import UnitStore
from sonorant.units.tokenizer import UnitTokenizer

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
    training: PretrainConfig = field(default_factory=PretrainConfig)
    """Steps, batches, optimiser."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    corpus: str = ""
    """Used where --corpus does not say."""
    front: FrontConfig = field(default_factory=log_mel_front)
    """Of an encoder that does not take waveforms itself."""
    encoder: Wav2Vec2Config | TeraConfig = field(default_factory=hubert_base)
    """Table I."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters are the first targets (section III-B: 39 cepstra)."""
    objective: MaskedPredictionConfig = field(default_factory=MaskedPredictionConfig)
    """Masks and weights; its head is fitted to each round's clusters."""
    rounds: tuple[Round, ...] = (Round(), Round(num_clusters=500, layer=6))
    """One after another, each from random weights."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    """How encoders are judged."""


def paper() -> Config:
    """The base model: 250k steps, then 400k, of 32 × 87.5 s (section IV-C)."""
    optim = OptimConfig(name="adamw", lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    loop = TrainConfig(precision="bf16-mixed", lr_batch_seconds=2800)
    batches = BatchConfig(max_seconds=87.5)
    first = PretrainConfig(steps=250_000, batches=batches, optim=optim, loop=loop)
    second = replace(first, steps=400_000)
    return Config(rounds=(Round(training=first), Round(num_clusters=500, layer=6, training=second)))


def toy() -> Config:
    """Two rounds of two minutes each on two cores, an hour of the built-in corpus."""
    training = PretrainConfig(
        steps=1000,
        batches=BatchConfig(max_seconds=60, memory_mb=500),
        optim=OptimConfig(lr=1.5e-3),
        loop=TrainConfig(tensorboard=False),
    )
    return Config(
        corpus=TOY_CORPUS,
        front=log_mel_front(25),
        encoder=tera(dim=160, num_layers=4, num_heads=4, ffn_dim=480, dropout=0.05, norm_first=True),
        targets=mfcc_front(25),
        # Spans of ten frames of 40 ms would hide whole words.
        objective=MaskedPredictionConfig(mask=MaskConfig(prob=0.65, span=5), feature_weight=0.0),
        rounds=(Round(training=training), Round(layer=3, training=training)),
        protocol=toy_protocol(),
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    training = replace(base.rounds[0].training, steps=3, batches=BatchConfig(max_seconds=20))
    return replace(
        base,
        corpus=TINY_CORPUS,
        encoder=replace(base.encoder, dim=32, num_layers=2, num_heads=2, ffn_dim=32),
        rounds=(Round(num_clusters=8, training=training), Round(num_clusters=8, layer=1, training=training)),
        protocol=tiny_protocol(),
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="round2", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="round2", above="log_mel", why="better than the spectrum that it sees"),
    Claim(
        "phone_accuracy", of="round2", above="round1", why="units of the first round teach more than clusters of MFCC"
    ),
    Claim("per", of="round2", below="random", why="with few labels, fine-tuned beats the same network from scratch"),
    Claim("pnmi", of="round2_units", above="mfcc_units", why="a layer's clusters agree with phones more than MFCC's"),
    Claim("pnmi", of="round2_units", above="random_units", why="and more than those of the untrained network"),
    Claim(
        "phone_accuracy", of="swapped", above="random", must_fail=True, why="units of other utterances teach nothing"
    ),
]


def build(config: Any, front: Path, objective: MaskedPredictionConfig, num_units: int) -> MaskedPrediction:
    """The network with a head for so many units."""
    heads = (replace(objective.heads[0], num_units=num_units),)
    return MaskedPrediction(network(config, front), replace(objective, heads=heads))


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → clusters of MFCC → round 1 → clusters of a layer → round 2 → probes, fine-tuning, PNMI."""
    corpus = work.open_corpus(config.corpus)
    train = corpus.split("train")
    encoder = from_waveforms(config.encoder, config.front)
    front = statistics_stage(work, config.front, train)
    scores, units_of, source = list[Score](), dict[str, UnitStore](), statistics_stage(work, config.targets, train)

    def label(name: str, folder: Path, num_clusters: int, layer: int | None) -> UnitStore:
        module = load_trained_encoder(folder)
        clusters = cluster_stage(work, name, module, train, num_clusters, layer=layer)
        return units_stage(work, name, UnitTokenizer(module, load_kmeans(clusters), layer), train)

    def pretrain(name: str, each: Round, units: Any) -> Path:
        objective = partial(build, encoder, front, config.objective, each.num_clusters)
        settings = {"encoder": encoder, "objective": config.objective, "units": each.num_clusters, "arm": name}
        return pretrain_stage(work, name, objective, train, each.training, {"units": units}, settings)

    for number, each in enumerate(config.rounds, 1):
        name = f"round{number}"
        units_of[name] = label(name, source, each.num_clusters, each.layer or None)
        source = pretrain(name, each, units_of[name])
        scores += judge(work, name, source, corpus, config.protocol)
    last = config.rounds[-1]
    if "swapped" in work.arms:
        control = pretrain("swapped", last, swapped_units(work, units_of[f"round{len(config.rounds)}"]))
        scores += judge(work, "swapped", control, corpus, replace(config.protocol, finetune=None))
    scores += references(work, encoder, corpus, config.protocol, front)
    # The units of each source, with as many clusters: those of round n are made of round n − 1.
    untrained = random_encoder(work, encoder, front)
    scores += agreement(label("random_units", untrained, last.num_clusters, last.layer or None), train, "random_units")
    cepstra = statistics_stage(work, config.targets, train)
    scores += agreement(label("mfcc_units", cepstra, last.num_clusters, None), train, "mfcc_units")
    return scores + agreement(
        label("final_units", source, last.num_clusters, last.layer or None), train, "round2_units"
    )
