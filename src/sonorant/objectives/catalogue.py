"""The catalogue of objectives: name → preset, written out. Nothing is imported until it is asked for.

Each line names a file and a function in it that gives a configuration; the file's `build(encoder, config)` makes the module.
"""

import importlib
from typing import Any

from torch import nn

from sonorant.core.errors import ConfigError, unknown_name

__all__ = ["OBJECTIVES", "build_objective", "objective_preset"]

OBJECTIVES: dict[str, str] = {
    "hubert": "sonorant.objectives.masked_prediction:hubert_objective",
    "wavlm": "sonorant.objectives.masked_prediction:wavlm_objective",
    "fast_hubert": "sonorant.objectives.masked_prediction:fast_hubert_objective",
    "ms_hubert": "sonorant.objectives.masked_prediction:ms_hubert_objective",
    "mr_hubert": "sonorant.objectives.masked_prediction:mr_hubert_objective",
    "best_rq": "sonorant.objectives.random_projection:best_rq_objective",
    "nest": "sonorant.objectives.random_projection:nest_objective",
    "token_bert": "sonorant.objectives.token_bert:token_bert_objective",
    "wav2vec2": "sonorant.objectives.contrastive:wav2vec2_objective",
    "continuous_bert": "sonorant.objectives.contrastive:continuous_bert_objective",
    "cpc": "sonorant.objectives.future:cpc_objective",
    "wav2vec": "sonorant.objectives.future:wav2vec_objective",
    "vq_wav2vec": "sonorant.objectives.future:vq_wav2vec_objective",
    "data2vec": "sonorant.objectives.self_distillation:data2vec_objective",
    "dinosr": "sonorant.objectives.self_distillation:dinosr_objective",
    "data2vec_aqc": "sonorant.objectives.data2vec_aqc:data2vec_aqc_objective",
    "byol": "sonorant.objectives.siamese:byol_objective",
    "dino": "sonorant.objectives.siamese:dino_objective",
    "apc": "sonorant.objectives.reconstruction:apc_objective",
    "vq_apc": "sonorant.objectives.reconstruction:vq_apc_objective",
    "npc": "sonorant.objectives.reconstruction:npc_objective",
    "mockingjay": "sonorant.objectives.reconstruction:mockingjay_objective",
    "tera": "sonorant.objectives.reconstruction:tera_objective",
    "mae": "sonorant.objectives.reconstruction:mae_objective",
    "pase": "sonorant.objectives.pase:pase_objective",
    "pase_toy": "sonorant.objectives.pase:pase_toy_objective",
    "audio_mae": "sonorant.objectives.masked_patches:audio_mae_objective",
    "msm_mae": "sonorant.objectives.masked_patches:msm_mae_objective",
    "dasheng": "sonorant.objectives.masked_patches:dasheng_objective",
}
"""Name → "module:preset"; keyword arguments of the preset replace fields of the configuration."""


def objective_preset(name: str, **changes: Any) -> Any:
    """The configuration behind a name.

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    if name not in OBJECTIVES:
        raise ConfigError(unknown_name("objective", name, OBJECTIVES))
    module, preset = OBJECTIVES[name].split(":")
    return getattr(importlib.import_module(module), preset)(**changes)


def build_objective(name: str, encoder: nn.Module, parts: dict[str, Any] | None = None, **changes: Any) -> nn.Module:
    """An objective by its name, around an encoder.

    Args:
        name: in the catalogue.
        encoder: what is trained.
        parts: what is no plain value, such as `augment` or `mix`.
        changes: fields of the configuration.

    >>> from sonorant.encoders.catalogue import build_encoder
    >>> objective = build_objective("wav2vec", build_encoder("wav2vec_tiny"), num_steps=4)
    >>> type(objective).__name__, objective.config.num_steps
    ('FuturePrediction', 4)

    Raises:
        ConfigError: unknown name, with the nearest one and the list.
    """
    config = objective_preset(name, **changes)
    module = importlib.import_module(OBJECTIVES[name].partition(":")[0])
    return module.build(encoder, config, **(parts or {}))  # type: ignore[no-any-return]
