"""NPC's own checkpoints (Alexander-H-Liu/NPC) → our `Npc`, whose blocks have `norm="batch"` then."""

from collections.abc import Mapping

from jaxtyping import Shaped
from torch import Tensor

from sonorant.encoders.convert import Change, KeyTable, Weights

__all__ = ["NPC", "from_npc"]

NPC = KeyTable(
    [
        ("blocks.{}.conv.{}", "blocks.{}.conv.{}"),
        ("blocks.{}.linear.weight", "blocks.{}.linear.weight", Change(lambda t: t[..., 0], lambda t: t[..., None])),
        ("blocks.{}.linear.bias", "blocks.{}.linear.bias"),
        ("blocks.{}.bn1.{}", "blocks.{}.norms.0.{}"),
        ("blocks.{}.bn2.{}", "blocks.{}.norms.1.{}"),
        ("masked_convs.{}.conv_mask", "mask.{}"),
        ("masked_convs.{}.conv.{}", "convs.{}.{}"),
    ],
    dropped={"postnet.*": "prediction of pre-training", "vq_layers.*": "quantisers of pre-training"},
)
"""Their names; whole kernels and their masks under names that `from_npc` makes parts of."""


def from_npc(weights: Mapping[str, Shaped[Tensor, "..."]], where: str = "the checkpoint") -> Weights:
    """The authors' weights under our names: masked kernels are cut into the taps before and those behind the mask.

    Raises:
        CheckpointError: a key that the table does not know.
    """
    renamed = NPC.to_ours(weights, where).weights
    num_blocks = sum(name.startswith("mask.") for name in renamed)
    result = {name: tensor for name, tensor in renamed.items() if name.startswith("blocks.")}
    for index in range(num_blocks):
        kernel, place = renamed[f"convs.{index}.weight"], f"blocks.{num_blocks}.convs.{index}"
        taps = int(renamed[f"mask.{index}"][0, 0].sum()) // 2
        result[f"{place}.before.weight"] = kernel[..., :taps]
        result[f"{place}.behind.weight"] = kernel[..., kernel.shape[2] - taps :]
        result[f"{place}.before.bias"] = renamed[f"convs.{index}.bias"]
    return result
