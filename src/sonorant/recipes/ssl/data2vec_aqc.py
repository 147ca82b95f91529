"""data2vec-aqc: data2vec with augmented views, a quantiser and clustered negatives. Lodagala et al., 2022, arXiv:2211.01246.

The student hears a noisy copy, partly hidden, and regresses what a slowly moving teacher makes of the clean whole; contrasts
between quantised frames of both views are added, in which negatives from the same cluster count less. data2vec (Baevski et
al., 2022, arXiv:2202.03555) is the arm without all that. Where we differ: a layer's target is what comes out of the block.
"""

from dataclasses import dataclass, field, replace
from functools import partial

from sonorant.audio.augment.catalogue import build_augmentation
from sonorant.audio.augment.chain import Chain
from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import tiny_network, tiny_study, toy_data2vec, toy_network, toy_study, toy_wav2vec2
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, data2vec_audio_base
from sonorant.objectives.data2vec_aqc import Data2VecAqcConfig
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig

CARD = Card(
    system="63",
    title="data2vec-aqc",
    paper="arXiv:2211.01246",
    family="ssl",
    headline="14.1 % and 20.9 % fewer word errors than data2vec on LibriSpeech test-clean and test-other",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: Wav2Vec2Config | ConformerConfig = field(default_factory=data2vec_audio_base)
    """data2vec's base network."""
    objective: Data2VecAqcConfig = field(default_factory=Data2VecAqcConfig)
    """Regression, contrasts, clusters."""
    noise_db: tuple[float, float] = (5.0, 20.0)
    """Speech over noise in what the student hears, in dB."""
    noise: float = 0.8
    """Share of items with noise."""
    reverb: float = 0.5
    """Share of items in a room."""


def paper() -> Config:
    """The base model, 360 h: 400k updates (section 4)."""
    training = PretrainConfig(
        steps=400_000,
        batches=BatchConfig(max_seconds=87.5),
        optim=OptimConfig(name="adam", lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01),
        loop=TrainConfig(precision="bf16-mixed"),
    )
    return Config(study=StudyConfig(training=training))


def toy() -> Config:
    """Two or three minutes an arm on two cores, an hour of the built-in corpus."""
    objective = Data2VecAqcConfig(regression=toy_data2vec(), contrast=toy_wav2vec2(), cluster_factor=8)
    return Config(study=toy_study(), encoder=toy_network(), objective=objective)


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    contrast = replace(base.objective.contrast, codebook_size=8, code_dim=16, dim=16, num_negatives=5)
    regression = replace(base.objective.regression, top_layers=2)
    objective = replace(base.objective, contrast=contrast, regression=regression)
    return replace(base, study=tiny_study(base.study), encoder=tiny_network(), objective=objective)


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("per", of="main", below="data2vec", why="augmentation, codes and clusters help where labels are few"),
    Claim("per", of="data2vec", below="random", why="data2vec beats the same network from scratch"),
    Claim("phone_accuracy_noisy", of="main", above="data2vec", why="above all in noise"),
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="deaf", why="distilling noise teaches nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def distortions(noise: float, reverb: float, low_db: float, high_db: float) -> Chain:
    """What the student hears through."""
    noisy = build_augmentation("noise", prob=noise, snr_db=(low_db, high_db))
    return Chain([build_augmentation("reverb", prob=reverb), noisy])


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → distillation with and without augmented views, codes and clusters → probes and fine-tuning."""
    study = Study(work, config.study, config.encoder)
    low, high = config.noise_db
    augment = partial(distortions, noise=config.noise, reverb=config.reverb, low_db=low, high_db=high)
    scores = study.arms({"main": config.objective}, ["main"], parts={"augment": augment})
    scores += study.arms({"data2vec": config.objective.regression, "deaf": config.objective.regression}, [])
    return scores + study.references()
