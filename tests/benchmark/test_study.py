"""What recipes of self-supervised systems share: arms, controls, references, and stages that are made once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sonorant.benchmark.protocol import from_waveforms, network, swapped_units
from sonorant.benchmark.study import Deaf, Study, tiny_network, tiny_study, toy_study
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Batch, Units
from sonorant.encoders.catalogue import encoder_preset
from sonorant.encoders.checkpoint import load_trained_encoder
from sonorant.encoders.spectral import OnSpectrumConfig, log_mel_front
from sonorant.objectives.masked_prediction import hubert_objective
from sonorant.objectives.reconstruction import tera_objective
from sonorant.units.store import write_units


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    work = Workspace(folder=tmp_path_factory.mktemp("study"), progress=False, arms=("second",))
    config = tiny_study(toy_study())
    return Study(work, replace(config, protocol=replace(config.protocol, finetune=None)), tiny_network())


def test_an_encoder_of_features_gets_the_front_and_one_of_waveforms_none() -> None:
    waveform = encoder_preset("wav2vec2_tiny")
    assert from_waveforms(waveform, log_mel_front(25)) is waveform
    wrapped = from_waveforms(tiny_network(), log_mel_front(25))
    assert isinstance(wrapped, OnSpectrumConfig)
    encoder = network(wrapped)
    assert encoder.frame_rate == 25
    assert encoder(torch.randn(1, 16000), torch.tensor([16000])).values.shape == (1, 24, 32)


def test_arms_run_when_asked_for_and_are_made_once(study: Study) -> None:
    arms = {"first": tera_objective(), "second": tera_objective(), "third": tera_objective()}
    scores = study.arms(arms, always=["first"])
    assert {score.name.partition("/")[0] for score in scores} == {"first", "second"}
    made = len(study.work.done)
    assert study.arms(arms, always=["first"]) == scores
    assert not any(stage.fresh for stage in study.work.done[made:])


def test_arms_that_differ_in_name_alone_start_from_the_same_weights(study: Study) -> None:
    first, second = (load_trained_encoder(study.pretrain(name, tera_objective())) for name in ("one", "two"))
    for own, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(own, other)


def test_speed_is_what_the_training_measured(study: Study) -> None:
    folder = study.pretrain("one", tera_objective())
    (score,) = study.speed("one", folder)
    assert score.name == "one/audio_rate"
    assert score.value > 0
    assert study.speed("one", folder) == [score]


def test_swapped_units_are_those_of_another_cut(tmp_path: Path) -> None:
    work = Workspace(folder=tmp_path, progress=False)
    given = {f"cut{i}": torch.full((3 + i,), i) for i in range(6)}
    items = [(name, Units(ids[None], torch.tensor([len(ids)]), 25.0, 6), 640 * len(ids)) for name, ids in given.items()]
    store = write_units(tmp_path / "units", iter(items), offset=0.02, sample_rate=16000)
    other = swapped_units(work, store)
    assert other.ids == store.ids
    for name, ids in given.items():
        assert len(other[name]) == len(ids)
        assert (np.asarray(other[name]) != ids.numpy()).all()
        assert other.samples(name) == store.samples(name)
    assert sorted({int(other[name][0]) for name in given}) == list(range(6))
    assert swapped_units(work, store).digest() == other.digest()


def test_the_deaf_hear_noise_of_the_items_own(study: Study) -> None:
    """What is said does not matter, the item's seed and loudness do."""
    heard: list[Batch] = []

    class Listener(torch.nn.Module):
        encoder = torch.nn.Identity()

        def losses(self, batch: Batch) -> dict[str, object]:
            heard.append(batch)
            return {}

    deaf = Deaf(Listener())
    seeds = torch.tensor([3, 4])
    for sound in (torch.full((2, 800), 0.1), -torch.full((2, 800), 0.1)):
        deaf.losses(Batch(sound, torch.tensor([800, 800]), 16000, seeds=seeds))
    assert torch.equal(heard[0].waveform, heard[1].waveform)
    assert heard[0].waveform.std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(heard[0].waveform[0], heard[0].waveform[1])


def test_units_teach_and_agree(study: Study) -> None:
    units = study.units("mel", study.spectrum(log_mel_front(25)), 8)
    names = {score.name for score in study.agreement(units, "mel")}
    assert names == {"mel/pnmi", "mel/phone_purity", "mel/cluster_purity"}
    objective = hubert_objective(8, feature_weight=0.0)
    encoder = load_trained_encoder(study.pretrain("hubert", objective, {"units": units}))
    assert sum(parameter.numel() for parameter in encoder.parameters()) > 1000
