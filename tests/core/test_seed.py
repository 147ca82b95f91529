import subprocess
import sys

import pytest
import torch

from sonorant.core.seed import derive, integers, item_seeds, normal, uniform

SEEDS = item_seeds(3, 0, [f"utt{i}" for i in range(4000)])


def test_draws_are_uniform_and_independent() -> None:
    draws = uniform(SEEDS, "gain", 8)
    histogram = torch.histc(draws, bins=20, min=0, max=1) / draws.numel()
    # 32 000 draws in 20 bins: the standard error of a bin's share is 0.0012.
    assert (histogram - 0.05).abs().max() < 0.006
    correlation = torch.corrcoef(torch.cat([draws, uniform(SEEDS, "other", 8)], dim=1).T)
    assert (correlation - torch.eye(16)).abs().max() < 0.07


def test_neighbouring_seeds_are_independent_too() -> None:
    draws = uniform(torch.arange(20000), "x", 2)
    assert abs(torch.corrcoef(torch.stack([draws[:-1, 0], draws[1:, 0]]))[0, 1]) < 0.03
    assert draws.mean() == pytest.approx(0.5, abs=0.01)


def test_normal_moments() -> None:
    draws = normal(SEEDS, "noise", 16).flatten()
    assert draws.mean() == pytest.approx(0, abs=0.02)
    assert draws.std() == pytest.approx(1, abs=0.02)
    assert (draws**4).mean() == pytest.approx(3, abs=0.2)
    assert torch.isfinite(draws).all()


def test_integers_cover_their_range() -> None:
    draws = integers(SEEDS, "choice", 4, low=2, high=7)
    assert draws.unique().tolist() == [2, 3, 4, 5, 6]
    spans = torch.tensor([1, 2, 50])
    assert (integers(SEEDS[:3], "start", 100, high=spans) < spans[:, None]).all()


def test_a_draw_belongs_to_its_item() -> None:
    whole = uniform(SEEDS[:5], "gain", 3)
    assert torch.equal(whole[3:4], uniform(SEEDS[3:4], "gain", 3))
    assert torch.equal(whole[:, :2], uniform(SEEDS[:5], "gain", 2))
    assert not torch.equal(whole, uniform(SEEDS[:5], "pan", 3))


def test_seeds_are_the_same_in_every_process() -> None:
    code = "from sonorant.core.seed import derive; print(derive(5, 'a', 1))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == derive(5, "a", 1)
    assert 0 <= derive(5, "a", 1) < 2**63
    assert derive(5, "a1") != derive(5, "a", 1)
