"""CPC_audio's checkpoints, and fairseq's of wav2vec and vq-wav2vec, ↔ our `Cpc`."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sonorant.encoders.convert import Change, Converted, KeyTable
from sonorant.encoders.cpc import CpcConfig, cpc_small

__all__ = ["CPC_AUDIO", "WAV2VEC", "front", "read"]

WAV2VEC = KeyTable(
    [
        ("feature_extractor.conv_layers.{}.0.weight", "convs.convs.{}.weight"),
        ("feature_extractor.conv_layers.{}.2.{}", "convs.norms.{}.{}"),
        ("feature_aggregator.conv_layers.{}.1.{}", "blocks.{}.conv.{}"),
        ("feature_aggregator.conv_layers.{}.3.{}", "blocks.{}.norm.{}"),
    ],
    dropped={
        "wav2vec_predictions.*": "predictors of pre-training",
        "vector_quantizer.*": "quantiser of pre-training",
        "project_features.*": "projection of pre-training",
    },
)
"""fairseq's `wav2vec` models (wav2vec_large.pt, vq-wav2vec.pt, vq-wav2vec_kmeans.pt)."""


def _biased(weight: Tensor) -> Tensor:
    """Their norm of a frame's channels divides by the unbiased variance, n / (n − 1) of the one that layer norm takes: the
    weights are scaled by the root of the inverse, which leaves a difference through eps alone."""
    return weight.flatten() * math.sqrt((weight.numel() - 1) / weight.numel())


def _unbiased(weight: Tensor) -> Tensor:
    return (weight * math.sqrt(weight.numel() / (weight.numel() - 1))).view(1, -1, 1)


CPC_AUDIO = KeyTable(
    [
        *((f"gEncoder.conv{i}.{{}}", f"convs.convs.{i}.{{}}") for i in range(5)),
        *((f"gEncoder.batchNorm{i}.weight", f"convs.norms.{i}.weight", Change(_biased, _unbiased)) for i in range(5)),
        *(
            (f"gEncoder.batchNorm{i}.bias", f"convs.norms.{i}.bias", Change(Tensor.flatten, lambda t: t.view(1, -1, 1)))
            for i in range(5)
        ),
        *(
            (f"gAR.baseNet.{kind}_l{i}", f"blocks.{i}.forwards.{kind}_l0")
            for i in range(8)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
    ]
)
"""Models of facebookresearch/CPC_audio."""


def read(content: Any, where: str) -> tuple[CpcConfig, Converted] | None:
    """Configuration and weights of a file of CPC_audio, which holds the latter under `weights` or `gEncoder`; None if it is
    another toolkit's."""
    if not isinstance(content, Mapping):
        return None
    weights = content.get("weights", content.get("gEncoder"))
    if not isinstance(weights, Mapping) or "gEncoder.conv0.weight" not in weights:
        return None
    rows, hidden = weights["gAR.baseNet.weight_hh_l0"].shape
    config = cpc_small(
        local_dim=len(weights["gEncoder.conv0.weight"]),
        dim=hidden,
        kind="lstm" if rows == 4 * hidden else "gru",
        num_layers=sum(name.startswith("gAR.baseNet.weight_hh_l") for name in weights),
    )
    return config, CPC_AUDIO.to_ours(weights, where)


def front(config: CpcConfig) -> None:
    """It takes waveforms."""
