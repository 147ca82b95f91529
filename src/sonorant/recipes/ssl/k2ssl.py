"""k2SSL: HuBERT's objective with a Zipformer, ScaledAdam and Eden. Yang et al., 2024, arXiv:2411.17100.

The arm `transformer` is HuBERT's, with Adam and a linear decay: the same units and batches, in the toy preset the same
log-mel frames, and so many steps that both train for about as long on one processor (`arm/train_seconds` says how long).
What bucketing saves is counted too: padding's share of batches of similar durations, and of batches in random order. Where
we differ: log-mel and the Zipformer's own front end in place of convolutions over the waveform; the toy preset's units are
clusters of MFCC rather than of a HuBERT's layer.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import hubert_training, tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.seed import derive
from sonorant.core.types import Score
from sonorant.data.planning import padding_share, plan_batches, plan_in_order
from sonorant.data.shards import random_order
from sonorant.encoders.fast_hubert import FastHubertConfig, fast_hubert_base
from sonorant.encoders.spectral import FrontConfig, mfcc_front
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.encoders.zipformer import ZipformerConfig, zipformer_base, zipformer_medium
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.masked_prediction import MaskedPredictionConfig, hubert_objective
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="85",
    title="k2SSL",
    paper="arXiv:2411.17100",
    family="ssl",
    headline="up to 34.8 % and 32.4 % fewer word errors than HuBERT base on dev-other and test-other, in 3.5 times less time",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front, judges; training of the Zipformer."""
    encoder: ZipformerConfig = field(default_factory=zipformer_base)
    """The size of HuBERT base, 50 frames a second."""
    objective: MaskedPredictionConfig = field(default_factory=lambda: hubert_objective(500))
    """HuBERT's, of both arms."""
    transformer: Wav2Vec2Config | FastHubertConfig = field(default_factory=hubert_base)
    """Network of the arm transformer."""
    transformer_training: PretrainConfig = field(default_factory=PretrainConfig)
    """Of the arm transformer: as long by the clock."""
    targets: FrontConfig = field(default_factory=mfcc_front)
    """Frames whose clusters are the units."""
    num_units: int = 500
    """Clusters."""


def _zipformer_training(training: PretrainConfig, steps: int, lr: float) -> PretrainConfig:
    """ScaledAdam, which clips by itself, and Eden."""
    return replace(
        training,
        steps=steps,
        optim=OptimConfig(name="scaled_adam", lr=lr),
        schedule=ScheduleConfig(name="eden", warmup=0.08),
        loop=replace(training.loop, clip_norm=0.0),
    )


def paper() -> Config:
    """HuBERT's 400k updates of the Transformer, and the Zipformer's 3.5 times fewer hours."""
    transformer = hubert_training()
    # Sizes of steps are relative to the weights, so they do not follow the size of the batch.
    zipformer = replace(transformer, loop=TrainConfig(precision="bf16-mixed"))
    study = StudyConfig(training=_zipformer_training(zipformer, 225_000, 0.045))
    return Config(study=study, transformer_training=transformer)


def toy() -> Config:
    """Two or three minutes an arm on two cores, an hour of the built-in corpus."""
    study = toy_study(frame_rate=100)
    sizes: dict[str, Any] = {
        "channels": (4, 8, 16), "num_blocks": (1,) * 6, "dims": (96, 128, 160, 192, 160, 128), "output_factor": 1,
        "ffn_dims": (192, 256, 320, 384, 320, 256), "num_heads": (4,) * 6, "kernel_sizes": (15, 15, 7, 7, 7, 15),
    }  # fmt: skip
    plain: dict[str, Any] = {
        "local_dim": 160, "dim": 160, "num_layers": 4, "num_heads": 4, "ffn_dim": 480, "dropout": 0.05, "layer_drop": 0.0,
        "norm_first": True, "position_kernel": 64, "position_groups": 8,
    }  # fmt: skip
    # A step of this Zipformer takes half as long again as one of the Transformer, measured on one core.
    steps = round(study.training.steps / 1.5)
    return Config(
        study=replace(study, training=_zipformer_training(study.training, steps, 0.03)),
        encoder=zipformer_medium(dropout=0.05, bypass_steps=200, **sizes),
        objective=hubert_objective(
            100, mask=MaskConfig(prob=0.65, span=10), feature_weight=0.0, local_gradient=1.0, unmasked_weight=0.5
        ),
        transformer=fast_hubert_base(strides=(2, 1), **plain),
        transformer_training=study.training,
        targets=mfcc_front(50),
        num_units=100,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    study = tiny_study(base.study)
    sizes: dict[str, Any] = {
        "factors": (1, 2), "num_blocks": (1, 1), "dims": (16, 24), "ffn_dims": (16, 16), "num_heads": (2, 2),
        "kernel_sizes": (7, 7), "query_dim": 8, "channels": (2, 4, 4),
    }  # fmt: skip
    narrow: dict[str, Any] = {"local_dim": 16, "dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
    heads = (replace(base.objective.heads[0], num_units=8),)
    return replace(
        base,
        study=study,
        encoder=replace(base.encoder, **sizes),
        objective=replace(base.objective, heads=heads),
        transformer=replace(base.transformer, **narrow),
        transformer_training=replace(base.transformer_training, steps=2, batches=study.training.batches),
        num_units=8,
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="transformer", why="no worse after as much time"),
    Claim("per", of="main", below="transformer", why="nor when it is fine-tuned"),
    Claim("gmacs", of="main", below="transformer", why="with less work for a second of audio"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("padding", of="bucketed", below=0.1, why="batches of similar durations are nine tenths audio, or more"),
    Claim("padding", of="bucketed", below="random_order", why="and more than those of items as they come"),
    Claim("phone_accuracy", of="main", above="swapped", why="units of other utterances teach nothing"),
    Claim("phone_accuracy", of="swapped", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def padding(study: Study) -> list[Score]:
    """`bucketed/padding` and `random_order/padding` of an epoch: padding's share of what a batch holds."""
    packing, seed = study.config.training.batches.packing(), derive(study.work.seed, "padding")
    durations = np.array([cut.duration for cut in study.train])
    load = packing.budget.load(durations)
    plans = {
        "bucketed": plan_batches(durations, load, num_buckets=packing.num_buckets, seed=seed),
        "random_order": plan_in_order(load, random_order(len(durations), seed)),
    }
    return [
        Score(f"{name}/padding", padding_share(plan, durations), "lower", num_items=len(plan))
        for name, plan in plans.items()
    ]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → units → both networks, for about as long → probes, fine-tuning, cost, padding."""
    study = Study(work, config.study, config.encoder)
    labels = {"units": study.units("targets", study.spectrum(config.targets), config.num_units)}
    main = study.pretrain("main", config.objective, labels)
    other = study.pretrain(
        "transformer", config.objective, labels, encoder=config.transformer, training=config.transformer_training
    )
    scores = padding(study)
    for arm, encoder in (("main", main), ("transformer", other)):
        scores += study.judge(arm, encoder) + study.training_seconds(arm, encoder) + study.encoding(arm, encoder)
    if "swapped" in work.arms:
        control = {"units": study.swapped(labels["units"])}
        scores += study.arms({"swapped": config.objective}, [], finetuned=[], labels=control)
    return scores + study.references()
