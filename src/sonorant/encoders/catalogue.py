"""The catalogue of encoders: name → builder, written out. Nothing is imported until its builder is called."""

from collections.abc import Callable
from typing import Any

from torch import nn

from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["ENCODERS", "build_encoder"]


def _conformer(size: str, **changes: Any) -> nn.Module:
    from sonorant.encoders.conformer import (
        Conformer,
        conformer_large,
        conformer_medium,
        conformer_small,
        conformer_tiny,
    )

    sizes = {"tiny": conformer_tiny, "small": conformer_small, "medium": conformer_medium, "large": conformer_large}
    return Conformer(sizes[size](**changes))


def _deep_speech(**changes: Any) -> nn.Module:
    from sonorant.encoders.recurrent import DeepSpeechConfig, DeepSpeechEncoder

    return DeepSpeechEncoder(DeepSpeechConfig(**changes))


def _recurrent(**changes: Any) -> nn.Module:
    from sonorant.encoders.recurrent import RecurrentConfig, RecurrentEncoder

    return RecurrentEncoder(RecurrentConfig(**changes))


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "conformer_tiny": lambda **changes: _conformer("tiny", **changes),
    "conformer_small": lambda **changes: _conformer("small", **changes),
    "conformer_medium": lambda **changes: _conformer("medium", **changes),
    "conformer_large": lambda **changes: _conformer("large", **changes),
    "deepspeech": lambda **changes: _deep_speech(**changes),
    "deepspeech_paper": lambda **changes: _deep_speech(**{"recurrence": "rnn", **changes}),
    "bigru": lambda **changes: _recurrent(**changes),
    "bilstm": lambda **changes: _recurrent(**{"kind": "lstm", **changes}),
}
"""Name → builder; keyword arguments replace fields of the config."""


def build_encoder(name: str, **changes: Any) -> nn.Module:
    """An encoder by its name, with random weights.

    >>> build_encoder("conformer_tiny", num_layers=1).num_layers
    1
    """
    if name not in ENCODERS:
        raise ConfigError(unknown_name("encoder", name, ENCODERS))
    return ENCODERS[name](**changes)
