"""Dasheng (Dinkel et al., 2024, arXiv:2406.06992): a masked autoencoder whose patches hold all bands of four frames.

A `PatchEncoder` of one row: 25 frames a second from 100 log-mel frames of 64 bands (`encoders.spectral.dasheng_front`),
normalised band by band by running statistics; learned positions for 10.08 s, and longer items in stretches of that, as the
authors' code has it. It is trained by `objectives.masked_patches`; the authors' names stand in `encoders/keys/dasheng.py`.

Where we differ: the last stretch of a long item is as long as it is, where theirs is filled up with zeros that are attended
to; an item is then the same in any batch.
"""

from typing import Any

from sonorant.encoders.patch import PatchConfig, PatchEncoder

__all__ = ["build", "dasheng_06b", "dasheng_12b", "dasheng_base", "dasheng_tiny"]


def dasheng_base(**changes: Any) -> PatchConfig:
    """85 M parameters (table 1)."""
    shape: dict[str, Any] = {"input_dim": 64, "patch": (64, 4), "stride": (64, 4), "num_extra": 0, "input_norm": True}
    place: dict[str, Any] = {"position": "separate", "max_columns": 252, "cut_long": True}
    return PatchConfig(**{**shape, **place, **changes})


def dasheng_06b(**changes: Any) -> PatchConfig:
    """0.63 B parameters (table 1)."""
    return dasheng_base(**{"dim": 1280, "num_layers": 32, "num_heads": 16, "ffn_dim": 5120, **changes})


def dasheng_12b(**changes: Any) -> PatchConfig:
    """1.13 B parameters (table 1)."""
    return dasheng_base(**{"dim": 1536, "num_layers": 40, "num_heads": 24, "ffn_dim": 6144, **changes})


def dasheng_tiny(**changes: Any) -> PatchConfig:
    """Two narrow layers, for tests and demonstrations; no published size."""
    return dasheng_base(**{"dim": 64, "num_layers": 2, "num_heads": 2, "ffn_dim": 128, **changes})


def build(config: PatchConfig) -> PatchEncoder:
    """The module of a configuration, with random weights."""
    return PatchEncoder(config)
