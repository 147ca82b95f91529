"""Deep Speech: a recurrent network of clipped rectifiers trained by CTC on characters, with an external n-gram scorer.

Hannun et al., 2014, arXiv:1412.5567, as the open speech-to-text engine of that name built it: 26 MFCC of 32 ms windows every
20 ms with 9 frames of context on either side, three dense layers of min(max(x, 0), 20), one recurrent layer, one dense
layer, characters; an n-gram scorer whose weight and word bonus are tuned on the development data; a checkpoint every so many
minutes and automatic resume; an export folder that transcribes with no flags. `encoder.recurrence rnn` is the paper's
bidirectional layer, `lstm` the engine's, which streams. Where we differ: features are normalised by the training data's mean
and variance, AdamW takes the place of Adam, and the scorer's search is flashlight-text's.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lhotse import CutSet

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.recognition import LmConfig, evaluate_stage, lm_stage, shuffled_transcripts, train_stage
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import DataError
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus
from sonorant.encoders.recurrent import DeepSpeechConfig
from sonorant.tasks.asr.augmentation import AugmentConfig, no_augmentation
from sonorant.tasks.asr.model import FeatureConfig
from sonorant.tasks.asr.training import TextConfig, TrainingConfig, build_recogniser, prepare_speech
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="DeepSpeech",
    title="Deep Speech",
    paper="arXiv:1412.5567",
    family="asr",
    headline="Switchboard Hub5'00 16.0 % WER (full, ensemble, 2300 h); the engine's 0.9.3 reads 7.06 % on LibriSpeech clean",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are the engine's."""

    corpus: str = "synthetic"
    """Used where --corpus does not say; csv:train.csv,dev.csv,test.csv reads the engine's own lists."""
    features: FeatureConfig = field(
        default_factory=lambda: FeatureConfig(kind="mfcc", dim=26, num_mels=40, frame_length=0.032, hop=0.02)
    )
    """26 cepstra, 32 ms every 20 ms."""
    encoder: DeepSpeechConfig = field(default_factory=DeepSpeechConfig)
    """Section 2."""
    text: TextConfig = field(default_factory=TextConfig)
    """Characters of the training transcripts."""
    augment: AugmentConfig = field(default_factory=no_augmentation)
    """The paper adds noise and shifts the input by 5 ms; the engine's releases none."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=200_000,
            batches=BatchConfig(max_seconds=600),
            optim=OptimConfig(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0),
            schedule=ScheduleConfig(name="constant", warmup=0.0),
            loop=TrainConfig(validate_every=5000, checkpoint_every=0, checkpoint_minutes=10),
        )
    )
    """Learning rate 1e-4; a checkpoint every 10 minutes."""
    lm: LmConfig = field(default_factory=lambda: LmConfig(order=5, beam_size=500))
    """External scorer."""
    overfit: bool = False
    """Train, tune and test on the same utterances: shows that everything can learn, and nothing else."""
    only: tuple[str, ...] = ()
    """Ids of the only utterances to use; empty for all."""
    init_from: str = ""
    """Folder of a recogniser whose weights to start from."""
    skip: tuple[str, ...] = ()
    """Patterns of tensors that are not taken from it, such as head.* for another alphabet."""


def engine() -> Config:
    """The engine's defaults: 2048 wide, 1e-4, beam 500."""
    return Config(corpus="")


def paper() -> Config:
    """Section 2 of the paper: the bidirectional layer, frames every 10 ms, dropout of 5 %, Nesterov's momentum as SGD."""
    base = engine()
    return replace(
        base,
        features=FeatureConfig(kind="fbank", dim=80, frame_length=0.02, hop=0.01),
        encoder=DeepSpeechConfig(recurrence="rnn", context=9),
        training=replace(base.training, optim=OptimConfig(name="sgd", lr=1e-3, momentum=0.99, weight_decay=0.0)),
    )


def librispeech() -> Config:
    """The engine's published LibriSpeech settings: dropout 0.3 to 0.4, learning rate 1e-4, about 75 epochs."""
    return replace(engine(), encoder=DeepSpeechConfig(dropout=0.3))


def commonvoice() -> Config:
    """Common Voice: noisier and shorter, so more dropout, speed and masks."""
    return replace(engine(), encoder=DeepSpeechConfig(dropout=0.3), augment=AugmentConfig(freq_masks=1, freq_width=5))


def ldc93s1() -> Config:
    """One utterance to exactly its transcript, in minutes on a CPU: the engine's first contact."""
    training = TrainingConfig(
        steps=600,
        batches=BatchConfig(max_seconds=20),
        optim=OptimConfig(lr=1e-3, weight_decay=0.0),
        schedule=ScheduleConfig(name="tri_stage", warmup=0.05, hold=0.7, final_scale=0.05),
        loop=TrainConfig(log_every=50, tensorboard=False),
        allow_shared_speakers=True,
    )
    return Config(
        corpus="",
        only=("LDC93S1",),
        overfit=True,
        encoder=DeepSpeechConfig(dim=256, dropout=0.0),
        training=training,
        lm=LmConfig(order=0),
    )


def toy() -> Config:
    """Two minutes on two cores, the built-in corpus."""
    training = TrainingConfig(
        steps=1800,
        # Small batches: the first updates go into finding that there are letters at all, and take as many as they take.
        batches=BatchConfig(max_seconds=20),
        optim=OptimConfig(lr=1.5e-3, weight_decay=0.0),
        schedule=ScheduleConfig(warmup=0.1),
        loop=TrainConfig(validate_every=600),
    )
    return Config(
        corpus="synthetic:train=1200,dev=100,test=200,vocab_size=200",
        encoder=DeepSpeechConfig(dim=256, context=5),
        training=training,
        lm=LmConfig(order=3, beam_size=50),
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    loop = TrainConfig(log_every=1, tensorboard=False)
    return replace(
        base,
        corpus="synthetic:train=24,dev=6,test=6,vocab_size=110,num_voices=[4,2,2]",
        encoder=DeepSpeechConfig(dim=32, context=2),
        training=replace(base.training, steps=4, batches=BatchConfig(max_seconds=20), loop=loop),
        lm=LmConfig(order=2, beam_size=5, lm_weights=(0.5,), word_bonuses=(0.0,)),
    )


PRESETS = {
    "toy": toy,
    "tiny": tiny,
    "ldc93s1": ldc93s1,
    "engine": engine,
    "paper": paper,
    "librispeech": librispeech,
    "commonvoice": commonvoice,
}

CLAIMS = [
    Claim("wer", of="main_lm", below="main", why="the external scorer mends what the network spells by ear"),
    Claim("wer", of="main", below=0.9, why="the network learns to spell unseen voices and sentences"),
    Claim("wer", of="shuffled", below=0.9, must_fail=True, why="wrongly paired transcripts teach nothing"),
]


def chosen(corpus: Corpus, config: Config) -> Corpus:
    """The utterances that the configuration asks for."""
    splits = dict(corpus.splits)
    if config.only:
        kept = {name: [cut for cut in cuts if cut.id in config.only] for name, cuts in splits.items()}
        splits = {name: CutSet.from_cuts(cuts) for name, cuts in kept.items() if cuts}
        if not splits:
            raise DataError(f"none of {', '.join(config.only)} is in corpus '{corpus.name}'")
    if config.overfit:
        cuts = [cut for split in splits.values() for cut in split]
        copies = {name: [cut.with_id(f"{name}-{cut.id}") for cut in cuts] for name in ("train", "dev", "test")}
        splits = {name: CutSet.from_cuts(copied) for name, copied in copies.items()}
    return corpus.with_splits(splits)


def run(config: Config, work: Workspace) -> list[Score]:
    """Corpus → characters → recurrent network → CTC → external scorer → error rates → export folder."""
    corpus = chosen(work.open_corpus(config.corpus), config)
    speech = prepare_speech(
        corpus, config.text, config.training, frame_rate=1 / config.features.hop, folder=work.folder
    )
    lm = lm_stage(work, speech, config.lm)
    parts: dict[str, Any] = {"features": config.features, "encoder": config.encoder, "augment": config.augment}
    make, batches = partial(build_recogniser, **parts), config.training.batches
    model = train_stage(
        work, "main", make, speech, config.training, parts, init_from=config.init_from, skip=config.skip
    )
    scores = evaluate_stage(work, "main", model, speech, batches, lm, config.lm)
    if "shuffled" in work.arms:
        wrong = shuffled_transcripts(speech, work.seed)
        model = train_stage(work, "shuffled", make, wrong, config.training, parts)
        scores += evaluate_stage(work, "shuffled", model, speech, batches)
    return scores
