"""APC's and VQ-APC's own checkpoints ↔ our `Apc`."""

from sonorant.encoders.convert import KeyTable

__all__ = ["APC"]

_OUT = "prediction of pre-training"
APC = KeyTable(
    [
        (f"rnn_layers.{{}}.{kind}_l0", f"blocks.{{}}.recurrent.forwards.{kind}_l0")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ],
    dropped={"postnet.*": _OUT, "vq_layers.*": "quantisers of pre-training", "rnns_vq.*": "quantisers of pre-training"},
)
"""Checkpoints of APC, VQ-APC and the APC of the NPC repository."""
