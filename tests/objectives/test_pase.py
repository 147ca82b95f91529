"""PASE's workers: what they say and of which audio, that items keep to themselves, and that they learn."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.contracts.objectives import batch_of, check_objective, item_of
from torch import nn

from sonorant.audio.augment.speed import Speed
from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Batch, Features
from sonorant.encoders.catalogue import build_encoder
from sonorant.objectives.pase import (
    Pase,
    PaseObjectiveConfig,
    build,
    pase_distortions,
    pase_objective,
    pase_toy_objective,
)
from sonorant.objectives.workers import TARGETS, PairWorker, Regressor, WaveformWorker

TINY: dict[str, Any] = {"hidden_dim": 16, "num_pairs": 8, "stretches": (1, 10)}
DECODER: dict[str, Any] = {"channels": (8, 8), "strides": (16, 10), "kernel_size": 32}


def make(ids: Sequence[str], extra: int = 0) -> Batch:
    return batch_of(tuple(ids), extra, sample_rate=16000, seconds=(0.15, 0.25))


def built(config: PaseObjectiveConfig, distort: Any = None) -> Pase:
    encoder = build_encoder(
        "pase_tiny", num_filters=8, filter_size=51, channels=(8, 8, 16, 16), recurrent_dim=16, dim=16
    )
    objective = Pase(encoder, config, distort)
    objective.fit_targets([make([f"fit{index}" for index in range(4)])])
    return objective


def test_contract() -> None:
    config = pase_objective(regressors=("fbank", "mfcc"), deltas=1, **TINY, **DECODER)
    # Pairs are told apart against another item of the batch, so the items alone are something else.
    check_objective(lambda: built(config), make, additive=False, steps=30, fall=0.9)


def test_contract_of_regressors_alone() -> None:
    config = pase_toy_objective(**{**TINY, "stretches": ()})
    # Three mean squares of normalised features.
    check_objective(lambda: built(config), make, chance=(1.5, 6.0), steps=30, fall=0.8)


@pytest.mark.parametrize("name", TARGETS)
def test_every_front_speaks_at_a_hundred_frames_a_second(name: str) -> None:
    worker = Regressor(name, 8, 16000, hidden_dim=4, deltas=0, reach=1)
    batch = make(("a", "b"))
    made = worker.features(batch.waveform, batch.lengths)
    assert made.frame_rate == 100
    expected = -(-batch.lengths // 160)
    assert ((made.lengths - expected).abs() <= 1).all()
    worker.update(batch.waveform, batch.lengths)
    frames = Features(torch.zeros(2, int(expected.max()), 8), expected, 100.0)
    nn.init.zeros_(worker.network[-1].bias)
    # Nothing said of features of variance 1: a mean square of about 1, on the audio that made the statistics.
    with torch.no_grad():
        mean = worker(frames, batch.waveform, batch.lengths).sum() / expected.sum()
    assert float(mean) == pytest.approx(1.0, abs=0.25)


@torch.no_grad()
def test_regression_by_hand() -> None:
    torch.manual_seed(0)
    worker = Regressor("fbank", 4, 16000, hidden_dim=4, deltas=1, reach=2)
    batch = item_of(make(("a",)), 0)
    worker.update(batch.waveform, batch.lengths)
    target = worker.normalise(worker.features(batch.waveform, batch.lengths)).values[0]
    count = len(target)
    frames = Features(torch.randn(1, count, 4), torch.tensor([count]), 100.0)
    total = 0.0
    for frame in range(count):
        said = worker.network(frames.values[0, frame]).view(5, 80)
        places = [place for place in range(5) if 0 <= frame + place - 2 < count]
        total += sum(float((said[p] - target[frame + p - 2]).square().mean()) for p in places) / len(places)
    assert float(worker(frames, batch.waveform, batch.lengths)[0]) == pytest.approx(total, rel=1e-4)


def test_samples_of_an_item_do_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    worker = WaveformWorker(4, (6, 5), (4, 10), 12, 3)
    values = torch.randn(1, 9, 4)
    alone = worker.said(Features(values, torch.tensor([9]), 100.0))
    padded = nn.functional.pad(values, (0, 0, 0, 7), value=5.0)
    whole = worker.said(Features(padded, torch.tensor([9]), 100.0))
    assert alone.shape == (1, 9 * 40)
    torch.testing.assert_close(whole[:, : 9 * 40], alone)


def test_clean_audio_is_the_target() -> None:
    """What the encoder hears is distorted, what is said is not."""
    torch.manual_seed(0)
    heard = []

    def silence(batch: Batch) -> Batch:
        heard.append(batch)
        return replace(batch, waveform=torch.zeros_like(batch.waveform))

    objective = built(pase_toy_objective(**{**TINY, "stretches": ()}), silence).eval()
    clean = built(pase_toy_objective(**{**TINY, "stretches": ()})).eval()
    clean.load_state_dict(objective.state_dict())
    batch = make(("a", "b"))
    with torch.no_grad():
        loss, other = objective.losses(batch)["model"], clean.losses(batch)["model"]
        empty = replace(batch, waveform=torch.zeros_like(batch.waveform))
        frames = clean.encoder(empty.waveform, empty.lengths)
        expected = sum(w(frames, batch.waveform, batch.lengths).sum() for w in clean.regressors.values())
    assert len(heard) == 1
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss.total) != pytest.approx(float(other.total), rel=1e-5)


def test_the_published_distortions() -> None:
    chain = pase_distortions()
    assert [step.prob for step in chain.steps] == [0.5, 0.4, 0.35, 0.25, 0.2, 0.2, 0.1]
    batch = make([f"d{index}" for index in range(12)])
    heard = chain(batch)
    assert torch.equal(heard.lengths, batch.lengths)
    changed = (heard.waveform != batch.waveform).any(1)
    # 1 − (1 − .5)(1 − .4)… = 0.88 of the items are changed.
    assert 7 <= int(changed.sum()) <= 12
    assert not any(step.prob for step in pase_distortions(strength=0.0).steps)


def test_pairs_are_told_apart_when_items_differ() -> None:
    torch.manual_seed(0)
    worker = PairWorker(4, stretch=3, num_pairs=8, hidden_dim=16)
    optimizer = torch.optim.Adam(worker.parameters(), lr=0.01)
    for step in range(150):
        means = 3 * torch.randn(8, 1, 4)
        frames = Features(means + 0.3 * torch.randn(8, 20, 4), torch.randint(5, 21, (8,)), 100.0)
        seeds = torch.arange(8) + 100 * step
        loss = worker(frames, torch.arange(8).roll(1), seeds).sum() / frames.lengths.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.35 < math.log(2)


@torch.no_grad()
def test_stretches_are_means() -> None:
    """Frames that number themselves: a mean over three is the middle one."""
    worker = PairWorker(1, stretch=3, num_pairs=50)
    frames = Features(torch.arange(40.0).view(1, 40, 1).repeat(2, 1, 1), torch.tensor([12, 2]), 100.0)
    drawn = worker._drawn(frames, torch.tensor([1, 2]), "x")[..., 0]
    assert sorted(set(drawn[0].round(decimals=4).tolist())) == [float(n) for n in range(1, 11)]
    assert drawn[1].tolist() == [0.5] * 50


def test_alone_there_is_nothing_to_tell_apart() -> None:
    objective = built(pase_objective(regressors=(), waveform=False, **TINY))
    loss = objective.losses(make(("a",)))["model"]
    assert float(loss.total.detach()) == 0
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_what_cannot_be_is_refused() -> None:
    encoder = build_encoder("pase_tiny")
    with pytest.raises(ConfigError, match="did you mean 'prosody'"):
        pase_objective(regressors=("prosodie",))
    with pytest.raises(ConfigError, match="at least one worker"):
        pase_objective(regressors=(), waveform=False, stretches=())
    with pytest.raises(ConfigError, match="hop of 160 samples"):
        Pase(encoder, pase_objective(strides=(4, 4, 4)))
    with pytest.raises(ConfigError, match="100 frames a second, the encoder at 200"):
        Pase(build_encoder("pase_tiny", strides=(10, 4, 2, 1)), pase_objective())
    with pytest.raises(ConfigError, match="parity"):
        WaveformWorker(4, (4,), (5,), 30)
    with pytest.raises(DataError, match="no audio"):
        Pase(encoder, pase_objective()).fit_targets([])
    with pytest.raises(ConfigError, match="Cmvn holds no statistics yet"):
        Pase(encoder, pase_toy_objective()).losses(make(("a", "b")))
    hasty = built(pase_toy_objective(), Speed(factors=(1.1,)))
    with pytest.raises(ConfigError, match=r"Pase compares frame with frame(.|\n)*take out speed"):
        hasty.losses(make(("a", "b")))


def test_statistics_of_all_workers_serve_those_with_fewer() -> None:
    full = built(pase_toy_objective(**TINY))
    fewer = replace(pase_toy_objective(**TINY), regressors=("mfcc",))
    torch.manual_seed(0)
    given = build(full.encoder, fewer, statistics=full.target_statistics())
    own = full.regressors["mfcc"].normalise, given.regressors["mfcc"].normalise
    assert own[0].count == own[1].count > 0  # type: ignore[union-attr]
    assert torch.equal(own[0].mean, own[1].mean)  # type: ignore[union-attr,arg-type]
    assert torch.equal(own[0].std, own[1].std)  # type: ignore[union-attr,arg-type]
    with pytest.raises(DataError, match=r"no statistics for the workers' features.*gammatone"):
        build(full.encoder, replace(fewer, regressors=("gammatone",)), statistics=given.target_statistics())
