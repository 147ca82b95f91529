import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from tests.units.corpora import tone_corpus
from torch import nn
from torch.nn import functional as F

from sonorant.benchmark import pretraining
from sonorant.benchmark.finetuning import FinetuneConfig, few_labels, finetune_stage, spoken_phones
from sonorant.benchmark.pretraining import (
    PretrainConfig,
    agreement,
    cluster_stage,
    fresh_encoder,
    load_kmeans,
    pretrain_stage,
    statistics_stage,
    units_stage,
)
from sonorant.benchmark.workspace import Workspace
from sonorant.core.checkpoint import load_checkpoint
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.lengths import valid_mask
from sonorant.core.types import Batch, Loss, Units
from sonorant.data.batches import BatchConfig
from sonorant.data.corpora.corpus import Corpus, text_of
from sonorant.encoders.checkpoint import load_trained_encoder
from sonorant.encoders.conformer import conformer_tiny
from sonorant.encoders.spectral import OnSpectrum, OnSpectrumConfig, mfcc_front, on_spectrum
from sonorant.tasks.asr.training import TrainingConfig
from sonorant.train.config import TrainConfig
from sonorant.train.optim import OptimConfig
from sonorant.train.schedule import ScheduleConfig
from sonorant.units.checks import check_units
from sonorant.units.store import UnitStore, write_units
from sonorant.units.tokenizer import UnitTokenizer

ENCODER = on_spectrum(
    conformer_tiny(num_layers=1, dim=32, ffn_dim=32, num_heads=2, subsampling="stack", factor=4, position="rotary"),
    dim=20,
)
LOOP = TrainConfig(log_every=100, tensorboard=False, progress=False, checkpoint_every=4)
TRAINING = PretrainConfig(
    steps=12,
    batches=BatchConfig(max_seconds=8),
    optim=OptimConfig(lr=3e-3),
    schedule=ScheduleConfig(warmup=0.2),
    loop=LOOP,
)


class Guess(nn.Module):
    """The unit of each frame from what the encoder makes of it, nothing hidden: an objective in ten lines."""

    def __init__(self, config: OnSpectrumConfig, front: Path, num_units: int) -> None:
        super().__init__()
        self.encoder = fresh_encoder(config, front)
        self.head = nn.Linear(self.encoder.dim, num_units)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        frames = self.encoder(batch.waveform, batch.lengths)
        assert batch.labels["units_lengths"].tolist() == frames.lengths.tolist()
        inside = valid_mask(frames.lengths, frames.values.shape[1])
        wrong = F.cross_entropy(self.head(frames.values[inside]), batch.labels["units"][inside], reduction="sum")
        return {"model": Loss(wrong, inside.sum())}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones"), train=24, dev=8, test=8)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(folder=tmp_path / "run", progress=False)


@pytest.fixture(scope="module")
def encoder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was pre-trained."""
    return trained(Workspace(folder=tmp_path_factory.mktemp("run"), progress=False), corpus)


def first_units(work: Workspace, corpus: Corpus) -> UnitStore:
    """Clusters of cepstra at 100 frames a second."""
    mfcc = load_trained_encoder(statistics_stage(work, mfcc_front(), corpus.split("train")))
    clusters = load_kmeans(cluster_stage(work, "round1", mfcc, corpus.split("train"), 8))
    return units_stage(work, "round1", UnitTokenizer(mfcc, clusters), corpus.split("train"))


def trained(work: Workspace, corpus: Corpus, training: PretrainConfig = TRAINING, **options: Any) -> Path:
    front = statistics_stage(work, ENCODER.front, corpus.split("train"))
    labels = {"units": first_units(work, corpus)}
    build = partial(Guess, ENCODER, front, 8)
    return pretrain_stage(
        work, "round1", build, corpus.split("train"), training, labels, {"encoder": ENCODER}, **options
    )


def test_features_clusters_units_training_and_a_second_round(corpus: Corpus, work: Workspace) -> None:
    store = first_units(work, corpus)
    scores = {score.name: score for score in agreement(store, corpus.split("train"), "mfcc", silence=("sil",))}
    assert scores["mfcc/pnmi"].value > 0.5
    assert scores["mfcc/phone_purity"].value > 0.6
    encoder = load_trained_encoder(trained(work, corpus))
    assert isinstance(encoder, OnSpectrum)
    told = load_checkpoint(trained(work, corpus)).extra["training"]
    assert told["steps"] == 12
    assert told["losses"]["model"] < 2.0, "of eight units, log 8 is chance"
    clusters = load_kmeans(cluster_stage(work, "round2", encoder, corpus.split("train"), 6, layer=1))
    second = units_stage(work, "round2", UnitTokenizer(encoder, clusters, layer=1), corpus.split("train"))
    assert (second.frame_rate, second.num_units) == (25.0, 6)
    again = [stage.name for stage in work.done if stage.fresh]
    assert len(again) == len(set(again)) == 7, "each stage was made once"


def test_a_stopped_training_goes_on_to_the_same_weights(
    corpus: Corpus, work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_checkpoint(trained(work, corpus)).weights
    other = replace(work, folder=tmp_path / "other", done=[])
    losses, calls = Guess.losses, []

    def failing(self: Guess, batch: Batch) -> dict[str, Loss]:
        calls.append(batch.ids)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return losses(self, batch)

    monkeypatch.setattr(Guess, "losses", failing)
    with pytest.raises(KeyboardInterrupt):
        trained(other, corpus)
    monkeypatch.undo()
    resumed = load_checkpoint(trained(other, corpus)).weights
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_training_is_named_by_what_changes_its_weights(corpus: Corpus, work: Workspace) -> None:
    first = trained(work, corpus)
    quiet = replace(TRAINING, loop=replace(LOOP, log_every=1), batches=replace(TRAINING.batches, memory_mb=50.0))
    assert trained(work, corpus, quiet) == first
    assert trained(work, corpus, replace(TRAINING, steps=2)) != first
    shorter = corpus.with_splits({**corpus.splits, "train": corpus.split("train").subset(first=20)})
    assert trained(work, shorter, replace(TRAINING, steps=2)) != first


def test_the_best_weights_are_kept_where_something_judges_them(corpus: Corpus, work: Workspace) -> None:
    from sonorant.core.types import Score

    values = iter([3.0, 1.0, 2.0])
    seen = []

    def validate(objective: nn.Module) -> list[Score]:
        seen.append(objective.training)
        return [Score("dev/loss", next(values), "lower")]

    loop = replace(LOOP, validate_every=2)
    path = trained(work, corpus, replace(TRAINING, steps=6, loop=loop), validate=validate)
    assert load_checkpoint(path).extra["training"]["kept_step"] == 4
    assert seen == [False] * 3


def test_clusters_go_on_after_the_last_whole_pass(
    corpus: Corpus, work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    mfcc = load_trained_encoder(statistics_stage(work, mfcc_front(), corpus.split("train")))
    real, passes = pretraining.fit_kmeans, []

    def stopped(frames: Any, *args: Any, **options: Any) -> Any:
        def once() -> Any:
            passes.append(1)
            if len(passes) == 2:
                raise KeyboardInterrupt
            return frames()

        return real(once, *args, **options)

    options: dict[str, Any] = {"sample_size": 64, "passes": 3, "tolerance": 0.0}
    monkeypatch.setattr(pretraining, "fit_kmeans", stopped)
    with pytest.raises(KeyboardInterrupt):
        cluster_stage(work, "a", mfcc, corpus.split("train"), 8, **options)
    path = cluster_stage(work, "a", mfcc, corpus.split("train"), 8, **options)
    assert len(passes) == 2 + 3, "one pass for the sample, of which none is read again"
    assert sorted(file.name for file in path.iterdir()) == ["checkpoint.json", "model.safetensors"]


def test_labels_that_cannot_teach_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    cuts = list(corpus.split("train"))

    def store(rate: float, units: int) -> UnitStore:
        rows = []
        for cut in cuts:
            count = int(cut.duration * rate)
            rows.append(
                (cut.id, Units(torch.arange(count)[None] % units, torch.tensor([count]), 50.0, 40), cut.num_samples)
            )
        return write_units(tmp_path / "units", rows, offset=0.0125, sample_rate=16000)

    check_units(store(50.0, 40), cuts)
    with pytest.raises(DataError, match="perplexity of 1.0 with 40"):
        check_units(store(50.0, 1), cuts)
    with pytest.raises(DataError, match="is the frame rate right"):
        check_units(store(25.0, 40), cuts)


# --- fine-tuning ------------------------------------------------------------------------------------------------------

FINETUNE = FinetuneConfig(
    minutes=0.2,
    frozen_steps=4,
    training=TrainingConfig(
        steps=50,
        batches=BatchConfig(max_seconds=8),
        optim=OptimConfig(lr=5e-3),
        schedule=ScheduleConfig(warmup=0.1),
        loop=LOOP,
    ),
)


def test_few_labels_fine_tune_an_encoder_and_the_same_network_from_scratch(
    corpus: Corpus, work: Workspace, encoder: Path
) -> None:
    (score,) = finetune_stage(work, "ours", encoder, corpus, FINETUNE)
    assert score.name == "ours/per"
    assert score.value < 0.6
    assert score.num_items == 8
    names = [stage.name for stage in work.done[-3:]]
    assert names == ["train-ours-head", "train-ours-ctc", "evaluate-ours-ctc"]
    (baseline,) = finetune_stage(work, "scratch", encoder, corpus, FINETUNE, scratch=True)
    assert baseline.name == "scratch/per"
    stored = load_checkpoint(work.done[-2].folder / "model").weights
    ours = load_checkpoint(encoder).weights
    assert torch.equal(stored["encoder.inner.front.normalise.total"], ours["front.normalise.total"])
    assert finetune_stage(work, "ours", encoder, corpus, FINETUNE) == [score]
    assert not work.done[-1].fresh


def test_what_rests_does_not_move(corpus: Corpus, work: Workspace, encoder: Path) -> None:
    training = replace(FINETUNE.training, steps=3)
    finetune_stage(
        work, "still", encoder, corpus, replace(FINETUNE, training=training, freeze="encoder", frozen_steps=0)
    )
    before, after = load_checkpoint(encoder).weights, load_checkpoint(work.done[-2].folder / "model").weights
    assert not [name for name in before if not torch.equal(before[name], after[f"encoder.inner.{name}"])]
    finetune_stage(work, "front", encoder, corpus, replace(FINETUNE, training=training, freeze="front", frozen_steps=0))
    after = load_checkpoint(work.done[-2].folder / "model").weights
    moved = {name for name in before if not torch.equal(before[name], after[f"encoder.inner.{name}"])}
    assert moved
    assert not [name for name in moved if not name.startswith("encoder.blocks.")]


def test_labels_are_few_and_phones_are_what_was_said(corpus: Corpus) -> None:
    few = few_labels(corpus, replace(FINETUNE, minutes=0.1), 0)
    seconds = sum(cut.duration for cut in few.split("train"))
    assert 6 <= seconds < 6 + 1.2
    assert [cut.id for cut in few.split("train")] == [
        cut.id for cut in few_labels(corpus, replace(FINETUNE, minutes=0.1), 0).split("train")
    ]
    for cut, said in zip(few.split("test"), spoken_phones(few).split("test"), strict=True):
        assert (text_of(said) or "").replace(" ", "") == (text_of(cut) or "").replace(" ", "")
    bare = corpus.with_splits({"train": CutSet.from_cuts([cut.drop_alignments() for cut in corpus.split("train")])})
    with pytest.raises(DataError, match="neither a phone alignment nor phones of its words.*targets char"):
        spoken_phones(bare)
    with pytest.raises(ConfigError, match="minutes"):
        replace(FINETUNE, minutes=0.0)


def test_characters_are_targets_too(corpus: Corpus, work: Workspace, encoder: Path) -> None:
    config = replace(FINETUNE, targets="char", frozen_steps=0, training=replace(FINETUNE.training, steps=2))
    assert [score.name for score in finetune_stage(work, "main", encoder, corpus, config)] == ["main/wer", "main/cer"]
    assert json.loads((work.done[-1].folder / "scores.json").read_text())[0]["num_items"] == 8
