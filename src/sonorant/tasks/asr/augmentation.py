"""How a recogniser's training data are varied: plain options, and the chain and masks they make."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sonorant.audio.augment.catalogue import build_augmentation
from sonorant.audio.augment.chain import Chain
from sonorant.audio.augment.draws import check_range
from sonorant.core.config import at_least, within
from sonorant.core.types import Batch

__all__ = ["AugmentConfig", "build_chain", "build_mask", "build_warp", "no_augmentation"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Chances are shares of items; 0 turns an augmentation off."""

    speed: float = 0.67
    """Share of items played at one of `speed_factors` (Ko et al., 2015: thirds of 0.9, 1.0, 1.1)."""
    speed_factors: tuple[float, ...] = (0.9, 1.1)
    """Ratios."""
    formant: float = 0.0
    """Share whose formants move: another length of the speaker's throat."""
    formant_range: tuple[float, float] = (0.88, 1.14)
    """Factors of the formants' frequencies."""
    tract: float = 0.0
    """Share whose mel bands are warped, which is nearly the same for next to nothing (VTLP, Jaitly & Hinton, 2013)."""
    tract_range: tuple[float, float] = (0.85, 1.18)
    """Factors of frequencies."""
    equalise: float = 0.0
    """Share through a random equaliser: another microphone."""
    reverb: float = 0.0
    """Share in a simulated room."""
    noise: float = 0.0
    """Share with added noise."""
    noise_db: tuple[float, float] = (5.0, 30.0)
    """Range of the ratio of speech to noise."""
    volume: float = 1.0
    """Share at another level."""
    volume_db: tuple[float, float] = (-12.0, 6.0)
    """Range of the change, in dB."""
    edges: float = 0.0
    """Share whose soft beginning and end are silenced, as in clips cut out by their energy."""
    edges_db: tuple[float, float] = (6.0, 35.0)
    """Range of how far below the loudest part sound is kept."""
    freq_masks: int = 2
    """SpecAugment's frequency masks (arXiv:1904.08779); 0 for none."""
    freq_width: int = 27
    """Widest frequency mask, in bins."""
    time_masks: int = 10
    """SpecAugment's time masks, at most; 0 for none."""
    time_width: int = 40
    """Longest time mask, in frames."""
    time_share: float = 0.05
    """Longest time mask as a share of the utterance (p_s of arXiv:1912.05533)."""

    def __post_init__(self) -> None:
        for name in ("speed", "formant", "tract", "equalise", "reverb", "noise", "volume", "edges", "time_share"):
            within(name, getattr(self, name), 0, 1)
        # Here and not where the chain is built, which may be after minutes of preparation.
        for name, low, high in (
            ("formant_range", 0.5, 2.0), ("tract_range", 0.5, 2.0), ("edges_db", 0.0, math.inf),
            ("noise_db", -math.inf, math.inf), ("volume_db", -math.inf, math.inf),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        for name in ("freq_masks", "freq_width", "time_masks", "time_width"):
            at_least(name, getattr(self, name), 0)


def no_augmentation() -> AugmentConfig:
    """Nothing is varied: the control."""
    return AugmentConfig(speed=0.0, volume=0.0, freq_masks=0, time_masks=0)


def build_chain(config: AugmentConfig) -> Callable[[Batch], Batch] | None:
    """The chain over waveforms, or None where nothing is on."""
    wanted: list[tuple[float, str, dict[str, Any]]] = [
        (config.speed, "speed", {"factors": config.speed_factors}),
        (config.formant, "formant_shift", {"factor": config.formant_range}),
        (config.equalise, "equalise", {}),
        (config.reverb, "reverb", {}),
        (config.noise, "noise", {"snr_db": config.noise_db}),
        (config.volume, "volume", {"gain_db": config.volume_db}),
        (config.edges, "edge_drop", {"range_db": config.edges_db}),
    ]
    steps = [build_augmentation(name, prob=prob, **options) for prob, name, options in wanted if prob > 0]
    return Chain(steps) if steps else None


def build_warp(config: AugmentConfig, low_hz: float, high_hz: float) -> Any:
    """The warp of mel bands between two frequencies, or None where nothing is warped."""
    if config.tract == 0:
        return None
    ends = {"low_hz": low_hz, "high_hz": high_hz}
    return build_augmentation("tract_warp", prob=config.tract, factor=config.tract_range, **ends)


def build_mask(config: AugmentConfig) -> Any:
    """SpecAugment, or None where it masks nothing."""
    if not (config.freq_masks or config.time_masks):
        return None
    return build_augmentation(
        "spec_augment",
        num_freq_masks=config.freq_masks,
        freq_width=config.freq_width,
        num_time_masks=config.time_masks,
        time_width=config.time_width,
        time_share=config.time_share,
        masks_per_frame=0.04 if config.time_masks > 2 else 0.0,
    )
