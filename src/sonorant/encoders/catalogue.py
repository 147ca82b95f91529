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
    "fastconformer_tiny": "sonorant.encoders.conformer:fastconformer_tiny",
    "fastconformer_medium": "sonorant.encoders.conformer:fastconformer_medium",
    "fastconformer_large": "sonorant.encoders.conformer:fastconformer_large",
    "fastconformer_xlarge": "sonorant.encoders.conformer:fastconformer_xlarge",
    "fastconformer_streaming": "sonorant.encoders.conformer:fastconformer_streaming",
    "nest_large": "sonorant.encoders.conformer:nest_large",
    "wav2vec2_tiny": "sonorant.encoders.wav2vec2:wav2vec2_tiny",
    "wav2vec2_base": "sonorant.encoders.wav2vec2:wav2vec2_base",
    "wav2vec2_large": "sonorant.encoders.wav2vec2:wav2vec2_large",
    "wav2vec2_large_lv60": "sonorant.encoders.wav2vec2:wav2vec2_large_lv60",
    "xlsr_53": "sonorant.encoders.wav2vec2:xlsr_53",
    "xls_r_300m": "sonorant.encoders.wav2vec2:xls_r_300m",
    "xls_r_1b": "sonorant.encoders.wav2vec2:xls_r_1b",
    "xls_r_2b": "sonorant.encoders.wav2vec2:xls_r_2b",
    "hubert_base": "sonorant.encoders.wav2vec2:hubert_base",
    "hubert_large": "sonorant.encoders.wav2vec2:hubert_large",
    "hubert_xlarge": "sonorant.encoders.wav2vec2:hubert_xlarge",
    "wavlm_tiny": "sonorant.encoders.wav2vec2:wavlm_tiny",
    "wavlm_base": "sonorant.encoders.wav2vec2:wavlm_base",
    "wavlm_large": "sonorant.encoders.wav2vec2:wavlm_large",
    "unispeech_sat_base": "sonorant.encoders.wav2vec2:unispeech_sat_base",
    "unispeech_sat_large": "sonorant.encoders.wav2vec2:unispeech_sat_large",
    "dinosr_base": "sonorant.encoders.wav2vec2:dinosr_base",
    "data2vec_audio_base": "sonorant.encoders.wav2vec2:data2vec_audio_base",
    "data2vec_audio_large": "sonorant.encoders.wav2vec2:data2vec_audio_large",
    "zipformer_tiny": "sonorant.encoders.zipformer:zipformer_tiny",
    "zipformer_small": "sonorant.encoders.zipformer:zipformer_small",
    "zipformer_medium": "sonorant.encoders.zipformer:zipformer_medium",
    "zipformer_large": "sonorant.encoders.zipformer:zipformer_large",
    "zipformer_base": "sonorant.encoders.zipformer:zipformer_base",
    "zipformer_streaming": "sonorant.encoders.zipformer:zipformer_streaming",
    "squeezeformer_tiny": "sonorant.encoders.squeezeformer:squeezeformer_tiny",
    "squeezeformer_xsmall": "sonorant.encoders.squeezeformer:squeezeformer_xsmall",
    "squeezeformer_small": "sonorant.encoders.squeezeformer:squeezeformer_small",
    "squeezeformer_small_medium": "sonorant.encoders.squeezeformer:squeezeformer_small_medium",
    "squeezeformer_medium": "sonorant.encoders.squeezeformer:squeezeformer_medium",
    "squeezeformer_medium_large": "sonorant.encoders.squeezeformer:squeezeformer_medium_large",
    "squeezeformer_large": "sonorant.encoders.squeezeformer:squeezeformer_large",
    "sparseformer_tiny": "sonorant.encoders.sparseformer:sparseformer_tiny",
    "sparseformer_deep": "sonorant.encoders.sparseformer:sparseformer_deep",
    "sparseformer_wide": "sonorant.encoders.sparseformer:sparseformer_wide",
    "wav2vec2_conformer_large_rel_pos": "sonorant.encoders.wav2vec2_conformer:wav2vec2_conformer_large_rel_pos",
    "wav2vec2_conformer_large_rope": "sonorant.encoders.wav2vec2_conformer:wav2vec2_conformer_large_rope",
    "wav2vec2_conformer_tiny": "sonorant.encoders.wav2vec2_conformer:wav2vec2_conformer_tiny",
    "w2v_bert_600m": "sonorant.encoders.w2v_bert:w2v_bert_600m",
    "w2v_bert_base": "sonorant.encoders.w2v_bert:w2v_bert_base",
    "w2v_bert_tiny": "sonorant.encoders.w2v_bert:w2v_bert_tiny",
    "mr_hubert_base": "sonorant.encoders.mr_hubert:mr_hubert_base",
    "mr_hubert_large": "sonorant.encoders.mr_hubert:mr_hubert_large",
    "mr_hubert_tiny": "sonorant.encoders.mr_hubert:mr_hubert_tiny",
    "sew_tiny": "sonorant.encoders.sew:sew_tiny",
    "sew_small": "sonorant.encoders.sew:sew_small",
    "sew_mid": "sonorant.encoders.sew:sew_mid",
    "sew_toy": "sonorant.encoders.sew:sew_toy",
    "fast_hubert_tiny": "sonorant.encoders.fast_hubert:fast_hubert_tiny",
    "fast_hubert_base": "sonorant.encoders.fast_hubert:fast_hubert_base",
    "deepspeech": "sonorant.encoders.recurrent:deepspeech",
    "deepspeech_paper": "sonorant.encoders.recurrent:deepspeech_paper",
    "bigru": "sonorant.encoders.recurrent:bigru",
    "bilstm": "sonorant.encoders.recurrent:bilstm",
    "cpc": "sonorant.encoders.cpc:cpc",
    "cpc_small": "sonorant.encoders.cpc:cpc_small",
    "cpc_big": "sonorant.encoders.cpc:cpc_big",
    "cpc_tiny": "sonorant.encoders.cpc:cpc_tiny",
    "wav2vec": "sonorant.encoders.cpc:wav2vec",
    "wav2vec_large": "sonorant.encoders.cpc:wav2vec_large",
    "vq_wav2vec": "sonorant.encoders.cpc:vq_wav2vec",
    "wav2vec_tiny": "sonorant.encoders.cpc:wav2vec_tiny",
    "apc": "sonorant.encoders.apc:apc",
    "apc_tiny": "sonorant.encoders.apc:apc_tiny",
    "npc": "sonorant.encoders.npc:npc",
    "npc_tiny": "sonorant.encoders.npc:npc_tiny",
    "tera": "sonorant.encoders.tera:tera",
    "tera_medium": "sonorant.encoders.tera:tera_medium",
    "tera_large": "sonorant.encoders.tera:tera_large",
    "tera_tiny": "sonorant.encoders.tera:tera_tiny",
    "mockingjay": "sonorant.encoders.tera:mockingjay",
    "mockingjay_large": "sonorant.encoders.tera:mockingjay_large",
    "pase_plus": "sonorant.encoders.pase:pase_plus",
    "pase_tiny": "sonorant.encoders.pase:pase_tiny",
    "whisper_micro": "sonorant.encoders.whisper:whisper_micro",
    "whisper_tiny": "sonorant.encoders.whisper:whisper_tiny",
    "whisper_base": "sonorant.encoders.whisper:whisper_base",
    "whisper_small": "sonorant.encoders.whisper:whisper_small",
    "whisper_medium": "sonorant.encoders.whisper:whisper_medium",
    "whisper_large": "sonorant.encoders.whisper:whisper_large",
    "whisper_large_v3": "sonorant.encoders.whisper:whisper_large_v3",
    "whisper_large_v3_turbo": "sonorant.encoders.whisper:whisper_large_v3_turbo",
    "patch_tiny": "sonorant.encoders.patch:patch_tiny",
    "ast_base": "sonorant.encoders.patch:ast_base",
    "ssast_tiny": "sonorant.encoders.patch:ssast_tiny",
    "ssast_small": "sonorant.encoders.patch:ssast_small",
    "ssast_base": "sonorant.encoders.patch:ssast_base",
    "ssast_frame_base": "sonorant.encoders.patch:ssast_frame_base",
    "audio_mae_base": "sonorant.encoders.patch:audio_mae_base",
    "msm_mae_base": "sonorant.encoders.patch:msm_mae_base",
    "dasheng_tiny": "sonorant.encoders.dasheng:dasheng_tiny",
    "dasheng_base": "sonorant.encoders.dasheng:dasheng_base",
    "dasheng_06b": "sonorant.encoders.dasheng:dasheng_06b",
    "dasheng_12b": "sonorant.encoders.dasheng:dasheng_12b",
    "beats_tiny": "sonorant.encoders.beats:beats_tiny",
    "beats_base": "sonorant.encoders.beats:beats_base",
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
