"""Cutting encoders to size: freezing, fewer layers, fresh upper layers, means of layers.

What belongs to the front end, or stands below a layer, is not read from names but followed through the graph of a short
signal, so it is right for every family: shared tables and positions too.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.errors import ConfigError
from sonorant.core.lengths import zero_padding
from sonorant.core.types import Features
from sonorant.encoders.tap import aligned

__all__ = ["average_layers", "freeze_all", "freeze_front", "freeze_layers", "reinitialise", "truncate"]


def freeze_all(encoder: nn.Module) -> list[str]:
    """Nothing of the encoder is trained; returns the names of what was frozen."""
    return _frozen(encoder, [name for name, _ in encoder.named_parameters()])


def freeze_front(encoder: Any) -> list[str]:
    """The front end (convolutions, subsampling) is not trained; returns the names of what was frozen.

    Raises:
        ConfigError: the front end has no weights.
    """
    names = _reached(encoder, lambda values, lengths: encoder.local(values, lengths).values)
    if not names:
        raise ConfigError(f"the front end of {type(encoder).__name__} has no weights; it holds {_held(encoder)}")
    return _frozen(encoder, names)


def freeze_layers(encoder: Any, first: int) -> list[str]:
    """The first blocks, and all that stands before them, are not trained; returns the names of what was frozen.

    Args:
        encoder: with `blocks`.
        first: how many; 0 freezes what makes the input of the first block.
    """
    _within("first", first, 0, encoder)
    return _frozen(
        encoder, _reached(encoder, lambda values, lengths: encoder(values, lengths, layers=True)[first].values)
    )


def truncate(encoder: Any, num_layers: int) -> Any:
    """Keeps the first blocks, in place, with a configuration that says so; returns the encoder.

    Families whose blocks norm before their parts have a norm behind the last block: it then stands behind the new last
    one, which it was not trained on.

    Raises:
        ConfigError: there are fewer blocks, or this family's blocks cannot be cut.
    """
    _within("num_layers", num_layers, 1, encoder)
    config, blocks = getattr(encoder, "config", None), encoder.blocks
    counted = is_dataclass(config) and getattr(config, "num_layers", None) == len(blocks)
    if not counted or blocks is not encoder.blocks:  # a list made anew at each look holds blocks that stand elsewhere
        names = ", ".join(field.name for field in fields(config)) if is_dataclass(config) else "no configuration"
        raise ConfigError(
            f"{type(encoder).__name__} has no num_layers that counts its blocks, so it cannot be cut; build it with other "
            f"options: {names}"
        )
    del blocks[num_layers:]
    encoder.num_layers = num_layers
    encoder.config = replace(config, num_layers=num_layers)  # type: ignore[type-var]
    return encoder


def reinitialise(encoder: Any, top: int, seed: int = 0) -> Any:
    """Gives the last blocks fresh weights, as a new encoder has, in place; returns the encoder.

    What pre-training put into the upper layers is often of no use for recognition (arXiv:2107.04734, section 5).

    Args:
        encoder: with `config`, whose file has `build`.
        top: how many blocks, from the last one down.
        seed: of the weights.
    """
    _within("top", top, 1, encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = importlib.import_module(type(encoder.config).__module__).build(encoder.config)
    for block, new in zip(encoder.blocks[-top:], fresh.blocks[-top:], strict=True):
        weights = new.state_dict()
        if weights.keys() != block.state_dict().keys():
            raise ConfigError(f"{type(encoder).__name__} was adapted; renew its blocks before adapting it")
        block.load_state_dict(weights)
    return encoder


def average_layers(layers: Sequence[Features], chosen: Sequence[int] = ()) -> Features:
    """The mean of some layers, at the frames of the last one given.

    Args:
        layers: what `encoder(values, lengths, layers=True)` gives.
        chosen: which of them (0 is what enters the first block); all but that one where empty.

    >>> ones, threes = (Features(torch.full((1, 2, 1), v), torch.tensor([2]), 50.0) for v in (1.0, 3.0))
    >>> average_layers([ones, ones, threes]).values.flatten().tolist()
    [2.0, 2.0]
    """
    places = list(chosen) or list(range(1, len(layers)))
    for place in places:
        if not -len(layers) <= place < len(layers):
            raise ConfigError(f"chosen: there are layers 0 to {len(layers) - 1}, got {place}")
    taken = aligned([*(layers[place] for place in places), layers[-1]])[:-1]
    total = torch.zeros_like(taken[0].values)
    for layer in taken:
        total = total + zero_padding(layer.values, layer.lengths)
    return replace(layers[-1], values=total / len(taken))


# --- inside -----------------------------------------------------------------------------------------------------------


def _within(name: str, value: int, low: int, encoder: Any) -> None:
    if not low <= value <= len(encoder.blocks):
        raise ConfigError(f"{name}: {type(encoder).__name__} has {len(encoder.blocks)} blocks, got {value}")


def _held(encoder: nn.Module) -> str:
    return ", ".join(f"{name} ({type(child).__name__})" for name, child in encoder.named_children()) or "nothing"


def _frozen(encoder: nn.Module, names: Sequence[str]) -> list[str]:
    own = dict(encoder.named_parameters())
    for name in names:
        own[name].requires_grad_(False)
    return list(names)


@contextmanager
def _quiet(encoder: nn.Module) -> Iterator[None]:
    """In eval, with a gradient for everything; all as it was afterwards."""
    modes = [(module, module.training) for module in encoder.modules()]
    asked = [(parameter, parameter.requires_grad) for parameter in encoder.parameters()]
    encoder.eval().requires_grad_(True)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, wanted in asked:
            parameter.requires_grad_(wanted)


def _reached(encoder: Any, run: Callable[[Tensor, Tensor], Tensor]) -> list[str]:
    """Names of the parameters that what `run` gives depends on."""
    if next(encoder.parameters(), None) is None:
        return []
    steps = max(1, encoder.receptive_field)
    while int(encoder.output_lengths(steps)) < 16:
        steps *= 2
    like = next(encoder.parameters())
    width = () if encoder.input == "waveform" else (encoder.config.input_dim,)
    values = torch.linspace(-1, 1, steps, device=like.device, dtype=like.dtype).sin()
    values = values.view(1, steps, *[1] * len(width)).expand(1, steps, *width)
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    with _quiet(encoder), torch.enable_grad():
        out = run(values, torch.tensor([steps], device=like.device)).sum()
        found = torch.autograd.grad(out, parameters, allow_unused=True) if out.requires_grad else ()
    return [name for name, gradient in zip(names, found) if gradient is not None]
