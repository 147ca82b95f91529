"""Spoken digits, each speaker left out in turn: whole-word CTC on a small recurrent network.

The plain test of whether a recogniser carries over to a voice it has never heard: with n speakers, n trainings, each scored
on the speaker that it has not heard; the mean over speakers and their spread are what counts. A BiGRU over log mel energies
(Graves et al., 2013, arXiv:1303.5778, with gated units and one token a word) and, as the variation that four or five speakers
lack, speed, mel bands warped (the length of the throat), equaliser, noise, level and a mask of SpecAugment's. The arm
`voices` adds the same words in many synthetic voices. Preset `fsdd_adapted` starts from a recogniser of sentences, goes
by phones, and varies only how closely clips are cut.
"""

import statistics
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lhotse import CutSet

from sonorant.benchmark.claims import Card, Claim
from sonorant.benchmark.recognition import (
    LmConfig,
    evaluate_stage,
    lm_stage,
    shuffled_transcripts,
    spoken_stage,
    train_stage,
    with_more,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.errors import DataError
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus, text_of
from sonorant.encoders.recurrent import RecurrentConfig
from sonorant.tasks.asr.augmentation import AugmentConfig, no_augmentation
from sonorant.tasks.asr.model import EncoderConfig, FeatureConfig, load_recogniser, stored_parts
from sonorant.tasks.asr.package import checkpoint_in, find_recogniser
from sonorant.tasks.asr.pronunciation import knowing
from sonorant.tasks.asr.training import TextConfig, TrainingConfig, build_recogniser, prepare_speech
from sonorant.text.tokenizer import Tokenizer
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

CARD = Card(
    system="baseline",
    title="Digits, leave one speaker out",
    paper="arXiv:1303.5778",
    family="asr",
    headline="none published for this split; ours is the mean over speakers",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Spoken digits of few speakers."""

    corpus: str = ""
    """Such as pack:DIR; every split of it is put together and divided anew by speaker."""
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(sample_rate=8000, dim=40))
    """Telephone band. An utterance's own mean would hide the microphone, and of a single word much of its vowels."""
    encoder: RecurrentConfig = field(
        default_factory=lambda: RecurrentConfig(dim=96, num_layers=2, factor=2, dropout=0.2, subsampling="stack")
    )
    """A small BiGRU."""
    text: TextConfig = field(default_factory=lambda: TextConfig(tokens="word"))
    """Ten words, or the phones that they are made of."""
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            speed=0.6,
            tract=0.8,
            tract_range=(0.8, 1.25),
            equalise=0.3,
            noise=0.3,
            noise_db=(10.0, 35.0),
            volume_db=(-24.0, 12.0),
            freq_masks=1,
            freq_width=6,
            time_masks=0,
        )
    )
    """What few speakers lack: throats, paces, microphones and levels. A word is too short to mask stretches of it."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=800,
            batches=BatchConfig(max_seconds=20, num_buckets=5),
            optim=OptimConfig(lr=2e-3, weight_decay=0.02),
            schedule=ScheduleConfig(warmup=0.1),
            loop=TrainConfig(tensorboard=False),
        )
    )
    """A few minutes a speaker."""
    silence: float = 0.0
    """Seconds of silence before and after each clip: clips cut close to the word lack what sentences begin and end with, and
    a short one lacks frames."""
    lm: LmConfig = field(default_factory=lambda: LmConfig(order=0))
    """With phones for tokens: the n-gram whose words the search goes along."""
    num_voices: int = 120
    """Synthetic voices of the arm `voices`, which says each word of the corpus once in each of them."""
    speakers: tuple[str, ...] = ()
    """Which to leave out; all in turn where empty."""
    init_from: str = ""
    """Folder of a recogniser to start from, such as one of sentences at this sample rate; its features and encoder take the
    place of these. It must not have heard these speakers."""
    skip: tuple[str, ...] = ()
    """Patterns of tensors that are not taken from it, such as head.*"""


def fsdd() -> Config:
    """The Free Spoken Digit Dataset."""
    return Config()


def fsdd_adapted() -> Config:
    """The same by phones, from a recogniser of sentences at 8 kHz that --init-from names."""
    base = fsdd()
    # Gently: what the start knows of a hundred speakers is soon forgotten over four. It has heard its words varied already;
    # what it has not heard is clips cut so close that the first or last consonant is gone.
    training = replace(
        base.training,
        steps=150,
        optim=replace(base.training.optim, lr=3e-4),
        loop=TrainConfig(tensorboard=False, precision="auto"),
    )
    # Each training text is one word: so is each answer, and there is nothing to tune.
    lm = LmConfig(order=2, lm_weights=(1.0,), word_bonuses=(0.0,))
    augment = replace(no_augmentation(), edges=0.7)
    # Without silence around it, one clip in a hundred has fewer frames than phones.
    return replace(base, text=TextConfig(tokens="phone"), augment=augment, training=training, lm=lm, silence=0.3)


def toy() -> Config:
    """The built-in corpus has no isolated digits; its numbers stand in, by a few voices."""
    base = Config()
    return replace(
        base,
        corpus="synthetic:train=300,dev=2,test=2,numbers=1,commands=0,world=0,free=0,num_voices=[3,1,1],vocab_size=60",
        features=replace(base.features, sample_rate=16000),
        text=TextConfig(tokens="char"),
        augment=replace(base.augment, reverb=0.0),
        training=replace(base.training, steps=300),
        num_voices=10,
    )


def tiny() -> Config:
    """Seconds; only shows that everything runs."""
    base = toy()
    training = replace(base.training, steps=3, loop=TrainConfig(log_every=1, tensorboard=False))
    corpus = base.corpus.replace("train=300", "train=40").replace("[3,1,1]", "[2,1,1]")
    return replace(
        base, corpus=corpus, training=training, encoder=RecurrentConfig(dim=8, num_layers=1, factor=2), num_voices=1
    )


PRESETS = {"toy": toy, "tiny": tiny, "fsdd": fsdd, "fsdd_adapted": fsdd_adapted}

CLAIMS = [
    Claim("wer", of="main", below="no_augmentation", why="varied voices stand in for those that are missing"),
    Claim(
        "wer", of="voices", below="main", why="synthetic voices that say the same words stand in for missing speakers"
    ),
    Claim("wer", of="shuffled", below=0.8, must_fail=True, why="wrongly paired transcripts teach nothing"),
]


def by_speaker(corpus: Corpus, silence: float = 0.0) -> dict[str, list]:
    """All cuts of a corpus, by speaker, each with so many seconds of silence on both sides."""
    found: dict[str, list] = {}
    for cuts in corpus.splits.values():
        for cut in cuts:
            padded = cut.pad(cut.duration + 2 * silence, direction="both", preserve_id=True) if silence else cut
            found.setdefault(cut.supervisions[0].speaker or "", []).append(padded)
    if len(found) < 2 or "" in found:
        raise DataError(
            f"corpus '{corpus.name}' needs at least two named speakers to leave one out; it has {sorted(found)}"
        )
    return found


def geometry(config: Config, corpus: Corpus) -> tuple[FeatureConfig, EncoderConfig, Tokenizer | None]:
    """Features, encoder and vocabulary: those of the recogniser to start from, where there is one whose head is kept."""
    if not config.init_from:
        return config.features, config.encoder, None
    start = checkpoint_in(find_recogniser(config.init_from))
    if config.skip:
        return *stored_parts(start), None
    normalise = config.text.normaliser()
    words = {word for cuts in corpus.splits.values() for cut in cuts for word in normalise(text_of(cut) or "").split()}
    return *stored_parts(start), knowing(load_recogniser(start).tokenizer, sorted(words))


def run(config: Config, work: Workspace) -> list[Score]:
    """For each speaker: train on the others, score on this one; then mean and spread."""
    corpus = work.open_corpus(config.corpus)
    speakers = by_speaker(corpus, config.silence)
    features, encoder, tokenizer = geometry(config, corpus)
    arms = {
        "main": config.augment,
        "no_augmentation": no_augmentation(),
        "voices": config.augment,
        "shuffled": config.augment,
    }
    rates: dict[str, list[float]] = {arm: [] for arm in arms if arm == "main" or arm in work.arms}
    scores = []
    for speaker in config.speakers or tuple(sorted(speakers)):
        others = [cut for name, cuts in speakers.items() if name != speaker for cut in cuts]
        fold = corpus.with_splits({"train": CutSet.from_cuts(others), "test": CutSet.from_cuts(speakers[speaker])})
        rate = 1 / features.hop / getattr(encoder, "factor", 1)
        speech = prepare_speech(
            fold, config.text, config.training, frame_rate=rate, tokenizer=tokenizer, folder=work.folder
        )
        lm = lm_stage(work, speech, config.lm)
        for arm in rates:
            data = shuffled_transcripts(speech, work.seed) if arm == "shuffled" else speech
            if arm == "voices":
                words = sorted({word for text in speech.texts("train") for word in text.split()})
                lines = [(word, str(voice)) for voice in range(config.num_voices) for word in words]
                data = with_more(speech, spoken_stage(work, lines))
            parts: dict[str, Any] = {"features": features, "encoder": encoder, "augment": arms[arm]}
            model = train_stage(
                work, f"{arm}-{speaker}", partial(build_recogniser, **parts), data, config.training, parts,
                init_from=config.init_from, skip=config.skip,
            )  # fmt: skip
            found = evaluate_stage(work, f"{arm}-{speaker}", model, speech, config.training.batches, lm, config.lm)
            # Word error rates: of the best path, and behind it of the search along the words, where there is one.
            best = [score for score in found if score.name.endswith("/wer")][-1]
            scores.append(best)
            rates[arm].append(best.value)
    return [*_means(rates), *scores]


def _means(rates: dict[str, list[float]]) -> list[Score]:
    """Mean over speakers, with one standard deviation between speakers on either side as the interval."""
    scores = []
    for arm, values in rates.items():
        mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        scores.append(Score(f"{arm}/wer", mean, "lower", mean - spread, mean + spread, len(values)))
    return scores
