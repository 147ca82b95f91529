"""Training a CTC recogniser on a corpus: transcripts normalised, checked, tokenised; batches; `fit`.

Read `Speech` (a corpus ready to train on) and `prepare_speech`, then `train_recogniser`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from lhotse import CutSet
from lhotse.cut import Cut

from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig, Batches
from sonorant.data.checks import CheckReport, check_corpus
from sonorant.data.corpora.corpus import Corpus, text_of
from sonorant.tasks.asr.augmentation import AugmentConfig, build_chain, build_mask, build_warp
from sonorant.tasks.asr.model import CtcRecogniser, EncoderConfig, FeatureConfig, ctc_config
from sonorant.tasks.asr.pronunciation import lexicon_of
from sonorant.text.alphabet import Alphabet
from sonorant.text.normalise import Normaliser
from sonorant.text.pronounced import Pronounced
from sonorant.text.subword import Subword
from sonorant.text.tokenizer import Tokenizer
from sonorant.train.config import TrainConfig
from sonorant.train.loop import FitResult, fit
from sonorant.train.optim import OptimConfig, build_optimizer
from sonorant.train.record import Resume
from sonorant.train.schedule import ScheduleConfig, build_schedule

__all__ = [
    "Speech", "TextConfig", "TrainingConfig", "build_recogniser", "build_tokenizer", "prepare_speech", "token_labels",
    "train_recogniser",
]  # fmt: skip

log = logging.getLogger("sonorant")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How transcripts become tokens."""

    tokens: Literal["char", "subword", "word", "phone"] = "char"
    """Characters, SentencePiece units, whole words of a closed list, or phones of a lexicon: what a few hours can teach."""
    lexicon: str = ""
    """File of pronunciations for phones, as Kaldi's or CMUdict's; empty for eSpeak NG's rules."""
    vocab_size: int = 128
    """Subwords, the blank included."""
    language: str = "en"
    """Of the number words that digits become; with another language than en, fr, es, de digits stay."""

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, ("char", "subword", "word", "phone"))
        at_least("vocab_size", self.vocab_size, 4)

    def normaliser(self) -> Normaliser:
        """Lower case, no punctuation, numbers in words."""
        return Normaliser(language=self.language, numbers=self.language in ("en", "fr", "es", "de"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Steps, batches, optimiser, schedule and loop of one training."""

    steps: int = 2000
    """Updates of the weights."""
    batches: BatchConfig = field(default_factory=BatchConfig)
    """Sizes and loading."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Of the learning rate."""
    loop: TrainConfig = field(default_factory=TrainConfig)
    """Clipping, averaging, checkpoints, validation."""
    max_bad_share: float = 0.05
    """Share of items that the checks may leave out before they stop the run."""
    allow_shared_speakers: bool = False
    """Go on where a speaker stands in two splits; then the figures say nothing of new speakers."""

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)


@dataclass(frozen=True)
class Speech:
    """A corpus that has passed its checks, with its tokeniser."""

    corpus: Corpus
    """Transcripts normalised; bad items left out."""
    tokenizer: Tokenizer
    report: CheckReport
    normalise: Normaliser
    """What the transcripts went through; other text that is put beside them must go through it too."""
    paired: bool = True
    """False where transcripts were shuffled on purpose: some are then longer than their audio has frames for."""

    def split(self, name: str) -> CutSet:
        """Cuts of a split."""
        return self.corpus.split(name)

    def texts(self, name: str) -> list[str]:
        """Transcripts of a split."""
        return [text_of(cut) or "" for cut in self.split(name)]


def prepare_speech(
    corpus: Corpus,
    text: TextConfig,
    training: TrainingConfig,
    *,
    frame_rate: float,
    tokenizer: Tokenizer | None = None,
    folder: Path | None = None,
    audio_sample: int | None = 2000,
) -> Speech:
    """Normalises transcripts, builds the tokeniser from the training split, and checks every item.

    Args:
        corpus: with a split `train`.
        text: how transcripts become tokens.
        training: for its limits.
        frame_rate: of the recogniser's output; an item needs a frame for each token and one between equal neighbours.
        tokenizer: an existing one, such as a checkpoint's.
        folder: where `skipped.jsonl` goes.
        audio_sample: number of files that are opened, spread over the corpus; None for all.

    Raises:
        DataError: no training split, too many bad items, shared speakers.
    """
    normaliser = text.normaliser()
    corpus = corpus.with_splits({name: _normalised(cuts, normaliser) for name, cuts in corpus.splits.items()})
    if tokenizer is None:
        texts = {name: [text_of(cut) or "" for cut in cuts] for name, cuts in corpus.splits.items()}
        tokenizer = build_tokenizer(text, texts["train"], chain(*texts.values()))
    report = check_corpus(
        corpus,
        tokenizer=tokenizer,
        frame_rate=frame_rate,
        # Every front end here loses one or two to the ends of its windows; an item that is short of one stops training.
        spare_frames=2,
        min_seconds=0.1,
        max_bad_share=training.max_bad_share,
        allow_shared_speakers=training.allow_shared_speakers,
        out_folder=folder,
        audio_sample=audio_sample,
    )
    for warning in report.warnings:
        log.warning("%s", warning)
    if report.skipped:
        counts = Counter(item.reason for item in report.skipped)
        listed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        log.info("left out %d of %d items: %s", len(report.skipped), report.num_items, listed)
    return Speech(report.corpus, tokenizer, report, normaliser)


def build_tokenizer(text: TextConfig, texts: Iterable[str], others: Iterable[str] = ()) -> Tokenizer:
    """Characters, subwords, words or pronunciations of the training transcripts.

    Args:
        text: which.
        texts: of the training split.
        others: that must be encoded too, such as those of further splits; their words are pronounced, and never answered.
    """
    lines = [line for line in texts if line]
    if not lines:
        raise DataError("the training split has no transcripts: nothing to build a vocabulary from")
    if text.tokens in ("char", "word"):
        return Alphabet.build(lines, text.tokens)
    if text.tokens == "phone":
        # The commonest first: of words that sound alike it is the one that is read.
        known = [word for word, _ in Counter(word for line in lines for word in line.split()).most_common()]
        further = {word for line in others for word in line.split()}.difference(known)
        lexicon, more = (lexicon_of(words, text.language, text.lexicon) for words in (known, sorted(further)))
        if not lexicon:
            source = text.lexicon or f"eSpeak NG's rules for '{text.language}'"
            raise DataError(f"{source} has none of the {len(known)} words of the training split, such as '{known[0]}'")
        return Pronounced(lexicon, more=more, language="" if text.lexicon else text.language)
    return Subword.train(lines, vocab_size=text.vocab_size)


def build_recogniser(
    tokenizer: Tokenizer, features: FeatureConfig, encoder: EncoderConfig, augment: AugmentConfig
) -> CtcRecogniser:
    """A recogniser with random weights, and what varies its training data.

    Raises:
        ConfigError: mel bands to be warped, and features that are no mel bands.
    """
    if augment.tract and features.kind != "fbank":
        raise ConfigError(f"augment.tract warps mel bands, and features.kind is {features.kind}: use augment.formant")
    return CtcRecogniser(
        ctc_config(features, encoder),
        tokenizer,
        build_chain(augment),
        build_mask(augment),
        build_warp(augment, features.low_hz, features.high_hz or features.sample_rate / 2),
        # A recording that is played faster may be left with too few frames for its text.
        allow_unalignable=augment.speed > 0,
    )


def token_labels(tokenizer: Tokenizer) -> dict[str, Callable[[Any], Any]]:
    """The labels that a CTC recogniser asks of a batch."""
    return {"tokens": partial(_encode, tokenizer)}


def train_recogniser(
    model: CtcRecogniser,
    speech: Speech,
    config: TrainingConfig,
    folder: str | Path,
    *,
    settings: Any = None,
    seed: int = 0,
    validate: Callable[[], Sequence[Score]] | None = None,
    num_workers: int = 0,
    progress: bool = True,
    accelerator: str = "auto",
    resume: Resume = "auto",
) -> FitResult:
    """Trains in place, going on from whatever the folder holds; see `train.loop.fit`.

    Args:
        model: its feature statistics are gathered here where it has none.
        speech: prepared corpus with a split `train`.
        config: how.
        folder: for checkpoints and logs.
        settings: the whole configuration, which the folder is compared with.
        seed: of the order of items and of all draws.
        validate: gives scores on held-out data.
        num_workers: processes that load audio.
        progress: show a bar.
        accelerator: cpu, cuda, mps or auto.
        resume: "ignore-config" goes on in a folder that was trained with another configuration.
    """
    batch_config = replace(config.batches, sample_rate=model.sample_rate, num_workers=num_workers)
    labels = token_labels(speech.tokenizer)
    if model.lacks_statistics:
        survey = Batches(speech.split("train"), replace(batch_config, num_workers=0), seed=seed, train=True)
        model.fit_normalisation(_until(survey, speech.report.corpus.summary["train"].seconds))

    def batches(rank: int, world_size: int) -> Batches:
        return Batches(
            speech.split("train"), batch_config, labels=labels, seed=seed, rank=rank, world_size=world_size, train=True
        )

    return fit(
        model,
        batches,
        {"model": build_optimizer(config.optim, model)},
        steps=config.steps,
        folder=folder,
        config=replace(config.loop, seed=seed, progress=progress, accelerator=accelerator),
        settings=settings,
        schedules={"model": build_schedule(config.schedule, config.steps)},
        validate=validate,
        diagnose=model.diagnose,
        resume=resume,
    )


def _until(batches: Iterable[Any], seconds: float) -> Iterable[Any]:
    """Batches of an endless source for one epoch of so many seconds."""
    for batch in batches:
        yield batch
        seconds -= batch.seconds
        if seconds <= 0:
            return


def _encode(tokenizer: Tokenizer, cut: Cut) -> list[int]:
    return tokenizer.encode(text_of(cut) or "", item=cut.id)


def _normalised(cuts: CutSet, normalise: Normaliser) -> CutSet:
    return CutSet.from_cuts([cut.map_supervisions(partial(_normalise_one, normalise)) for cut in cuts])


def _normalise_one(normalise: Normaliser, supervision: Any) -> Any:
    return supervision.transform_text(normalise) if supervision.text is not None else supervision
