"""The stages that every recognition recipe goes through: train, language model, evaluate.

Each is a stage of the workspace, so that a recipe which was stopped goes on, and one that is run again with another search
trains nothing anew.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet

from sonorant.benchmark.workspace import Workspace
from sonorant.core.config import at_least, to_plain
from sonorant.core.files import atomic_write
from sonorant.core.seed import derive, seed_everything
from sonorant.core.types import Score
from sonorant.data.batches import BatchConfig
from sonorant.lm.ngram import train_ngram
from sonorant.tasks.asr.evaluation import Scored, collect, error_rates, greedy_scores, transcripts, tune_beam
from sonorant.tasks.asr.model import CtcRecogniser, load_recogniser, save_recogniser
from sonorant.tasks.asr.package import build_beam, can_be_closed, export_recogniser
from sonorant.tasks.asr.training import Speech, TrainingConfig, train_recogniser
from sonorant.tasks.asr.transcriber import Transcriber
from sonorant.text.tokenizer import Tokenizer
from sonorant.train.launch import launch

__all__ = ["LmConfig", "evaluate_stage", "lm_stage", "shuffled_transcripts", "train_stage"]


@dataclass(frozen=True, kw_only=True)
class LmConfig:
    """The external language model, trained on the training transcripts, and the search with it."""

    order: int = 3
    """Words of an n-gram; 0 for no language model."""
    text: str = ""
    """File with a sentence a line that takes the place of the training transcripts."""
    beam_size: int = 50
    """Hypotheses kept after each frame."""
    closed: bool = True
    """Answer only words that the language model knows: a search along their spellings, many times faster than one over any
    string; for vocabularies of characters (subwords are searched openly)."""
    lm_weights: tuple[float, ...] = (0.3, 0.6, 0.9, 1.2, 1.6)
    """Weights that are tried on the development data."""
    word_bonuses: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0)
    """Bonuses for each word that are tried on the development data."""
    tune_items: int = 200
    """Development utterances that the tuning looks at, at most."""

    def __post_init__(self) -> None:
        at_least("order", self.order, 0)
        at_least("beam_size", self.beam_size, 1)


@dataclass(frozen=True)
class _Job:
    """What a training process needs; it travels to other processes."""

    build: Callable[[Tokenizer], CtcRecogniser]
    speech: Speech
    training: TrainingConfig
    folder: Path
    settings: Any
    seed: int
    num_workers: int
    progress: bool
    accelerator: str
    init_from: str
    skip: tuple[str, ...]


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
        settings: everything that the result depends on.
        init_from: folder of a recogniser to start from.
        skip: patterns of tensors that are not taken from it.
    """
    inputs = [to_plain(settings), speech.tokenizer.to_plain(), _content(speech.split("train")), init_from, list(skip)]

    def make(folder: Path) -> None:
        job = _Job(
            build, speech, training, folder, settings, derive(work.seed, "train") % 2**31, work.num_workers, work.progress,
            work.accelerator, init_from, tuple(skip),
        )  # fmt: skip
        launch(_train, work.devices, job)

    return work.stage(f"train-{arm}", make, inputs, resumable=True, collective=True) / "model"


def _train(job: _Job) -> None:
    # Weights first, from the run's seed: the same in every process and on every machine.
    seed_everything(job.seed)
    model = job.build(job.speech.tokenizer)
    if job.init_from:
        from sonorant.core.checkpoint import load_checkpoint, load_weights

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
    )
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        extra = {
            "training": {
                "steps": result.step,
                "audio_hours": result.audio_seconds / 3600,
                "audio_seconds_per_second": result.audio_seconds_per_second,
                "corpus": to_plain(job.speech.corpus.card),
            }
        }
        save_recogniser(model, job.folder / "model", extra)


def _validate(model: CtcRecogniser, cuts: CutSet, batches: BatchConfig) -> list[Score]:
    return greedy_scores(model, cuts, batches, "dev")


def lm_stage(work: Workspace, speech: Speech, config: LmConfig) -> Path | None:
    """Trains the n-gram model; None where the order is 0. The path of its ARPA file."""
    if config.order == 0:
        return None
    lines = [line for line in speech.texts("train") if line]
    if config.text:
        lines = [line.strip() for line in Path(config.text).read_text(encoding="utf-8").splitlines() if line.strip()]

    def make(folder: Path) -> None:
        # KenLM, which the search reads it with, wants two words at least.
        train_ngram(lines, max(2, config.order)).save_arpa(folder / "lm.arpa")

    return work.stage("lm", make, [config.order, lines]) / "lm.arpa"


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

    def make(folder: Path) -> None:
        recogniser = load_recogniser(model)
        transcriber = Transcriber(recogniser)
        items = collect(recogniser, speech.split(split), batches)
        scores = _evaluated(folder, arm, items, transcriber, {})
        if lm is not None and config is not None:
            closed = config.closed and can_be_closed(recogniser.tokenizer)
            beam = build_beam(recogniser.tokenizer, lm, closed=closed, beam_size=config.beam_size)
            dev = [*speech.split("dev" if "dev" in speech.corpus.splits else "train")][: config.tune_items]
            tuned = tune_beam(collect(recogniser, dev, batches), beam, config.lm_weights, config.word_bonuses)
            options = {name: tuned[name] for name in ("lm_weight", "word_bonus")}
            scores += _evaluated(folder, f"{arm}_lm", items, transcriber.with_beam(beam), options)
            with atomic_write(folder / "search.json") as file:
                file.write(json.dumps({**tuned, "beam_size": config.beam_size, "closed": closed}).encode())
        with atomic_write(folder / "scores.json") as file:
            file.write(json.dumps([to_plain(score) for score in scores], indent=1).encode())

    lm_key = _digest(lm) if lm is not None else ""
    inputs = [
        arm,
        str(model.parent.name),
        split,
        lm_key,
        to_plain(config) if config else None,
        _content(speech.split(split)),
    ]
    folder = work.stage(f"evaluate-{arm}", make, inputs)
    if arm == "main":
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


def shuffled_transcripts(speech: Speech, seed: int) -> Speech:
    """The control that must fail: the same audio, the same transcripts, wrongly paired in training."""
    from dataclasses import replace

    import numpy as np

    cuts = list(speech.split("train"))
    order = np.random.default_rng(derive(seed, "shuffle")).permutation(len(cuts))
    texts = [cuts[i].supervisions[0].text for i in order]
    paired = [_with_text(cut, text) for cut, text in zip(cuts, texts, strict=True)]
    corpus = speech.corpus.with_splits({**speech.corpus.splits, "train": CutSet.from_cuts(paired)})
    return replace(speech, corpus=corpus, report=replace(speech.report, corpus=corpus))


def _with_text(cut: Any, text: str) -> Any:
    return cut.map_supervisions(partial(_retext, text))


def _retext(text: str, supervision: Any) -> Any:
    return supervision.transform_text(lambda _: text)


def _content(cuts: CutSet) -> str:
    """What a result on these cuts depends on, in short: ids, durations and transcripts."""
    import hashlib

    digest = hashlib.sha256()
    for cut in cuts:
        texts = " ".join(s.text or "" for s in cut.supervisions)
        digest.update(f"{cut.id}\t{cut.duration:.4f}\t{texts}\n".encode())
    return digest.hexdigest()[:16]


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
