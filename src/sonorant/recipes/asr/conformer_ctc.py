"""Conformer-CTC: convolution-augmented attention trained by CTC on subwords.

Gulati et al., 2020, arXiv:2005.08100 (the encoder; its sizes are table 1), with the CTC criterion in place of the paper's
transducer, as in Guo et al., 2020, arXiv:2010.13956, and SpecAugment (Park et al., 2019, arXiv:1904.08779) with the time
masks of its sequel for long and short utterances (arXiv:1912.05533). Speed perturbation by thirds. A word trigram of the
training transcripts is searched with; its weight is tuned on the development split. Where we differ: LayerNorm in the
convolution module, so that no utterance depends on its batch, and rotary positions in the small presets, which cost less.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.recognition import (
    LmConfig,
    evaluate_stage,
    lm_stage,
    rearranged,
    shuffled_transcripts,
    spoken_stage,
    train_stage,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.encoders.conformer import ConformerConfig, conformer_medium, conformer_small
from sonorant.tasks.asr.augmentation import AugmentConfig, no_augmentation
from sonorant.tasks.asr.model import FeatureConfig
from sonorant.tasks.asr.training import Speech, TextConfig, TrainingConfig, build_recogniser, prepare_speech
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="baseline",
    title="Conformer-CTC",
    paper="arXiv:2005.08100",
    family="asr",
    headline="LibriSpeech test-clean/other 1.9/3.9 % WER with a transducer, 118.8 M parameters and a language model",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the paper's medium size on LibriSpeech."""

    corpus: str = "synthetic"
    """Used where --corpus does not say."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """80 mel bands, 25 ms windows every 10 ms (section 3.1)."""
    encoder: ConformerConfig = field(default_factory=conformer_medium)
    """Table 1."""
    text: TextConfig = field(default_factory=lambda: TextConfig(tokens="subword", vocab_size=1024))
    """1k word pieces (section 3.1)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Speed and SpecAugment (section 3.1: F = 27, ten time masks of at most 5 % of the utterance)."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Adam with betas 0.9 and 0.98, warm-up of 10k steps, peak 0.05/√dim (section 3.2)."""
    lm: LmConfig = field(default_factory=LmConfig)
    """External n-gram."""
    warm_up: int = 0
    """Utterances to train on first: the words of the training sentences in any order, said by as many synthetic voices. CTC
    takes long to find out of a few hours of real speech that there are letters, and minutes of clear speech to show it."""
    warm_up_steps: int = 1500
    """Steps on them."""
    init_from: str = ""
    """Folder of a recogniser whose weights to start from."""
    skip: tuple[str, ...] = ()
    """Patterns of tensors that are not taken from it, such as head.*"""


def librispeech() -> Config:
    """The published numbers: medium size, 1k subwords, about 50 epochs of 960 h."""
    training = TrainingConfig(
        steps=150_000,
        batches=BatchConfig(max_seconds=1200),
        optim=OptimConfig(name="adamw", lr=0.05 / 256**0.5, betas=(0.9, 0.98), eps=1e-9, weight_decay=1e-6),
        schedule=ScheduleConfig(name="noam", warmup=10_000 / 150_000),
        loop=TrainConfig(validate_every=5000, precision="bf16-mixed"),
    )
    return Config(corpus="", training=training)


def speechocean762() -> Config:
    """Two hours of read sentences by learners of English, on two cores, within an hour."""
    training = TrainingConfig(
        steps=9500,
        batches=BatchConfig(max_seconds=30, memory_mb=2000),
        optim=OptimConfig(lr=1.5e-3, weight_decay=0.05),
        schedule=ScheduleConfig(warmup=0.05),
        loop=TrainConfig(validate_every=1000, checkpoint_minutes=5, precision="auto"),
    )
    encoder = conformer_small(
        num_layers=4, ffn_dim=432, kernel_size=15, position="rotary", dropout=0.1, subsampling="stack", factor=4
    )
    return Config(
        corpus="",
        features=FeatureConfig(dim=40),
        encoder=encoder,
        # 13 000 words do not show how English is spelt.
        text=TextConfig(tokens="phone"),
        augment=AugmentConfig(
            speed=0.67, formant=0.3, formant_range=(0.85, 1.2), freq_width=8, time_masks=2, time_width=10
        ),
        training=training,
        warm_up=6000,
        warm_up_steps=1200,
    )


def speechocean762_8k() -> Config:
    """The telephone band, from the 16 kHz recogniser that --init-from names: for short clips by any microphone."""
    base = speechocean762()
    augment = AugmentConfig(
        speed=0.67, tract=0.8, tract_range=(0.82, 1.2), equalise=0.5, noise=0.3, noise_db=(15.0, 40.0),
        freq_width=8, time_masks=4, time_width=15,
    )  # fmt: skip
    return replace(
        base,
        # A single word is too short for means of its own, and levels and noise vary more than among the readers.
        features=FeatureConfig(sample_rate=8000, dim=40, normalise="peak"),
        encoder=replace(base.encoder, dropout=0.15),
        augment=augment,
        training=replace(base.training, steps=4000),
        warm_up=0,
    )


def toy() -> Config:
    """Two minutes on two cores, the built-in corpus."""
    training = TrainingConfig(
        steps=1200,
        # Small batches: with CTC the first hundreds of updates go into finding that there are letters at all.
        batches=BatchConfig(max_seconds=20),
        optim=OptimConfig(lr=3e-3, weight_decay=0.01),
        schedule=ScheduleConfig(warmup=0.15),
        loop=TrainConfig(validate_every=400, precision="auto"),
    )
    # 33 frames a second: at 25 a fast voice has too few for its letters.
    encoder = conformer_small(
        num_layers=3, ffn_dim=288, kernel_size=15, position="rotary", dropout=0.05, subsampling="stack", factor=3
    )
    return Config(
        corpus="synthetic:train=1500,dev=100,test=200,vocab_size=200",
        features=FeatureConfig(dim=40),
        encoder=encoder,
        text=TextConfig(tokens="char"),
        # The corpus already varies speed, throat, room and noise from one utterance to the next.
        augment=AugmentConfig(speed=0.0, volume=0.0, freq_masks=1, freq_width=6, time_masks=1, time_width=10),
        training=training,
    )


def demo() -> Config:
    """What `make demo` trains: five minutes on two cores."""
    base = toy()
    return replace(
        base,
        corpus="synthetic:train=3000,dev=100,test=200,vocab_size=200",
        training=replace(base.training, steps=2500, loop=replace(base.training.loop, validate_every=500)),
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    training = replace(
        base.training, steps=4, batches=BatchConfig(max_seconds=20), loop=TrainConfig(log_every=1, tensorboard=False)
    )
    return replace(
        base,
        corpus="synthetic:train=24,dev=6,test=6,vocab_size=110,num_voices=[4,2,2]",
        encoder=replace(base.encoder, num_layers=1, dim=32, ffn_dim=32, num_heads=2),
        training=training,
        lm=LmConfig(order=2, beam_size=5, lm_weights=(0.5,), word_bonuses=(0.0,)),
        warm_up=24,
        warm_up_steps=2,
    )


PRESETS = {
    "toy": toy,
    "demo": demo,
    "tiny": tiny,
    "speechocean762": speechocean762,
    "speechocean762_8k": speechocean762_8k,
    "librispeech": librispeech,
}

CLAIMS = [
    Claim("wer", of="main_lm", below="main", why="a language model of the training sentences helps on new ones"),
    Claim("wer", of="main", below="no_augmentation", why="training data that are varied reach unseen voices"),
    Claim("wer", of="shuffled", below=0.9, must_fail=True, why="wrongly paired transcripts teach nothing"),
]


def warmed_up(config: Config, work: Workspace, speech: Speech) -> str:
    """A recogniser with the same vocabulary, trained on the same words in synthetic voices."""
    texts = rearranged(speech.texts("train"), config.warm_up, work.seed)
    lines = [(text, str(number)) for number, text in enumerate(texts)]
    corpus = speech.corpus.with_splits({"train": spoken_stage(work, lines)})
    training = replace(config.training, steps=config.warm_up_steps)
    frame_rate = 1 / config.features.hop / config.encoder.factor
    easy = prepare_speech(corpus, config.text, training, frame_rate=frame_rate, tokenizer=speech.tokenizer)
    parts: dict[str, Any] = {"features": config.features, "encoder": config.encoder, "augment": no_augmentation()}
    build = partial(build_recogniser, **parts)
    return str(train_stage(work, "warm_up", build, easy, training, parts, init_from=config.init_from, skip=config.skip))


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → subwords → Conformer → CTC → n-gram → error rates."""
    frame_rate = 1 / config.features.hop / config.encoder.factor
    corpus = work.open_corpus(config.corpus)
    speech = prepare_speech(corpus, config.text, config.training, frame_rate=frame_rate, folder=work.folder)
    lm = lm_stage(work, speech, config.lm)
    first = warmed_up(config, work, speech) if config.warm_up else config.init_from

    def arm(name: str, augment: AugmentConfig, with_lm: bool = False) -> list[Score]:
        data = shuffled_transcripts(speech, work.seed) if name == "shuffled" else speech
        parts: dict[str, Any] = {"features": config.features, "encoder": config.encoder, "augment": augment}
        model = train_stage(
            work, name, partial(build_recogniser, **parts), data, config.training, parts,
            init_from=first, skip=() if config.warm_up else config.skip,
        )  # fmt: skip
        return evaluate_stage(work, name, model, speech, config.training.batches, lm if with_lm else None, config.lm)

    scores = arm("main", config.augment, with_lm=True)
    if "no_augmentation" in work.arms:
        scores += arm("no_augmentation", no_augmentation())
    if "shuffled" in work.arms:
        scores += arm("shuffled", config.augment)
    return scores
