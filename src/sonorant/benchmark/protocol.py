"""How every self-supervised recipe is judged: the same frozen probes, the same fine-tuning, the same baselines.

An arm is an encoder: a pre-trained one, or one of the two that every recipe is compared with: `random`, the recipe's own
network before training, and `log_mel`, spectral frames stacked to the same frame rate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonorant.benchmark.finetuning import FinetuneConfig, finetune_stage, phones_of
from sonorant.benchmark.pretraining import fresh_encoder, statistics_stage
from sonorant.benchmark.probe import ProbeConfig, alignment_of, probe_stage
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import DataError
from sonorant.core.seed import derive, seed_everything
from sonorant.core.types import Score, Units
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus, speaker_of, text_of
from sonorant.data.shards import random_order
from sonorant.encoders.checkpoint import describe_config, described_module, load_trained_encoder, save_trained_encoder
from sonorant.encoders.spectral import FrontConfig, OnSpectrumConfig, log_mel_front, on_spectrum
from sonorant.tasks.asr.training import TrainingConfig
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig
from sonorant.units.store import UnitStore, write_units

__all__ = [
    "TINY_CORPUS", "TOY_CORPUS", "ProtocolConfig", "check_protocol", "from_waveforms", "judge", "network", "random_encoder",
    "references", "swapped_units", "tiny_protocol", "toy_protocol",
]  # fmt: skip

TOY_CORPUS = "synthetic:train_seconds=3600,dev=100,test=200"
"""An hour of the built-in corpus: half of it in rooms, most of it in noise, every utterance with its own pitch and rate."""

TINY_CORPUS = "synthetic:train=24,dev=12,test=12,vocab_size=110,num_voices=[4,2,2]"


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """What each arm is asked."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Phones and speakers read off frozen layers."""
    finetune: FinetuneConfig | None = field(default_factory=FinetuneConfig)
    """CTC with a few minutes of labels; null for none."""


def toy_protocol(minutes: float = 6.0, **changes: Any) -> ProtocolConfig:
    """Within a minute an arm on two cores: 60 utterances for the probes, `minutes` of labels for CTC."""
    training = TrainingConfig(
        steps=300,
        batches=BatchConfig(max_seconds=30, memory_mb=200),
        optim=OptimConfig(lr=2e-3, weight_decay=0.01),
        schedule=ScheduleConfig(name="tri_stage", warmup=0.1, hold=0.4, final_scale=0.05),
        loop=TrainConfig(validate_every=150, tensorboard=False, progress=False),
    )
    finetune = FinetuneConfig(minutes=minutes, training=training, freeze="")
    return replace(ProtocolConfig(finetune=finetune), **changes)


def tiny_protocol() -> ProtocolConfig:
    """Seconds; only shows that everything runs."""
    base = toy_protocol(minutes=0.5)
    assert base.finetune is not None
    loop = TrainConfig(tensorboard=False, progress=False, log_every=1)
    finetune = replace(base.finetune, training=replace(base.finetune.training, steps=2, loop=loop))
    return ProtocolConfig(probe=ProbeConfig(num_labelled=8, speaker_utterances=1), finetune=finetune)


def check_protocol(corpus: Corpus, config: ProtocolConfig, seen: int = 100) -> None:
    """Asks a corpus, before hours of training, for what its judges will want.

    Args:
        corpus: with the splits `train`, `dev` and `test`.
        config: the judges.
        seen: cuts of each split that are looked at.

    Raises:
        DataError: there is no such split, or none of its cuts has a label that is asked for; says what to change.
    """
    probe, tune = config.probe, config.finetune
    wanted: dict[str, tuple[bool, Callable[[Any], object], str]] = {
        "phone alignments": (probe.phones, partial(alignment_of, tier="phone"), "protocol.probe.phones false"),
        "word alignments": (probe.words, partial(alignment_of, tier="word"), "protocol.probe.words false"),
        "speakers": (probe.speakers, speaker_of, "protocol.probe.speakers false"),
        "phones": (tune is not None and tune.targets == "phone", phones_of, "protocol.finetune.targets char"),
        "transcripts": (tune is not None and tune.targets == "char", text_of, "protocol.finetune null"),
    }
    for name in ("train", "dev", "test"):
        cuts = list(islice(corpus.split(name), seen))
        for what, (asked, label, instead) in wanted.items():
            if asked and not any(label(cut) for cut in cuts):
                raise DataError(
                    f"corpus '{corpus.name}', split '{name}': no {what}, which the judges of this recipe want; "
                    f"give a corpus that has them, or set {instead}"
                )


def from_waveforms(encoder: Any, front: FrontConfig) -> Any:
    """The configuration of an encoder from waveforms: the encoder's own, or that of one behind a spectral front."""
    takes_features = any(field.name == "input_dim" for field in fields(encoder))
    return on_spectrum(encoder, **vars(front)) if takes_features else encoder


def network(config: Any, front: Path | None = None) -> Any:
    """An encoder with random weights; one on spectral frames with the corpus's statistics."""
    if isinstance(config, OnSpectrumConfig) and front is not None:
        return fresh_encoder(config, front)
    return described_module(describe_config(config))


def swapped_units(work: Workspace, store: UnitStore) -> UnitStore:
    """The control that must fail: every cut gets the units of another, repeated or cut to its length.

    How often units occur and follow one another stays; what they say of the audio is gone.
    """

    def make(folder: Path) -> None:
        ids = store.ids
        order = random_order(len(ids), derive(work.seed, "swap")).tolist()
        # Neighbours in a random order: none keeps its own.
        other = {ids[order[i]]: ids[order[i - 1]] for i in range(len(ids))}

        def items() -> Iterator[tuple[str, Units, int]]:
            for name in ids:
                count = len(store[name])
                units = torch.from_numpy(np.resize(store[other[name]], count))[None]
                yield name, Units(units, torch.tensor([count]), store.frame_rate, store.num_units), store.samples(name)

        write_units(folder / "units", items(), offset=store.offset, sample_rate=store.sample_rate, note="swapped")

    return UnitStore(work.stage("swapped_units", make, {"units": store.digest()}) / "units")


def judge(work: Workspace, arm: str, encoder: Path, corpus: Corpus, config: ProtocolConfig) -> list[Score]:
    """Probes and fine-tunes a pre-trained encoder: `arm/phone_accuracy`, `arm/speaker_accuracy`, `arm/per`, …

    Args:
        work: where.
        arm: before the slash of the scores' names.
        encoder: folder of a trained encoder.
        corpus: with the splits `train`, `dev` and `test`.
        config: what is asked.
    """
    scores = probe_stage(work, arm, load_trained_encoder(encoder), corpus, config.probe)
    if config.finetune is not None:
        scores += finetune_stage(work, arm, encoder, corpus, config.finetune)
    return scores


def random_encoder(work: Workspace, config: Any, front: Path | None = None) -> Path:
    """The network of a recipe before any training, kept as a stage: a folder for `load_trained_encoder`.

    Args:
        work: where; its seed draws the weights.
        config: of an encoder from waveforms.
        front: statistics of the corpus, for an encoder on spectral frames.
    """

    def make(folder: Path) -> None:
        seed_everything(derive(work.seed, "random") % 2**31)
        save_trained_encoder(network(config, front), folder / "encoder")

    told = describe_config(config)
    return work.stage("random", make, {"encoder": told, "front": str(front.parent.name) if front else ""}) / "encoder"


def references(
    work: Workspace, encoder: Any, corpus: Corpus, config: ProtocolConfig, front: Path | None = None
) -> list[Score]:
    """The arms that every recipe is compared with: `random` (its `per` is the network trained from scratch) and `log_mel`.

    Args:
        work: where.
        encoder: configuration of the recipe's encoder.
        corpus: as in `judge`.
        config: as in `judge`.
        front: statistics of the corpus, for an encoder on spectral frames.
    """
    folder = random_encoder(work, encoder, front)
    untrained: Any = load_trained_encoder(folder)
    spectrum = log_mel_front(_divisor(untrained.frame_rate))
    log_mel = statistics_stage(work, spectrum, corpus.split("train"))
    scores = probe_stage(work, "random", untrained, corpus, config.probe)
    scores += probe_stage(work, "log_mel", load_trained_encoder(log_mel), corpus, config.probe)
    if config.finetune is not None:
        scores += finetune_stage(work, "random", folder, corpus, config.finetune, scratch=True)
    return scores


def _divisor(frame_rate: float) -> float:
    """The rate nearest to an encoder's that divides 100 frames a second."""
    return min((100 / n for n in (1, 2, 4, 5, 10)), key=lambda rate: abs(rate - frame_rate))
