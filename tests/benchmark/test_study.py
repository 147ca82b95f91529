"""What the recipes of self-supervised systems share: an objective comes back as it was trained, controls, parts' inputs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sonorant.benchmark.study import Deaf, Study, StudyConfig, _told, tiny_study, tiny_transformer, toy_study
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Batch
from sonorant.encoders.catalogue import build_encoder
from sonorant.encoders.checkpoint import load_trained_encoder, save_trained_encoder
from sonorant.encoders.cpc import wav2vec_tiny
from sonorant.objectives import future
from sonorant.objectives.future import vq_wav2vec_objective
from sonorant.objectives.token_bert import token_bert_objective

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


def test_a_path_among_a_part_s_options_counts_by_its_content(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("wav2vec_tiny")
    here = save_trained_encoder(encoder, tmp_path / "here")
    there = save_trained_encoder(encoder, tmp_path / "there")
    other = save_trained_encoder(build_encoder("wav2vec_tiny"), tmp_path / "other")
    told = [_told(partial(load_trained_encoder, folder=folder)) for folder in (here, there, other)]
    assert told[0] == told[1] != told[2]
