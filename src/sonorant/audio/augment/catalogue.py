"""Every augmentation by name; importing this imports none of them."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["AUGMENTATIONS", "FEATURE_AUGMENTATIONS", "build_augmentation"]


def _build(module: str, name: str, preset: dict[str, Any], **options: Any) -> Any:
    made = getattr(importlib.import_module(f"sonorant.audio.augment.{module}"), name)
    return made(**{**preset, **options})


def _entry(module: str, name: str, **preset: Any) -> Callable[..., Any]:
    return partial(_build, module, name, preset)


AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "noise": _entry("noise", "Noise"),
    "babble": _entry("babble", "Babble"),
    "reverb": _entry("reverb", "Reverb"),
    "speed": _entry("speed", "Speed"),
    "tempo": _entry("tempo", "Tempo"),
    "pitch_shift": _entry("pitch_shift", "PitchShift"),
    "formant_shift": _entry("formant", "FormantShift"),
    "equalise": _entry("equalise", "Equalise"),
    "volume": _entry("volume", "Volume"),
    "clip": _entry("clip", "Clip"),
    "band_drop": _entry("drop", "BandDrop"),
    "chunk_drop": _entry("drop", "ChunkDrop"),
    "edge_drop": _entry("drop", "EdgeDrop"),
    "codec": _entry("codec", "Codec"),
    "mp3": _entry("codec", "Codec", kinds=("mp3",)),
    "opus": _entry("codec", "Codec", kinds=("opus",)),
    "mu_law": _entry("codec", "Codec", kinds=("mu_law",)),
    "gsm": _entry("codec", "Codec", kinds=("gsm",)),
    "mix": _entry("mix", "Mix"),
}
"""Name → builder of `Batch -> Batch`; options are the fields of the class."""

FEATURE_AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "spec_augment": _entry("specaugment", "SpecAugment"),
    "tract_warp": _entry("tract", "TractWarp"),
}
"""Name → builder of `(Features, seeds) -> Features`."""


def build_augmentation(name: str, **options: Any) -> Any:
    """The augmentation `name` with some options set.

    Raises:
        ConfigError: no such augmentation, or no such option.

    >>> build_augmentation("volume", gain_db=(-3, 3)).gain_db
    (-3, 3)
    """
    known = {**AUGMENTATIONS, **FEATURE_AUGMENTATIONS}
    if name not in known:
        raise ConfigError(unknown_name("augmentation", name, known))
    try:
        return known[name](**options)
    except TypeError as error:
        raise ConfigError(f"augmentation '{name}': {error}") from error
