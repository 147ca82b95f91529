"""Settings that the recipes of self-supervised systems share: HuBERT's published training, and what fits a laptop.

Whatever a paper does not say, and whatever has to shrink to train within minutes, is here once for all recipes, so that their
figures can be laid side by side.
"""

from dataclasses import replace
from typing import Any

from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.probe import ProbeConfig
from sonorant.benchmark.protocol import TINY_CORPUS, TOY_CORPUS, ProtocolConfig, tiny_protocol, toy_protocol
from sonorant.benchmark.study import StudyConfig
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig, conformer_small
from sonorant.encoders.cpc import Wav2VecConfig, vq_wav2vec
from sonorant.encoders.spectral import log_mel_front
from sonorant.encoders.tera import TeraConfig, tera
from sonorant.nn.masking import MaskConfig
from sonorant.objectives.contrastive import Wav2Vec2Config, wav2vec2_objective
from sonorant.objectives.future import FutureConfig, vq_wav2vec_objective
from sonorant.objectives.self_distillation import Data2VecConfig, DinoSrConfig
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig

__all__ = [
    "TOY_MASK", "hubert_training", "learners_study", "tiny_network", "tiny_study", "tiny_transformer", "toy_data2vec",
    "toy_dinosr", "toy_network", "toy_study", "toy_transformer", "toy_vq_wav2vec", "toy_wav2vec2",
]  # fmt: skip


def toy_study(frame_rate: float = 25, steps: int = 700, lr: float = 3e-3, **changes: Any) -> StudyConfig:
    """An hour of the built-in corpus, a minute or two an arm on two cores.

    Args:
        frame_rate: 40 log mel energies are stacked to so many frames a second.
        steps: of each arm, of 30 s of audio.
        lr: peak learning rate.
        changes: fields of `StudyConfig`.
    """
    training = PretrainConfig(
        steps=steps,
        batches=BatchConfig(max_seconds=30, memory_mb=500),
        optim=OptimConfig(lr=lr),
        loop=TrainConfig(tensorboard=False),
    )
    study = StudyConfig(corpus=TOY_CORPUS, front=log_mel_front(frame_rate), training=training, protocol=toy_protocol())
    return replace(study, **changes)


def hubert_training(steps: int = 400_000, batch_seconds: float = 2800, **changes: Any) -> PretrainConfig:
    """HuBERT base's training, which its successors keep (arXiv:2106.07447, section IV-C): 32 batches of 87.5 s a step.

    Args:
        steps: 400k in the second round.
        batch_seconds: of audio that the learning rate is meant for, over all processes.
        changes: fields of `PretrainConfig`.
    """
    training = PretrainConfig(
        steps=steps,
        batches=BatchConfig(max_seconds=87.5),
        optim=OptimConfig(name="adamw", lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01),
        loop=TrainConfig(precision="bf16-mixed", lr_batch_seconds=batch_seconds),
    )
    return replace(training, **changes)


def toy_network(**changes: Any) -> ConformerConfig:
    """The network of the toy presets: four narrow Conformer blocks on the front's frames.

    A plain Transformer of that size takes several times the hours of speech before it looks beyond a frame.
    """
    size = {"dim": 128, "num_layers": 4, "num_heads": 4, "ffn_dim": 256, "kernel_size": 15, "dropout": 0.05}
    still = {"position": "rotary", "subsampling": "stack", "factor": 1}
    return conformer_small(**{**size, **still, **changes})


def tiny_network(**changes: Any) -> ConformerConfig:
    """Two very narrow blocks."""
    return toy_network(**{"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "kernel_size": 5, **changes})


TOY_MASK = MaskConfig(prob=0.65, span=5)
"""Of frames of 40 ms: spans of 200 ms, as wav2vec 2.0 and HuBERT hide."""


def toy_wav2vec2() -> Wav2Vec2Config:
    """wav2vec 2.0's contrasts with few, small codes, whose draws cool within the toy's steps."""
    return wav2vec2_objective(
        mask=TOY_MASK, codebook_size=40, code_dim=64, dim=64, num_negatives=50, feature_weight=0.0, gumbel_decay=0.998
    )


def toy_data2vec() -> Data2VecConfig:
    """data2vec with a teacher that follows faster, as the toy's steps are few."""
    return Data2VecConfig(mask=TOY_MASK, top_layers=3, **TOY_TEACHER)


def toy_dinosr() -> DinoSrConfig:
    """DinoSR with such a teacher and few codes."""
    return DinoSrConfig(mask=TOY_MASK, top_layers=3, codebook_size=128, **TOY_TEACHER)


TOY_TEACHER: dict[str, Any] = {"decay_start": 0.99, "decay_end": 0.999, "decay_steps": 500}


def toy_vq_wav2vec() -> tuple[Wav2VecConfig, FutureConfig]:
    """vq-wav2vec at 25 frames a second, and its objective."""
    size = {"dim": 96, "kernels": (10, 8, 8, 4, 4, 1), "strides": (10, 4, 4, 2, 2, 1), "context_kernels": (2, 3, 4, 5)}
    # One of eleven frames is right, and unused codes cost something: without that, hundreds of steps stay at chance.
    objective = vq_wav2vec_objective(
        num_steps=4, offset=1, loss="nce", codebook_size=40, share_entries=False, gumbel_decay=0.997,
        diversity_weight=0.1,
    )  # fmt: skip
    return vq_wav2vec(**size), objective


def toy_transformer(**changes: Any) -> TeraConfig:
    """Four narrow Transformer layers that keep every frame, for units, which are no spectrum to convolve."""
    size = {"dim": 128, "num_layers": 4, "num_heads": 4, "ffn_dim": 384}
    return tera(**{**size, "dropout": 0.05, "norm_first": True, **changes})


def tiny_transformer(**changes: Any) -> TeraConfig:
    """Two very narrow layers."""
    return toy_transformer(**{"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, **changes})


def learners_study(steps: int = 2000, **changes: Any) -> StudyConfig:
    """Two hours of sentences read by learners of English (the pack speechocean762), ten minutes of them labelled.

    Words come with the phones of a dictionary and without times, so that phones are judged by fine-tuning alone; the 106
    speakers of the test part, eight sentences each, are dealt out to the speaker probe.

    Args:
        steps: of each arm, of 30 s of audio.
        changes: arguments of `toy_study`.
    """
    protocol = toy_protocol(minutes=10.0)
    assert protocol.finetune is not None
    finetune = replace(
        protocol.finetune, training=replace(protocol.finetune.training, steps=1000), num_dev=220, num_test=848
    )
    probe = ProbeConfig(phones=False, num_dev=220, num_test=848, speaker_utterances=4)
    return toy_study(steps=steps, corpus="", protocol=ProtocolConfig(probe=probe, finetune=finetune), **changes)


def tiny_study(study: StudyConfig) -> StudyConfig:
    """The same in seconds; only shows that everything runs."""
    training = replace(study.training, steps=2, batches=BatchConfig(max_seconds=20))
    protocol = tiny_protocol()
    if study.protocol.finetune is None:
        protocol = replace(protocol, finetune=None)
    return replace(study, corpus=TINY_CORPUS, training=training, protocol=protocol)
