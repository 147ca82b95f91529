"""wav2vec 2.0: contrasts over quantised targets. Baevski et al., 2020, arXiv:2006.11477.

Frames are hidden from the Transformer, which must tell the quantised version of each hidden frame from those of other hidden
frames of the same utterance; a penalty keeps all codes in use. Where we differ: the toy presets contrast stacked log-mel
frames in place of learnt convolutions over the waveform.
"""

from dataclasses import dataclass, field, replace

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.settings import (
    hubert_training,
    learners_study,
    tiny_network,
    tiny_study,
    toy_network,
    toy_study,
    toy_wav2vec2,
)
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.encoders.conformer import ConformerConfig
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, wav2vec2_base
from sonorant.objectives import contrastive

CARD = Card(
    system="67",
    title="wav2vec 2.0",
    paper="arXiv:2006.11477",
    family="ssl",
    headline="LibriSpeech test-clean/other 1.8/3.3 % WER with 960 h of labels, 4.8/8.2 % with ten minutes",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the base model on LibriSpeech."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, training, judges."""
    encoder: Wav2Vec2Config | ConformerConfig = field(default_factory=wav2vec2_base)
    """Section 4.2."""
    objective: contrastive.Wav2Vec2Config = field(default_factory=contrastive.wav2vec2_objective)
    """Masks, codes, negatives (sections 3 and 4.2)."""


def paper() -> Config:
    """The base model: 400k steps of 1.6 h (section 4.2)."""
    return Config(study=StudyConfig(training=hubert_training(batch_seconds=5760)))


def toy() -> Config:
    """Two minutes on two cores, an hour of the built-in corpus."""
    return Config(study=toy_study(), encoder=toy_network(), objective=toy_wav2vec2())


def speechocean762() -> Config:
    """The toy's network on two hours of learners' English, and on what else --study.unlabelled names."""
    return replace(toy(), study=learners_study())


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    objective = replace(base.objective, codebook_size=8, code_dim=16, dim=16, num_negatives=5)
    return replace(base, study=tiny_study(base.study), encoder=tiny_network(), objective=objective)


PRESETS = {"toy": toy, "speechocean762": speechocean762, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("phone_accuracy", of="main", above="log_mel", why="better than the spectrum that it sees"),
    Claim("per", of="main", below="random", why="with few labels, fine-tuned beats the same network from scratch"),
    Claim("phone_accuracy", of="main", above="deaf", why="contrasts within noise teach nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → masked contrasts → probes and fine-tuning, beside the untrained network and the spectrum."""
    study = Study(work, config.study, config.encoder)
    return study.arms({"main": config.objective, "deaf": config.objective}, always=["main"]) + study.references()
