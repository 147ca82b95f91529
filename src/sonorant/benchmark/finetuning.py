"""CTC fine-tuning of a pre-trained encoder with a few minutes of labels, beside the same network from scratch.

The targets are phones, of the corpus's own alignments or of its words in a dictionary (so that no search stands between the
network and the error rate), or characters. Voices and sentences of the development and test parts are those of the corpus's
splits. Two stages where the encoder first rests: a new output layer on random frames would shake what was learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lhotse import CutSet
from lhotse.utils import fastcopy

from sonorant.benchmark.probe import alignment_of, sample_cuts
from sonorant.benchmark.recognition import evaluate_stage, train_stage
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import checkpoint_digest, load_checkpoint
from sonorant.core.config import at_least, one_of
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.seed import derive
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.data.checks import check_corpus
from sonorant.data.corpora.corpus import Corpus, extra
from sonorant.data.shards import random_order
from sonorant.encoders.checkpoint import KIND, load_trained_encoder
from sonorant.tasks.asr.model import CtcRecogniser, FeatureConfig, ctc_config
from sonorant.tasks.asr.training import Speech, TextConfig, TrainingConfig, prepare_speech
from sonorant.tasks.asr.waveform import FROZEN, WaveformEncoder, WaveformEncoderConfig, freeze, load_into
from sonorant.text.alphabet import Alphabet
from sonorant.text.normalise import Normaliser
from sonorant.text.tokenizer import Tokenizer
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig

__all__ = ["FinetuneConfig", "few_labels", "finetune_stage", "phones_of", "spoken_phones"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How much is labelled, and how it is trained on."""

    minutes: float = 10.0
    """Of labelled audio from the split `train`."""
    targets: Literal["phone", "char"] = "phone"
    """Phones of the alignments (or, where there are none, of the words as a dictionary has them), or characters."""
    silence: tuple[str, ...] = ("sil",)
    """Phones that are no targets."""
    frozen_steps: int = 0
    """Steps in which only the output layer learns, at first (wav2vec 2.0: 10k of them; arXiv:2006.11477, section 4.3)."""
    freeze: Literal["", "front", "encoder"] = "front"
    """What rests throughout: all that lies before the blocks (wav2vec 2.0), or the whole encoder."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=600,
            batches=BatchConfig(max_seconds=60),
            optim=OptimConfig(lr=1e-3, weight_decay=0.01),
            schedule=ScheduleConfig(name="tri_stage", warmup=0.1, hold=0.4, final_scale=0.05),
        )
    )
    """Of the stage in which the encoder learns; the first one has its `frozen_steps`."""
    num_dev: int = 60
    """Utterances that choose the best weights, at most."""
    num_test: int = 200
    """Utterances that are scored, at most."""
    sample_rate: int = 16000
    """Hz, of what the encoder takes."""

    def __post_init__(self) -> None:
        at_least("frozen_steps", self.frozen_steps, 0)
        one_of("freeze", self.freeze, FROZEN)
        one_of("targets", self.targets, ("phone", "char"))
        if self.minutes <= 0:
            raise ConfigError(f"minutes of labels must be above 0, got {self.minutes}")


def few_labels(corpus: Corpus, config: FinetuneConfig, seed: int) -> Corpus:
    """The corpus with so many minutes of its training split, the same for a seed, and parts of the others."""
    seconds, chosen = 0.0, []
    for cut in _in_random_order(corpus.split("train"), seed):
        if seconds >= 60 * config.minutes:
            break
        chosen.append(cut)
        seconds += cut.duration
    parts = {"train": chosen}
    parts |= {n: sample_cuts(corpus.split(n), k, seed) for n, k in (("dev", config.num_dev), ("test", config.num_test))}
    return corpus.with_splits({name: CutSet.from_cuts(cuts) for name, cuts in parts.items()})


def _in_random_order(cuts: Any, seed: int) -> list[Any]:
    rows = list(cuts)
    return [rows[i] for i in random_order(len(rows), derive(seed, "labels")).tolist()]


def spoken_phones(corpus: Corpus, silence: Sequence[str] = ("sil",)) -> Corpus:
    """The corpus with its phones, parted by spaces, in place of its transcripts.

    Raises:
        DataError: the phones of a cut are not known.
    """
    return corpus.with_splits(
        {name: CutSet.from_cuts([_phones_said(cut, silence) for cut in cuts]) for name, cuts in corpus.splits.items()}
    )


def phones_of(cut: Any, silence: Sequence[str] = ("sil",)) -> list[str]:
    """The phones of a cut: of its alignment, else those that a dictionary gives its words, without stress; none if unknown.

    Args:
        cut: its manifest may have had `words`, a list of `{"word": …, "phones": […]}`.
        silence: phones that do not count.
    """
    said = [phone.label for phone in alignment_of(cut, "phone") if phone.label not in silence]
    return said or [phone.rstrip("012") for word in extra(cut, "words", ()) for phone in word.get("phones", ())]


def _phones_said(cut: Any, silence: Sequence[str]) -> Any:
    said = phones_of(cut, silence)
    if not said:
        raise DataError(
            f"item '{cut.id}' has neither a phone alignment nor phones of its words: fine-tune on characters (targets char)"
        )
    first = fastcopy(cut.supervisions[0], text=" ".join(said), alignment=None)
    return fastcopy(cut, supervisions=[first])


def _speech(corpus: Corpus, config: FinetuneConfig, frame_rate: float) -> Speech:
    if config.targets == "char":
        return prepare_speech(corpus, TextConfig(tokens="char"), config.training, frame_rate=frame_rate)
    corpus = spoken_phones(corpus, config.silence)
    texts = [cut.supervisions[0].text or "" for cut in corpus.split("train")]
    tokenizer = Alphabet.build(texts, "phone")
    report = check_corpus(
        corpus,
        tokenizer=tokenizer,
        frame_rate=frame_rate,
        spare_frames=2,
        max_bad_share=config.training.max_bad_share,
        allow_shared_speakers=config.training.allow_shared_speakers,
    )
    # Phones are compared as they are written.
    return Speech(report.corpus, tokenizer, report, Normaliser(numbers=False))


def _recogniser(
    tokenizer: Tokenizer, told: dict[str, Any], sample_rate: int, weights: str, statistics: str, frozen: str
) -> CtcRecogniser:
    """A recogniser on an encoder that a checkpoint tells; with its weights, or with random ones and only its statistics."""
    features = FeatureConfig(kind="waveform", normalise="none", sample_rate=sample_rate, dim=1, hop=1 / sample_rate)
    model = CtcRecogniser(ctc_config(features, WaveformEncoderConfig(encoder=told)), tokenizer)
    assert isinstance(model.encoder, WaveformEncoder)
    if weights:
        load_into(model.encoder, weights)
    elif statistics:
        _load_statistics(model.encoder.inner, statistics)
    freeze(model.encoder, frozen)
    return model


def _load_statistics(encoder: Any, folder: str) -> None:
    """The sums of normalisations, which no training makes."""
    found = load_checkpoint(folder, kind=KIND).weights
    own = encoder.state_dict()
    sums = {name: value for name, value in found.items() if ".normalise." in f".{name}" and name in own}
    encoder.load_state_dict({**own, **sums})


def finetune_stage(
    work: Workspace, arm: str, encoder: str | Path, corpus: Corpus, config: FinetuneConfig, *, scratch: bool = False
) -> list[Score]:
    """Trains and scores a recogniser: `arm/per` with phones as targets, `arm/wer` and `arm/cer` with characters.

    Args:
        work: where.
        arm: name of this arm of the experiment.
        encoder: folder of a pre-trained encoder, see `encoders.checkpoint`.
        corpus: with the splits `train`, `dev` and `test`.
        config: how much and how.
        scratch: the same network with random weights: the baseline. Nothing rests then, and steps that the other spends on
            the output layer alone are spent on all.

    Raises:
        DataError: no alignments where phones are the targets; splits that share speakers.
    """
    told = dict(load_checkpoint(encoder, kind=KIND, verify=False).config)
    module: Any = load_trained_encoder(encoder)
    speech = _speech(few_labels(corpus, config, work.seed), config, float(module.frame_rate))
    training, settings = config.training, {"encoder": told, "from": checkpoint_digest(encoder), "scratch": scratch}
    if scratch:
        training = replace(training, steps=training.steps + config.frozen_steps)
    weights, statistics = ("", str(encoder)) if scratch else (str(encoder), "")
    first = ""
    if config.frozen_steps and not scratch:
        build = partial(
            _recogniser, told=told, sample_rate=config.sample_rate, weights=weights, statistics="", frozen="encoder"
        )
        resting = replace(training, steps=config.frozen_steps)
        first = str(train_stage(work, f"{arm}-head", build, speech, resting, {**settings, "frozen": "encoder"}))
    frozen = "" if scratch else config.freeze
    build = partial(
        _recogniser, told=told, sample_rate=config.sample_rate, weights=weights, statistics=statistics, frozen=frozen
    )
    model = train_stage(work, f"{arm}-ctc", build, speech, training, {**settings, "frozen": frozen}, init_from=first)
    scores = evaluate_stage(work, f"{arm}-ctc", model, speech, training.batches)
    return [
        _renamed(score, arm, config.targets) for score in scores if config.targets == "char" or "/wer" in score.name
    ]


def _renamed(score: Score, arm: str, targets: str) -> Score:
    """Words that are phones make a phone error rate."""
    name = score.name.partition("/")[2]
    return replace(score, name=f"{arm}/{'per' if targets == 'phone' else name}")
