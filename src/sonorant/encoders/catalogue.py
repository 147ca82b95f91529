"""The catalogue of encoders: name → preset, written out. Nothing is imported until it is asked for.

Each line names a family's file and a function in it that gives a configuration; the file's `build` makes the module.
"""

import importlib
from typing import Any

from torch import nn

from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["ENCODERS", "build_encoder", "encoder_preset"]

ENCODERS: dict[str, str] = {
    "conformer_tiny": "sonorant.encoders.conformer:conformer_tiny",
    "conformer_small": "sonorant.encoders.conformer:conformer_small",
    "conformer_medium": "sonorant.encoders.conformer:conformer_medium",
    "conformer_large": "sonorant.encoders.conformer:conformer_large",
    "deepspeech": "sonorant.encoders.recurrent:deepspeech",
    "deepspeech_paper": "sonorant.encoders.recurrent:deepspeech_paper",
    "bigru": "sonorant.encoders.recurrent:bigru",
    "bilstm": "sonorant.encoders.recurrent:bilstm",
    "apc": "sonorant.encoders.apc:apc",
    "apc_tiny": "sonorant.encoders.apc:apc_tiny",
    "npc": "sonorant.encoders.npc:npc",
    "npc_tiny": "sonorant.encoders.npc:npc_tiny",
}
"""Name → "module:preset"; keyword arguments of the preset replace fields of the configuration."""


def encoder_preset(name: str, **changes: Any) -> Any:
    """The configuration behind a name.

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    if name not in ENCODERS:
        raise ConfigError(unknown_name("encoder", name, ENCODERS))
    module, preset = ENCODERS[name].split(":")
    return getattr(importlib.import_module(module), preset)(**changes)


def build_encoder(name: str, **changes: Any) -> nn.Module:
    """An encoder by its name, with random weights.

    >>> build_encoder("conformer_tiny", num_layers=1).num_layers
    1

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    config = encoder_preset(name, **changes)
    return importlib.import_module(ENCODERS[name].partition(":")[0]).build(config)  # type: ignore[no-any-return]
