"""What single quantisers promise beyond the contract."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.nn.quantize.two_processes import frames as shared_frames
from tests.nn.quantize.two_processes import results
from torch import Tensor

from sonorant.core.errors import ConfigError, DataError
from sonorant.core.types import Codes
from sonorant.nn.quantize.catalogue import build_quantizer
from sonorant.nn.quantize.compound import fit_kmeans_tree, fit_product_kmeans, fit_residual_kmeans
from sonorant.nn.quantize.gumbel import GumbelCodebook, gumbel_temperature
from sonorant.nn.quantize.kmeans import KMeans, fit_kmeans
from sonorant.nn.quantize.multi import MultiCodebook, fit_multi
from sonorant.nn.quantize.online import OnlineCodebook
from sonorant.nn.quantize.quantizer import FrameSeeds, Quantizer, perplexity
from sonorant.nn.quantize.random_projection import RandomProjection
from sonorant.nn.quantize.vq import VectorCodebook, frozen_codebook


def seeds(count: int) -> FrameSeeds:
    return FrameSeeds(torch.zeros(count, dtype=torch.long), torch.arange(count))


def speechlike(count: int = 3000, dim: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, dim + 1).float() ** -0.6
    means = torch.randn(60, dim, generator=generator) * spectrum
    labels = torch.randint(60, (count,), generator=generator)
    return means[labels] + 0.5 * spectrum * torch.randn(count, dim, generator=generator)


def error(codebook: torch.nn.Module, frames: Tensor) -> float:
    with torch.no_grad():
        return float((codebook.vectors(codebook.ids(frames)) - frames).square().sum(dim=1).mean())  # type: ignore[operator]


# --- learning ---------------------------------------------------------------------------------------------------------


def test_dead_vectors_come_back() -> None:
    torch.manual_seed(0)
    frames = speechlike()
    used = {}
    for dead_below in (0.0, 1.0):
        codebook = VectorCodebook(12, 64, decay=0.9, dead_below=dead_below).train()
        codebook.weight.mul_(0.01).add_(100)  # all far away: one of them wins every frame
        codebook.sums.copy_(codebook.weight)
        for _ in range(30):
            codebook(frames, seeds(len(frames)))
        used[dead_below] = len(codebook.ids(frames).unique())
    assert used[0.0] < 8
    assert used[1.0] > 50


def test_kmeans_start_is_better_than_chance_and_happens_once() -> None:
    frames = speechlike()
    codebook = VectorCodebook(12, 32, kmeans_init=True, decay=1.0).train()
    before = error(codebook, frames)
    codebook(frames, seeds(len(frames)))
    assert bool(codebook.started)
    assert error(codebook, frames) < 0.7 * before
    weight = codebook.weight.clone()
    codebook(frames + 5, seeds(len(frames)))  # decay 1: nothing moves but by a new start
    torch.testing.assert_close(codebook.weight, weight, atol=1e-4, rtol=1e-4)


def test_gradient_learning_finds_what_averages_find() -> None:
    torch.manual_seed(0)
    frames = speechlike()
    codebook = VectorCodebook(12, 32, learn="gradient", commitment=0.0).train()
    before = error(codebook, frames)
    optimizer = torch.optim.Adam(codebook.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        codebook(frames, seeds(len(frames))).penalty.backward()
        optimizer.step()
    assert error(codebook, frames) < 0.7 * before


@pytest.mark.parametrize("make", [VectorCodebook, OnlineCodebook])
def test_a_frame_that_is_not_finite_leaves_nothing_in_the_averages(make: Any) -> None:
    """The step that it spoils is left out; averages would keep it, and a codebook of NaN gives finite losses."""
    torch.manual_seed(0)
    clean, spoilt = make(12, 8), make(12, 8)
    spoilt.load_state_dict(clean.state_dict())
    frames = speechlike()[:40]
    bad = torch.cat([frames, torch.full((1, 12), torch.nan), torch.full((1, 12), torch.inf)])
    options = {"dead_below": 1.0} if make is VectorCodebook else {}
    for codebook, seen in ((clean, frames), (spoilt, bad)):
        for name, value in options.items():
            setattr(codebook, name, value)
        codebook.train()(seen, seeds(len(seen)))
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(spoilt.state_dict()[name], value, msg=name)


def test_the_online_codebook_follows_its_frames() -> None:
    """One step by hand (equation 3), then many steps while the frames move."""
    codebook = OnlineCodebook(1, 2, decay=0.9).train()
    codebook.sums.copy_(torch.tensor([[0.0], [10.0]]))
    codebook(torch.tensor([[1.0], [2.0]]), seeds(2))
    torch.testing.assert_close(codebook.counts, torch.tensor([0.9 + 0.1 * 2, 1.0]))
    torch.testing.assert_close(codebook.weight, torch.tensor([[0.3 / 1.1], [10.0]]))
    codebook = OnlineCodebook(12, 16).train()
    frames = speechlike()
    before = error(codebook, frames + 3)
    for step in range(60):
        codebook(frames + 0.05 * step, seeds(len(frames)))
    assert error(codebook, frames + 3) < 0.4 * before


def test_gumbel_draws_follow_the_softmax_and_cool_down() -> None:
    torch.manual_seed(0)
    codebook = GumbelCodebook(4, 5, 1, code_dim=4).train()
    frames = torch.randn(1, 4).expand(20000, 4)
    ids = codebook(frames, seeds(20000)).ids[:, 0]
    shares = torch.bincount(ids, minlength=5) / 20000
    torch.testing.assert_close(shares, codebook._logits(frames[:1])[0, 0].softmax(0).detach(), atol=0.015, rtol=0)
    assert len(codebook.eval()(frames, seeds(20000)).ids.unique()) == 1
    steps = [gumbel_temperature(step) for step in (0, 1, 100_000, 10**7)]
    assert steps == [2.0, 2.0 * 0.999995, 2.0 * 0.999995**100_000, 0.5]


def test_the_penalty_of_a_gumbel_codebook_lies_between_one_code_and_all_and_wants_more() -> None:
    codebook = GumbelCodebook(2, 6, 2, code_dim=4, diversity=1.0)
    even, one = torch.zeros(4, 2, 6), torch.full((4, 2, 6), -1e4)
    one[..., 0] = 0
    assert float(codebook._penalty(even)) == pytest.approx(0, abs=1e-6)
    assert float(codebook._penalty(one)) == pytest.approx((12 - 2) / 12)
    logits = torch.zeros(4, 2, 6)
    logits[..., 0] = 2.0
    logits.requires_grad_()
    codebook._penalty(logits).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 0] > 0).all()
    assert (logits.grad[..., 1:] < 0).all()


def test_dropout_of_levels_is_an_items_own_and_moves_no_statistics() -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(
        "residual", 12, codebook_size=16, num_codebooks=4, dropout=1.0, kmeans_init=False
    ).train()
    before = quantizer.codebook.levels[3].counts.clone()
    items = torch.arange(40)
    frames = speechlike(40 * 10).view(40, 10, 12)
    found = quantizer(frames, torch.full((40,), 10), items)
    depth = (found.ids >= 0).sum(dim=1)
    assert (depth == depth[:, :1]).all()
    counts = torch.bincount(depth[:, 0], minlength=5)
    assert counts[0] == 0
    assert (counts[1:] > 3).all()
    expected = 0.99 * before.sum() + 0.01 * 10 * counts[4]
    torch.testing.assert_close(quantizer.codebook.levels[3].counts.sum(), expected)
    quantizer.train(False)
    assert (quantizer(frames, torch.full((40,), 10), items).ids >= 0).all()


def test_random_labels_depend_on_the_seed_alone_and_are_spread() -> None:
    torch.manual_seed(0)
    first = RandomProjection(40, 256, 16, 2, seed=3)
    torch.manual_seed(1)
    second, third = RandomProjection(40, 256, 16, 2, seed=3), RandomProjection(40, 256, 16, 2, seed=4)
    frames = torch.randn(2000, 40)
    assert torch.equal(first.ids(frames), second.ids(frames))
    assert not torch.equal(first.ids(frames), third.ids(frames))
    assert (first.ids(frames) == first.ids(3 * frames)).all(), "only the direction of the projection counts"
    found = Quantizer(first)(frames[None], torch.tensor([2000]))
    assert (found.usage > 100).all()
    # Like frames have like labels: a small change moves few of them.
    assert (first.ids(frames) == first.ids(frames + 0.02 * torch.randn_like(frames))).float().mean() > 0.8


# --- several codebooks ------------------------------------------------------------------------------------------------


def test_residual_levels_and_groups_lower_the_error() -> None:
    frames = speechlike()

    def stream() -> object:
        return iter(frames.split(500))

    errors = [error(fit_residual_kmeans(stream, [16] * levels), frames) for levels in (1, 2, 3)]
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]
    product = fit_product_kmeans(stream, 3, 16)
    assert error(product, frames) < errors[0]
    assert product.codebook_sizes == (16, 16, 16)
    with pytest.raises(ConfigError, match="num_groups must divide"):
        fit_product_kmeans(stream, 5, 16)
    with pytest.raises(DataError, match=r"blocks of \(n, dim\), got \(12,\)"):
        fit_product_kmeans(lambda: iter(frames), 3, 16)


def test_a_tree_is_nearly_as_good_as_flat_clusters() -> None:
    frames = speechlike()
    flat = fit_kmeans(lambda: iter([frames]), 64)
    tree = fit_kmeans_tree(lambda: iter(frames.split(700)), 8, 8)
    assert tree.codebook_sizes == (64,)
    assert error(tree, frames) < 1.25 * error(frozen_codebook(flat), frames)
    few = frames[:20]
    assert error(fit_kmeans_tree(lambda: iter([few]), 4, 20), few) < 1e-9


def test_refined_codebooks_beat_residual_search_and_never_get_worse() -> None:
    frames = speechlike()

    def stream() -> object:
        return iter(frames.split(500))

    residual = fit_residual_kmeans(stream, [16] * 4)
    errors = [error(fit_multi(stream, 4, 16, passes=passes), frames) for passes in (0, 1, 2, 4)]
    assert errors[0] < error(residual, frames), "sweeps alone must help"
    assert all(after <= before for before, after in zip(errors, errors[1:]))
    assert errors[-1] < 0.93 * error(residual, frames)


def test_sweeps_come_near_the_best_of_all_codes() -> None:
    """Brute force over 5³ sums: sweeps never lose to the residual search and nearly always find the best."""
    torch.manual_seed(0)
    model = MultiCodebook(4, 5, 3, sweeps=10)
    frames = torch.randn(300, 4)
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    best = torch.cdist(frames, model.vectors(every)).min(dim=1).values.square()
    found = (frames - model.vectors(model.ids(frames))).square().sum(dim=1)
    model.sweeps = 0
    greedy = (frames - model.vectors(model.ids(frames))).square().sum(dim=1)
    assert (found <= greedy + 1e-5).all()
    assert (found >= best - 1e-4).all()
    assert ((found - best) < 1e-3).float().mean() > 0.9
    assert found.mean() < 0.5 * (best.mean() + greedy.mean())


# --- around -----------------------------------------------------------------------------------------------------------


def test_a_fitted_model_becomes_a_codebook() -> None:
    frames = speechlike(500)
    for metric in ("euclidean", "cosine"):
        model = fit_kmeans(lambda: iter([frames]), 10, metric=metric)
        quantizer = Quantizer(frozen_codebook(model)).train()
        found = quantizer(frames[None], torch.tensor([500]))
        assert torch.equal(found.ids[0, 0], model.predict(frames))
        assert torch.equal(quantizer.codebook.weight, model.centers)


def test_codes_of_another_quantiser_are_refused() -> None:
    quantizer = Quantizer(frozen_codebook(KMeans(4, 2)))
    with pytest.raises(DataError, match=r"codes have codebooks of \(5,\), this quantiser \(4,\)"):
        quantizer.decode(Codes(torch.zeros(1, 1, 3, dtype=torch.long), torch.tensor([3]), 50.0, (5,)))
    with pytest.raises(ConfigError, match="frames 2 wide, got 3"):
        quantizer(torch.zeros(1, 4, 3), torch.tensor([4]))


def test_perplexity_counts_codes() -> None:
    assert float(perplexity(torch.ones(7))) == pytest.approx(7, rel=1e-5)
    assert float(perplexity(torch.tensor([0.0, 5.0]))) == 1.0


def test_two_processes_agree_and_see_all_the_data(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("two_processes.py"))]
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE) for rank in (0, 1)]
    for worker in workers:
        _, problem = worker.communicate(timeout=100)
        assert worker.returncode == 0, problem.decode()[-2000:]
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"{name} differs between the processes"
    frames = shared_frames()
    alone = results(frames)
    # Averages over both halves are those over the whole.
    for name in ("vq", "online"):
        torch.testing.assert_close(first[name], alone[name], atol=1e-5, rtol=1e-4)
    for name in ("whole", "streamed"):
        ordered = torch.cdist(first[name], alone[name]).min(dim=1).values
        assert ordered.max() < 0.02, f"{name}: the clusters are others than those of one process"
