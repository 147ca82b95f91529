"""Randomness that is passed in, and a counter-based generator which gives each item of a batch its own draws.

`uniform(seeds, "noise", 3)` is a pure function of each seed, the name and the position: an item's draws do not depend on
its neighbours, on the worker that loaded it, on what was drawn before, or on the device. The mixing function is
SplitMix64's finaliser (Steele et al., 2014, https://doi.org/10.1145/2714064.2660195), which passes BigCrush on counters.
"""

import hashlib
import math
import random

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["derive", "integers", "item_seeds", "normal", "seed_everything", "uniform"]


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed from a seed and names; the same in every process and on every machine.

    >>> derive(1, "epoch", 0) == derive(1, "epoch", 0) != derive(1, "epoch", 1)
    True
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def item_seeds(seed: int, epoch: int, ids: list[str] | tuple[str, ...]) -> Int[Tensor, " batch"]:
    """One seed for each item of a batch."""
    return torch.tensor([derive(seed, epoch, name) for name in ids], dtype=torch.int64)


def seed_everything(seed: int) -> None:
    """Seeds Python's, numpy's and torch's global generators; for what third parties draw."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  third parties draw from the old global generator
    torch.manual_seed(seed)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# int64 products wrap around in torch on every device, as unsigned ones do.
_STEP, _MIX1, _MIX2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's `>>` copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _bits(seeds: Int[Tensor, " batch"], name: str, count: int) -> Int[Tensor, "batch count"]:
    start = (seeds ^ derive(0, name)) * _MIX1
    counter = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    value = start[:, None] + counter[None, :] * _STEP
    value = (value ^ _shift(value, 30)) * _MIX1
    value = (value ^ _shift(value, 27)) * _MIX2
    return value ^ _shift(value, 31)


def uniform(
    seeds: Int[Tensor, " batch"], name: str, count: int = 1, low: float = 0.0, high: float = 1.0
) -> Float[Tensor, "batch count"]:
    """`count` draws for each seed from [low, high), float32.

    >>> torch.equal(uniform(torch.tensor([7, 8]), "gain", 2)[1:], uniform(torch.tensor([8]), "gain", 2))
    True
    """
    unit = _shift(_bits(seeds, name, count), 40).to(torch.float32) * 2.0**-24
    return low + (high - low) * unit


def integers(
    seeds: Int[Tensor, " batch"], name: str, count: int = 1, low: int = 0, high: int | Int[Tensor, " batch"] = 2
) -> Int[Tensor, "batch count"]:
    """`count` whole numbers for each seed from [low, high); `high` may differ between items."""
    span = torch.as_tensor(high, device=seeds.device).reshape(-1, 1) - low
    # 48 bits of the hash: the bias of the remainder is below span / 2**48.
    return low + _shift(_bits(seeds, name, count), 16) % span.clamp(min=1)


def normal(seeds: Int[Tensor, " batch"], name: str, count: int = 1) -> Float[Tensor, "batch count"]:
    """`count` standard normal draws for each seed, by Box and Muller's transform, which gives them in pairs.

    The first draws are the same however many are asked for, so noise drawn for a padded batch is the noise of each item.

    >>> torch.equal(normal(torch.tensor([7]), "noise", 5)[:, :3], normal(torch.tensor([7]), "noise", 3))
    True
    """
    bits = _shift(_bits(seeds, name, count + count % 2), 40).to(torch.float32) * 2.0**-24
    radius = torch.sqrt(-2 * torch.log(bits[:, 0::2] + 2.0**-24))
    angle = 2 * math.pi * bits[:, 1::2]
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(1)[:, :count]
