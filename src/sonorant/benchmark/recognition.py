"""The stages that every recognition recipe goes through: train, language model, evaluate.

Each is a stage of the workspace, so that a recipe which was stopped goes on, and one that is run again with another search
trains nothing anew. Every stage is named by the content of what went into it: recordings, transcripts, weights, text.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.utils import fastcopy

from sonorant.audio.io import write_audio
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import checkpoint_digest, load_checkpoint, load_weights
from sonorant.core.config import at_least, content_hash, to_plain
from sonorant.core.errors import DataError
from sonorant.core.files import atomic_write, file_digest, read_text
from sonorant.core.seed import derive, seed_everything
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import content_of, text_of
from sonorant.data.shards import random_order
from sonorant.data.synthetic.corpus import SyntheticConfig, speak
from sonorant.lm.ngram import train_ngram
from sonorant.tasks.asr.evaluation import Scored, collect, error_rates, greedy_scores, transcripts, tune_beam
from sonorant.tasks.asr.model import CtcRecogniser, load_recogniser, save_recogniser
from sonorant.tasks.asr.package import build_beam, can_be_closed, checkpoint_in, export_recogniser, find_recogniser
from sonorant.tasks.asr.training import Speech, TrainingConfig, train_recogniser
from sonorant.tasks.asr.transcriber import Transcriber
from sonorant.text.tokenizer import Tokenizer
from sonorant.train.checkpoint import restore_weights
from sonorant.train.config import learning_fields
from sonorant.train.launch import launch
from sonorant.train.record import Resume

__all__ = [
    "LmConfig", "evaluate_stage", "lm_stage", "rearranged", "shuffled_transcripts", "spoken_stage", "train_stage",
    "with_more",
]  # fmt: skip


log = logging.getLogger("sonorant")
SPOKEN = SyntheticConfig(tract_spread=0.08, rate_spread=0.15, snr_db=(8.0, 40.0))
"""Wider than the built-in corpus: throats from a child's to a large man's."""


@dataclass(frozen=True, kw_only=True)
class LmConfig:
    """The external language model, trained on the training transcripts, and the search with it."""

    order: int = 3
    """Words of an n-gram; 0 for no language model."""
    text: str = ""
    """File with a sentence a line that takes the place of the training transcripts; normalised as they are."""
    beam_size: int = 50
    """Hypotheses kept after each frame."""
    closed: bool = True
    """Answer only words that the language model knows: a search along their spellings, many times faster than one over any
    string; for vocabularies of characters (subwords are searched openly)."""
    lm_weights: tuple[float, ...] = (0.3, 0.6, 0.9, 1.2, 1.6, 2.2)
    """Weights that are tried on the development data."""
    word_bonuses: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0)
    """Bonuses for each word that are tried on the development data."""
    tune_items: int = 200
    """Development utterances that the tuning looks at, at most."""

    def __post_init__(self) -> None:
        at_least("order", self.order, 0)
        at_least("beam_size", self.beam_size, 1)
        at_least("tune_items", self.tune_items, 1)


@dataclass(frozen=True)
class _Job:
    """What a training process needs; it travels to other processes."""

    build: Callable[[Tokenizer], CtcRecogniser]
    speech: Speech
    training: TrainingConfig
    folder: Path
    settings: dict[str, Any]
    seed: int
    num_workers: int
    progress: bool
    accelerator: str
    init_from: str
    skip: tuple[str, ...]
    resume: Resume


def train_stage(
    work: Workspace,
    arm: str,
    build: Callable[[Tokenizer], CtcRecogniser],
    speech: Speech,
    training: TrainingConfig,
    settings: Any,
    *,
    init_from: str = "",
    skip: Sequence[str] = (),
) -> Path:
    """Trains a recogniser in as many processes as the workspace says; the folder that `load_recogniser` reads.

    Args:
        work: where.
        arm: name of this arm of the experiment.
        build: makes the model from a tokeniser; importable from a module, as it travels to other processes.
        speech: prepared corpus.
        training: how.
        settings: what else the model depends on, such as the configuration of features, encoder and augmentation.
        init_from: recogniser to start from: a checkpoint, an export, or the folder of a run.
        skip: patterns of tensors that are not taken from it.

    Raises:
        CheckpointError: there is nothing to start from, or it does not fit.
    """
    start = checkpoint_in(find_recogniser(init_from)) if init_from else None
    inputs = {
        "settings": to_plain(settings),
        "training": _learnt(training),
        "tokenizer": speech.tokenizer.to_plain(),
        "train": content_of(speech.split("train")),
        "init_from": "" if start is None else checkpoint_digest(start),
        "skip": list(skip),
    }

    def make(folder: Path) -> None:
        job = _Job(
            build, speech, training, folder, inputs, derive(work.seed, "train") % 2**31, work.num_workers, work.progress,
            work.accelerator, "" if start is None else str(start), tuple(skip), work.resume,
        )  # fmt: skip
        launch(_train, work.devices, job)

    return work.stage(f"train-{arm}", make, inputs, resumable=True, collective=True) / "model"


def _learnt(training: TrainingConfig) -> dict[str, Any]:
    """What of a training decides the weights that come out; how often it logs or writes does not."""
    loop = training.loop
    choice = {"validate_every": loop.validate_every, "best": loop.best, "patience": loop.patience}
    return {**to_plain(training), "loop": {**learning_fields(loop), **choice}}


def _train(job: _Job) -> None:
    # Weights first, from the run's seed: the same in every process and on every machine.
    seed_everything(job.seed)
    model = job.build(job.speech.tokenizer)
    model.allow_unalignable = model.allow_unalignable or not job.speech.paired
    if job.init_from:
        load_weights(model, load_checkpoint(job.init_from).weights, skip=job.skip, where=job.init_from)
    validate = None
    if "dev" in job.speech.corpus.splits:
        validate = partial(_validate, model, job.speech.split("dev"), job.training.batches)
    result = train_recogniser(
        model,
        job.speech,
        job.training,
        job.folder / "training",
        settings=job.settings,
        seed=job.seed,
        validate=validate,
        num_workers=job.num_workers,
        progress=job.progress,
        accelerator=job.accelerator,
        resume=job.resume,
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        # The best on the development data, averaged where the training kept an average; the last where none was chosen.
        # In a module of its own: the one that was trained may be compiled, or spread over workers.
        trained = job.build(job.speech.tokenizer)
        step = restore_weights(trained, job.folder / "training")
        extra = {
            "training": {
                "steps": result.step,
                "best_step": step,
                "audio_hours": result.audio_seconds / 3600,
                "audio_seconds_per_second": result.audio_seconds_per_second,
                "corpus": to_plain(job.speech.corpus.card),
            }
        }
        save_recogniser(trained, job.folder / "model", extra)


def _validate(model: CtcRecogniser, cuts: CutSet, batches: BatchConfig) -> list[Score]:
    return greedy_scores(model, cuts, batches, "dev")


def lm_stage(work: Workspace, speech: Speech, config: LmConfig) -> Path | None:
    """Trains the n-gram model; None where the order is 0. The path of its ARPA file."""
    if config.order == 0:
        return None
    texts = map(speech.normalise, read_text(config.text).split("\n")) if config.text else speech.texts("train")
    lines = [line for line in texts if line]
    if not lines:
        raise DataError(f"{config.text or 'the training split'} has no text to train a language model on")

    def make(folder: Path) -> None:
        # KenLM, which the search reads it with, wants two words at least.
        train_ngram(lines, max(2, config.order)).save_arpa(folder / "lm.arpa")

    return work.stage("lm", make, {"order": config.order, "text": content_hash(lines)}) / "lm.arpa"


def evaluate_stage(
    work: Workspace,
    arm: str,
    model: Path,
    speech: Speech,
    batches: BatchConfig,
    lm: Path | None = None,
    config: LmConfig | None = None,
    split: str = "test",
) -> list[Score]:
    """Error rates of the best path, and with a language model whose weight is tuned on the development split.

    Writes `scores.json` and, for each arm, `<arm>.jsonl` with reference, hypothesis and words of every utterance. The arm
    "main" is exported with its language model and search to `export/` of the workspace.
    """
    tuning = "dev" if "dev" in speech.corpus.splits else "train"

    def make(folder: Path) -> None:
        recogniser = load_recogniser(model)
        transcriber = Transcriber(recogniser)
        items = collect(recogniser, speech.split(split), batches)
        scores = _evaluated(folder, arm, items, transcriber, {})
        if lm is not None and config is not None:
            closed = config.closed and can_be_closed(recogniser.tokenizer)
            beam = build_beam(recogniser.tokenizer, lm, closed=closed, beam_size=config.beam_size)
            dev = [*speech.split(tuning)][: config.tune_items]
            tuned = tune_beam(collect(recogniser, dev, batches), beam, config.lm_weights, config.word_bonuses)
            options = {name: tuned[name] for name in ("lm_weight", "word_bonus")}
            scores += _evaluated(folder, f"{arm}_lm", items, transcriber.with_beam(beam), options)
            with atomic_write(folder / "search.json") as file:
                file.write(json.dumps({**tuned, "beam_size": config.beam_size, "closed": closed}).encode())
        with atomic_write(folder / "scores.json") as file:
            file.write(json.dumps([to_plain(score) for score in scores], indent=1).encode())

    inputs: dict[str, Any] = {
        "model": checkpoint_digest(model),
        "split": split,
        "cuts": content_of(speech.split(split)),
    }
    if lm is not None and config is not None:
        inputs |= {"lm": file_digest(lm), "search": to_plain(config), "tuned_on": content_of(speech.split(tuning))}
    folder = work.stage(f"evaluate-{arm}", make, inputs)
    if arm == "main" and work.first:
        search = folder / "search.json"
        export_recogniser(
            model, work.folder / "export", lm=lm, search=json.loads(search.read_text()) if search.is_file() else None
        )
    return [Score(**row) for row in json.loads((folder / "scores.json").read_text())]


def _evaluated(
    folder: Path, arm: str, items: Sequence[Scored], transcriber: Transcriber, options: Mapping[str, float]
) -> list[Score]:
    found = transcripts(items, transcriber, **options)
    with atomic_write(folder / f"{arm}.jsonl") as file:
        for item, transcript in zip(items, found, strict=True):
            row = {
                "id": item.id,
                "speaker": item.speaker,
                "reference": item.reference,
                "hypothesis": transcript.text,
                "words": [list(word) for word in transcript.words],
            }
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    return error_rates(items, [transcript.text for transcript in found], arm)


def spoken_stage(work: Workspace, lines: Sequence[tuple[str, str]]) -> CutSet:
    """Texts said by synthetic voices at a reader's pace, each utterance with its own pitch, rate, throat, room and noise.

    Args:
        work: where.
        lines: text and name of a voice of each utterance; another name is another voice.

    Raises:
        MissingPackage: the extra `synthetic` is not installed.
    """

    def make(folder: Path) -> None:
        log.info("saying %d texts in synthetic voices", len(lines))
        for number, (text, voice) in enumerate(lines):
            spoken = speak(text, voice, seed=derive(work.seed, "spoken", number), style="slow", config=SPOKEN)
            write_audio(folder / f"{number}.flac", spoken.waveform, spoken.sample_rate)

    folder = work.stage("spoken", make, [to_plain(SPOKEN), [list(line) for line in lines]])
    return CutSet.from_cuts(_said(folder / f"{number}.flac", *line) for number, line in enumerate(lines))


def _said(path: Path, text: str, voice: str) -> MonoCut:
    name = f"spoken-{path.stem}"
    recording = Recording.from_file(path, recording_id=name)
    said = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker=f"voice-{voice}")
    return MonoCut(name, 0.0, recording.duration, 0, [said], recording=recording)


def rearranged(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """So many new texts with the same words as often: lengths of the given ones, words in any order.

    A recogniser that hears them learns how words sound and are spelt, and cannot learn the given sentences by heart.

    >>> rearranged(["a b", "c"], 3, seed=0)
    ['c b', 'a', 'b a']
    """
    words, found = [word for text in texts for word in text.split()], list[str]()
    for turn in count_from(0):
        order = iter(random_order(len(words), derive(seed, "rearrange", turn)))
        for text in texts:
            if len(found) == count or not words:
                return found
            found.append(" ".join(words[next(order)] for _ in text.split()))
    return found


def with_more(speech: Speech, cuts: CutSet) -> Speech:
    """The same with further cuts in the training split; what is tuned and tested on stays."""
    more = CutSet.from_cuts([*speech.split("train"), *cuts])
    corpus = speech.corpus.with_splits({**speech.corpus.splits, "train": more})
    return replace(speech, corpus=corpus, report=replace(speech.report, corpus=corpus))


def shuffled_transcripts(speech: Speech, seed: int) -> Speech:
    """The control that must fail: the same audio, the same transcripts, wrongly paired in training."""
    cuts = list(speech.split("train"))
    texts = [text_of(cut) or "" for cut in cuts]
    order = random_order(len(cuts), derive(seed, "shuffle")).tolist()
    paired = [cut.map_supervisions(partial(_retold, cut.supervisions[0].id, texts[i])) for cut, i in zip(cuts, order)]
    corpus = speech.corpus.with_splits({**speech.corpus.splits, "train": CutSet.from_cuts(paired)})
    return replace(speech, corpus=corpus, report=replace(speech.report, corpus=corpus), paired=False)


def _retold(first: str, text: str, supervision: Any) -> Any:
    """The first turn says the whole text, any other nothing."""
    return fastcopy(supervision, text=text if supervision.id == first else None)
