"""The moving average: its formula, its warm-up, and weights that come back bit for bit."""

import pytest
import torch
from torch import nn

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.train.ema import Ema


def moved(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_formula() -> None:
    module = nn.Linear(3, 2)
    ema = Ema(module, decay=0.9)
    wanted = module.weight.detach().clone()
    for _ in range(5):
        moved(module)
        ema.update()
        wanted = 0.9 * wanted + 0.1 * module.weight.detach()
    torch.testing.assert_close(ema.averages["weight"], wanted)


def test_warmup_and_a_decay_of_its_own() -> None:
    ema = Ema(nn.Linear(1, 1), decay=0.999, warmup=True)
    shares = []
    for _ in range(3):
        shares.append(ema.next_decay())
        ema.update()
    assert shares == pytest.approx([1 / 10, 2 / 11, 3 / 12])
    module = nn.Linear(1, 1)
    own = Ema(module, decay=0.5)
    moved(module)
    own.update(decay=0.0)
    assert torch.equal(own.averages["weight"], module.weight)


def test_applied_gives_back_every_bit_even_after_an_error() -> None:
    module = nn.Linear(4, 4)
    ema = Ema(module, decay=0.5)
    moved(module)
    ema.update()
    before = module.weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        assert torch.equal(module.weight, ema.averages["weight"])
        raise RuntimeError("inside")
    assert torch.equal(module.weight, before)


def test_low_precision_is_averaged_in_float32() -> None:
    module = nn.Linear(2, 2).to(torch.bfloat16)
    ema = Ema(module, decay=0.999)
    assert ema.averages["weight"].dtype == torch.float32
    moved(module)
    ema.update()
    ema.copy_to(module)
    assert module.weight.dtype == torch.bfloat16


def test_state_of_another_module_is_refused() -> None:
    ema = Ema(nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="bias differ"):
        ema.load({"weight": torch.zeros(2, 2)}, 3)
    with pytest.raises(ConfigError, match="decay must lie in"):
        Ema(nn.Linear(2, 2), decay=1.5)
