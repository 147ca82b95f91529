"""What the recipes of self-supervised systems share: an objective comes back as it was trained, controls, parts' inputs."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment

from sonorant.benchmark.finetuning import FinetuneConfig, phones_of, spoken_phones
from sonorant.benchmark.probe import ProbeConfig
from sonorant.benchmark.protocol import TINY_CORPUS, check_protocol, toy_protocol
from sonorant.benchmark.settings import tiny_network, tiny_study, tiny_transformer, toy_study
from sonorant.benchmark.study import Deaf, Study, StudyConfig, _told
from sonorant.benchmark.workspace import Workspace
from sonorant.core.config import override
from sonorant.core.errors import DataError
from sonorant.core.types import Batch
from sonorant.data.corpora.corpus import Card, Corpus
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.checkpoint import load_trained_encoder, save_trained_encoder
from sonorant.encoders.cpc import wav2vec_tiny
from sonorant.objectives import future
from sonorant.objectives.future import vq_wav2vec_objective
from sonorant.objectives.token_bert import token_bert_objective
from sonorant.recipes.catalogue import load_recipe, preset

OBJECTIVE = vq_wav2vec_objective(num_steps=2, offset=1, codebook_size=6)


def settings() -> StudyConfig:
    study = tiny_study(toy_study())
    return replace(study, protocol=replace(study.protocol, finetune=None))


def test_codes_of_a_trained_objective_and_bert_over_them(tmp_path: Path) -> None:
    encoder = wav2vec_tiny(dim=16, strides=(5, 4, 4, 4, 2))
    study = Study(Workspace(folder=tmp_path, progress=False), settings(), encoder)
    folder = study.pretrain("codes", OBJECTIVE)
    trained, kept = study.trained(folder, OBJECTIVE), load_trained_encoder(folder)
    for name, value in kept.state_dict().items():
        assert torch.equal(trained.encoder.state_dict()[name], value)
    assert int(trained.steps.count) > 0

    over, codes = study.on_codes("codes", folder, OBJECTIVE, tiny_transformer(input_dim=8))
    module = load_trained_encoder(over)
    for name, value in trained.quantizer.state_dict().items():
        assert torch.equal(module.quantizer.state_dict()[name], value)  # type: ignore[union-attr,operator]
    bert = load_trained_encoder(study.bert("bert", over, codes, token_bert_objective()))
    for part in ("front", "quantizer"):
        before, after = getattr(module, part).state_dict(), getattr(bert, part).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before), "what makes the codes rests"
    assert any(
        not torch.equal(value, module.on_units.state_dict()[name])  # type: ignore[union-attr,operator]
        for name, value in bert.on_units.state_dict().items()  # type: ignore[union-attr,operator]
    ), "the network over the codes learns"


def test_the_deaf_hear_lengths_and_loudness_only() -> None:
    torch.manual_seed(0)
    objective = Deaf(future.build(build_encoder("wav2vec_tiny"), replace(OBJECTIVE, quantizer="none"))).eval()
    lengths, seeds = torch.tensor([8000, 6000]), torch.tensor([3, 4])

    def loss(waveform: torch.Tensor) -> float:
        return objective.losses(Batch(waveform, lengths, 16000, seeds=seeds))["model"].total.item()

    waveform = torch.randn(2, 8000)
    # Another signal of the same loudness.
    signs = torch.where(torch.rand(2, 8000) < 0.5, -1.0, 1.0)
    torch.testing.assert_close(loss(waveform), loss(waveform * signs), rtol=1e-4, atol=0)


def _cut(name: str, turn: dict[str, Any]) -> Any:
    row = {"id": name, "duration": 1.0, "recording_id": name, "channel": 0, "start": 0.0, **turn}
    return MonoCut(name, 0.0, 1.0, 0, supervisions=[SupervisionSegment.from_dict(row)])


WORDS = [{"word": "MARK", "phones": ["M", "AA1", "R", "K"]}, {"word": "IS", "phones": ["IH0", "Z"]}]


def _corpus(**turn: Any) -> Corpus:
    return Corpus(
        "few", {name: CutSet.from_cuts([_cut(name, turn)]) for name in ("train", "dev", "test")}, Card(name="few")
    )


@pytest.mark.parametrize(
    ("turn", "config", "said"),
    [
        ({"speaker": "a", "text": "mark is"}, {}, "no phone alignments.*protocol.probe.phones false"),
        ({"text": "mark is"}, {"probe": ProbeConfig(phones=False)}, "no speakers.*protocol.probe.speakers false"),
        (
            {"speaker": "a", "text": "mark is"},
            {"probe": ProbeConfig(phones=False)},
            "no phones.*protocol.finetune.targets char",
        ),
        (
            {"speaker": "a"},
            {"probe": ProbeConfig(phones=False), "finetune": FinetuneConfig(targets="char")},
            "no transcripts.*protocol.finetune null",
        ),
    ],
)
def test_a_corpus_that_cannot_be_judged_is_refused_before_training(
    turn: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=f"corpus 'few', split 'train': {said}"):
        check_protocol(_corpus(**turn), replace(toy_protocol(), **config))
    check_protocol(
        _corpus(speaker="a", text="mark is", custom={"words": WORDS}),
        replace(toy_protocol(), probe=ProbeConfig(phones=False)),
    )


def test_phones_of_the_dictionary_stand_in_for_an_alignment() -> None:
    cut = _cut("one", {"text": "mark is", "custom": {"words": WORDS}})
    assert phones_of(cut) == ["M", "AA", "R", "K", "IH", "Z"]
    aligned = {"phone": [("sil", 0.0, 0.1), ("m", 0.1, 0.2), ("ah", 0.3, 0.4)]}
    heard = _cut("one", {"text": "mark is", "custom": {"words": WORDS}, "alignment": aligned})
    assert phones_of(heard) == ["m", "ah"], "what was said goes before what a dictionary says"
    with pytest.raises(DataError, match="item 'one' has neither a phone alignment nor phones.*targets char"):
        spoken_phones(_corpus(text="mark").with_splits({"train": CutSet.from_cuts([_cut("one", {"text": "mark"})])}))


def test_a_further_corpus_is_trained_on_and_not_judged(tmp_path: Path) -> None:
    further = TINY_CORPUS.replace("train=24", "train=9").replace("vocab_size=110", "vocab_size=120")
    work = Workspace(folder=tmp_path, progress=False)
    study = Study(work, replace(settings(), unlabelled=further), tiny_network())
    own = study.corpus.split("train")
    assert len(list(study.train)) == len(list(own)) + 9
    assert len(list(study.corpus.split("test"))) == 12


def test_which_arms_are_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: dict[str, bool] = {}
    work = Workspace(folder=tmp_path, progress=False, arms=("a", "deaf"))
    study = Study(work, settings(), tiny_network())
    monkeypatch.setattr(study, "pretrain", lambda arm, objective, **_: tmp_path)
    monkeypatch.setattr(study, "judge", lambda arm, folder, finetune: tuned.update({arm: finetune}) or [])
    study.arms({"main": None, "a": None, "b": None, "deaf": None}, ["main"])
    assert tuned == {"main": True, "a": True, "deaf": False}, "arms that nobody asked for do not run"
    study.arms({"main": None, "a": None}, ["main"], finetuned=[])
    assert tuned == {"main": False, "a": False, "deaf": False}
    study.arms({"main": None, "a": None}, ["main"], finetuned=["a"])
    assert tuned == {"main": False, "a": True, "deaf": False}


def test_a_round_takes_the_study_s_steps_unless_it_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = Study.pretrain

    def noted(self: Study, arm: str, *args: Any, training: Any, **options: Any) -> Path:
        asked.append(training.steps)
        return original(self, arm, *args, training=training, **options)

    monkeypatch.setattr(Study, "pretrain", noted)
    for judging in ("judge", "references", "agreement"):
        monkeypatch.setattr(Study, judging, lambda *_, **__: [])
    config = override(
        preset(load_recipe("hubert"), "tiny"), {"study.training.steps": "3", "study.protocol.finetune": "null"}
    )
    config = replace(config, rounds=(replace(config.rounds[0], steps=1), config.rounds[1]))
    load_recipe("hubert").run(config, Workspace(folder=tmp_path, progress=False))
    assert asked == [1, 3]


def test_a_path_among_a_part_s_options_counts_by_its_content(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("wav2vec_tiny")
    here = save_trained_encoder(encoder, tmp_path / "here")
    there = save_trained_encoder(encoder, tmp_path / "there")
    other = save_trained_encoder(build_encoder("wav2vec_tiny"), tmp_path / "other")
    told = [_told(partial(load_trained_encoder, folder=folder)) for folder in (here, there, other)]
    assert told[0] == told[1] != told[2]
