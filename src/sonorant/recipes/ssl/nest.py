"""NEST: a Fast Conformer that names a random projection's codes of clean speech under noise. Huang et al., 2024,
arXiv:2408.13106.

Spans of log-mel frames are hidden; where most of the eight that become one are, the code of the clean frames is asked for
(BEST-RQ, Chiu et al., 2022, arXiv:2202.01855), while noise or another talker lies over half of the items. The arm
`no_mixing` hears clean audio. `hubert` is an untrained waveform network with as many layers, for its cost alone. Where we
differ: noise lies over a whole item, where the paper covers half of it; targets are normalised by each item too; and there
is no fine-tuning, as phones are more than the 12.5 frames a second that CTC would spread them over. The toy preset's spans
and codes were changed once after its scores had been seen, so that it is proved with other seeds: `--seed 10`.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from sonorant.audio.augment.chain import OneOf
from sonorant.audio.augment.mix import Mix
from sonorant.audio.augment.noise import Noise
from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.protocol import ProtocolConfig, toy_protocol
from sonorant.benchmark.settings import tiny_study, toy_study
from sonorant.benchmark.study import Study, StudyConfig
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.checkpoint import load_trained_encoder
from sonorant.encoders.conformer import ConformerConfig, fastconformer_medium, nest_large
from sonorant.encoders.wav2vec2 import Wav2Vec2Config, hubert_base
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.random_projection import BestRqConfig, build, nest_objective
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig
from sonorant.units.tokenizer import streamed

CARD = Card(
    system="48",
    title="NEST",
    paper="arXiv:2408.13106",
    family="ssl",
    headline="at 80 ms a frame ahead of larger models of 20 ms on several tasks of SUPERB",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the large model's."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Corpus, front, training, judges."""
    encoder: ConformerConfig = field(default_factory=nest_large)
    """17 blocks of 512 behind ×8 (section 3.1)."""
    objective: BestRqConfig = field(default_factory=nest_objective)
    """8192 codes of 16 numbers, spans of 400 ms (sections 3.2 and 3.3)."""
    mixed: float = 0.5
    """Share of items over which noise or another talker lies, half of them each (section 3.4)."""
    noise_db: tuple[float, float] = (-5.0, 20.0)
    """Speech over noise, in dB."""
    speech_db: tuple[float, float] = (-5.0, 5.0)
    """Speech over the other talker, in dB."""
    waveform: Wav2Vec2Config = field(default_factory=hubert_base)
    """Whose cost is compared."""


def paper() -> Config:
    """80k steps of 2048 utterances on 100k h (section 4.1); rates of the authors' configuration."""
    training = PretrainConfig(
        steps=80_000,
        batches=BatchConfig(max_seconds=400),
        optim=OptimConfig(name="adamw", lr=1.4e-3, betas=(0.9, 0.98), weight_decay=1e-3),
        schedule=ScheduleConfig(name="noam", warmup=0.3125),
        loop=TrainConfig(precision="bf16-mixed", lr_batch_seconds=25_000),
    )
    return Config(study=StudyConfig(training=training, protocol=ProtocolConfig(finetune=None)))


def toy() -> Config:
    """Two minutes an arm on two cores, an hour of the built-in corpus; 128 codes for its 45 000 frames."""
    size: dict[str, Any] = {"dim": 160, "num_layers": 4, "num_heads": 4, "ffn_dim": 480, "dropout": 0.05}
    return Config(
        study=toy_study(frame_rate=100, lr=1.5e-3, protocol=toy_protocol(finetune=None)),
        encoder=fastconformer_medium(channels=32, **size),
        # Spans of 400 ms and 512 codes are not learnt from in so few steps: the loss stays where the codes' frequencies
        # alone would bring it, and the upper layers forget what they were given.
        objective=nest_objective(
            codebook_size=128, mask=MaskConfig(prob=0.025, span=16, style="bernoulli", min_masks=1)
        ),
        waveform=hubert_base(conv_layers=((128, 10, 5), *[(128, 3, 2)] * 4, *[(128, 2, 2)] * 2), **size),
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    size: dict[str, Any] = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
    study = tiny_study(base.study)
    probe = replace(study.protocol.probe, speakers=True, noisy=True, speaker_utterances=2)
    return replace(
        base,
        study=replace(study, protocol=replace(study.protocol, probe=probe)),
        encoder=replace(base.encoder, channels=8, **size),
        objective=replace(base.objective, codebook_size=16),
        waveform=replace(base.waveform, conv_layers=((16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2), **size),
    )


PRESETS = {"toy": toy, "tiny": tiny, "paper": paper}

CLAIMS = [
    Claim("phone_accuracy", of="main", above="random", why="frames of the trained network tell phones apart"),
    Claim("speaker_accuracy", of="main", above="random", why="and voices"),
    Claim("phone_accuracy_noisy", of="main", above="no_mixing", why="what was heard under noise is found in noise"),
    Claim("speaker_accuracy_noisy", of="main", above="no_mixing", why="and so are voices"),
    Claim("frames", of="main", above=0.1249, why="of eight frames…"),
    Claim("frames", of="main", below=0.1251, why="…one is left, exactly"),
    Claim("encode_rate", of="main", above="hubert", why="so that it is faster than the network on the waveform"),
    Claim("code_usage", of="main", above=0.5, why="most of the random codes occur"),
    Claim("phone_accuracy", of="main", above="deaf", why="codes of noise teach nothing"),
    Claim("phone_accuracy", of="deaf", above="log_mel", must_fail=True, why="…not even to beat the spectrum"),
]


def mixing(mixed: float, noise_db: tuple[float, float], speech_db: tuple[float, float]) -> OneOf:
    """Noise, or another talker over half of an item."""
    return OneOf([Noise(snr_db=noise_db), Mix(snr_db=speech_db, share=(0.5, 0.5))], prob=mixed)


def thinning(study: Study, objective: BestRqConfig) -> list[Score]:
    """`main/frames`: frames that come out for one that goes in; `main/code_usage`: share of the codes that occur."""
    module = build(load_trained_encoder(study.random()), objective)
    encoder = module.encoder
    samples = next(n for n in range(160_000, 170_000) if encoder.front.output_lengths(n) == 1000)
    share = encoder.output_lengths(samples) / 1000
    used, seen = torch.zeros(objective.num_codebooks, objective.codebook_size, dtype=torch.bool), 0
    for _, codes in streamed(study.train, BatchConfig(max_seconds=60), module.codes):
        for item, count in enumerate(codes.lengths.tolist()):
            used.scatter_(1, codes.ids[item, :, :count], True)
            seen += count
    return [
        Score("main/frames", share, "lower", num_items=1),
        Score("main/code_usage", float(used.float().mean()), "higher", num_items=seen),
    ]


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → codes of hidden frames, under noise and talkers or not → probes, fine-tuning, cost."""
    study = Study(work, config.study, config.encoder)
    mix = partial(mixing, mixed=config.mixed, noise_db=config.noise_db, speech_db=config.speech_db)
    scores = study.arms({"main": config.objective, "deaf": config.objective}, always=["main"], parts={"mix": mix})
    scores += study.arms({"no_mixing": config.objective}, always=[])
    scores += study.encoding("main", study.random()) + study.encoding("hubert", study.random(config.waveform))
    return scores + thinning(study, config.objective) + study.references()
