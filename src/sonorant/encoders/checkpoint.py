"""Encoders on disk: what was pre-trained, with its configuration, front end and statistics; loads with no flags.

An encoder is told by its family's file, the type of its configuration, and the configuration's fields. Any module qualifies
that has `config`, a dataclass of the file `sonorant/encoders/<family>.py`, and whose file has `build(config)`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sonorant.core.checkpoint import load_checkpoint, load_weights, save_checkpoint
from sonorant.core.config import from_plain, to_plain
from sonorant.core.errors import CheckpointError, blaming

__all__ = [
    "KIND", "describe_config", "described_config", "described_module", "load_trained_encoder", "save_trained_encoder",
]  # fmt: skip

KIND = "encoder"
_PACKAGE = "sonorant.encoders"


def describe_config(config: Any) -> dict[str, Any]:
    """An encoder's configuration with its family, in plain values.

    >>> from sonorant.encoders.conformer import conformer_tiny
    >>> told = describe_config(conformer_tiny())
    >>> told["family"], told["type"], told["options"]["num_layers"]
    ('conformer', 'ConformerConfig', 2)

    Raises:
        CheckpointError: it is no configuration of a family in `sonorant.encoders`.
    """
    kind = type(config)
    package, _, family = kind.__module__.rpartition(".")
    if package != _PACKAGE or not is_dataclass(config):
        raise CheckpointError(
            f"an encoder that is to be stored needs .config, a dataclass of a file in {_PACKAGE}; got {kind.__qualname__} "
            f"of {kind.__module__}"
        )
    return {"family": family, "type": kind.__name__, "options": to_plain(config)}


def _family(told: Mapping[str, Any]) -> Any:
    name = told.get("family", "")
    # Only what ships with the package is imported, whatever a checkpoint says.
    if not isinstance(name, str) or not name.isidentifier() or importlib.util.find_spec(f"{_PACKAGE}.{name}") is None:
        raise CheckpointError(
            f"there is no family of encoders '{name}' in {_PACKAGE}; was it stored by a newer version?"
        )
    return importlib.import_module(f"{_PACKAGE}.{name}")


def described_config(told: Mapping[str, Any]) -> Any:
    """The configuration that `describe_config` told.

    Raises:
        CheckpointError: unknown family or type.
        ConfigError: its fields do not fit.
    """
    family = _family(told)
    kind: Any = getattr(family, str(told.get("type", "")), None)
    # The family's own, not one that its file imports, and of an encoder.
    own = isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == family.__name__
    if not (own and hasattr(family, "build")):
        raise CheckpointError(f"the family '{told['family']}' has no configuration '{told.get('type')}'")
    return from_plain(kind, told.get("options", {}), str(told["family"]))


def described_module(told: Mapping[str, Any]) -> nn.Module:
    """The encoder that `describe_config` told, with random weights."""
    config = described_config(told)
    return _family(told).build(config)  # type: ignore[no-any-return]


def save_trained_encoder(encoder: nn.Module, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Writes an encoder: weights, statistics of its front end, configuration.

    Args:
        encoder: with `config`.
        folder: where; replaced if it is a checkpoint.
        extra: plain values that are kept beside it, such as how it was trained.
    """
    told = describe_config(encoder.config)
    return save_checkpoint(folder, kind=KIND, weights=encoder.state_dict(), config=told, extra=extra)


def load_trained_encoder(folder: str | Path) -> nn.Module:
    """An encoder in `eval()`, with no flags.

    Raises:
        CheckpointError: nothing there, damaged, of another kind or of a newer version.
    """
    found = load_checkpoint(folder, kind=KIND)
    with blaming(folder):
        encoder = described_module(found.config)
    load_weights(encoder, found.weights, where=str(folder))
    return encoder.eval()
