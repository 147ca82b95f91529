"""Tuning a frozen encoder by a few weights (arXiv:2210.06175 compares these for speech).

>>> from sonorant.encoders.catalogue import build_encoder
>>> encoder = build_encoder("wav2vec2_tiny")
>>> names = adapt(encoder, LoraConfig(rank=2), AdapterBiasConfig())
>>> names[0], str(trainable_share(encoder))
('stack.blocks.0.attention.query_key_value.parts.lora.down', '1 282 of 103 762 weights are trained (1.24 %)')

`adapt` freezes the encoder, changes it in place and gives the names of what is left to be trained: LoRA, Houlsby's
bottlenecks, AdapterBias, prefixes, or some of the encoder's own weights (BitFit, LNA). What was trained is stored alone
(`save_adapter`, `load_adapter`), and LoRA can be folded into the weights (`merge`, `unmerge`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonorant.core.checkpoint import load_checkpoint, save_checkpoint
from sonorant.core.config import at_least, from_plain, one_of, to_plain, within
from sonorant.core.errors import CheckpointError, ConfigError, unknown_name
from sonorant.nn.adapters import AdaptedLinear, Bottleneck, GatedPrefix, LowRank, PrefixedAttention, TokenShift
from sonorant.nn.linear import Linear

__all__ = [
    "ADAPTERS", "AdapterBiasConfig", "BitFitConfig", "HoulsbyConfig", "LnaConfig", "LoraConfig", "PrefixConfig",
    "TrainableShare", "adapt", "adapter_weights", "load_adapter", "merge", "save_adapter", "trainable_share", "unmerge",
]  # fmt: skip

KIND = "adapter"
PARTS = ("query", "key", "value")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Changes of low rank to the attention's products (arXiv:2106.09685)."""

    rank: int = 8
    """Of the change (section 4.1)."""
    alpha: float = 8.0
    """The change is multiplied by alpha / rank."""
    parts: tuple[str, ...] = ("query", "value")
    """Of query, key, value and output (section 7.1)."""
    dropout: float = 0.0
    """On what comes in."""
    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""

    def __post_init__(self) -> None:
        at_least("rank", self.rank, 1)
        within("dropout", self.dropout, 0, 0.99)
        if not self.parts:
            raise ConfigError("parts must name at least one of query, key, value, output")
        for part in self.parts:
            one_of("parts", part, (*PARTS, "output"))


@dataclass(frozen=True, kw_only=True)
class HoulsbyConfig:
    """Bottlenecks behind attention and feed-forwards (arXiv:1902.00751)."""

    dim: int = 32
    """Of the bottleneck (arXiv:2210.06175, section 4)."""
    places: tuple[str, ...] = ("attention", "ffn")
    """Of attention and ffn."""
    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""

    def __post_init__(self) -> None:
        at_least("dim", self.dim, 1)
        for place in self.places:
            one_of("places", place, ("attention", "ffn"))


@dataclass(frozen=True, kw_only=True)
class AdapterBiasConfig:
    """A shift behind the feed-forwards that each frame weighs (arXiv:2205.00305)."""

    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""


@dataclass(frozen=True, kw_only=True)
class PrefixConfig:
    """Learnt frames that the attention looks at too (arXiv:2101.00190, behind a gate as in arXiv:2303.16199)."""

    length: int = 6
    """Learnt frames (arXiv:2210.06175, section 4)."""
    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""

    def __post_init__(self) -> None:
        at_least("length", self.length, 1)


@dataclass(frozen=True, kw_only=True)
class BitFitConfig:
    """The biases of the blocks (arXiv:2106.10199)."""

    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""


@dataclass(frozen=True, kw_only=True)
class LnaConfig:
    """Layer norms and attention of the blocks (arXiv:2010.12829, section 3.1)."""

    norms: bool = True
    """The layer norms."""
    attention: bool = True
    """The attention."""
    layers: tuple[int, ...] = ()
    """Blocks, the first is 0; all where empty."""


@dataclass(frozen=True)
class TrainableShare:
    """How much of a module is trained."""

    trained: int
    total: int

    @property
    def share(self) -> float:
        return self.trained / max(1, self.total)

    def __str__(self) -> str:
        counts = f"{self.trained:,} of {self.total:,}".replace(",", " ")
        return f"{counts} weights are trained ({self.share:.2%})".replace("%", " %")


def trainable_share(module: nn.Module) -> TrainableShare:
    """How many of a module's weights ask for a gradient."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return TrainableShare(sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes))


# --- adapting ---------------------------------------------------------------------------------------------------------


def adapt(encoder: Any, *configs: Any) -> list[str]:
    """Freezes an encoder and adds what is to be trained, in place; the frames that come out are the same as before.

    Args:
        encoder: with `blocks`.
        configs: one or several of `ADAPTERS`; several kinds stand beside each other.

    Returns:
        the names of the parameters that are trained.

    Raises:
        ConfigError: a block has no part of the kind that is asked for, or is adapted in this way already.
    """
    kinds = [_kind(config) for config in configs]
    if not configs:
        raise ConfigError(f"adapt needs at least one configuration, of {', '.join(ADAPTERS)}")
    already = {_kind(config) for config in getattr(encoder, "adapted", ())}
    if already.intersection(kinds) or len(set(kinds)) < len(kinds):
        raise ConfigError(f"the encoder is adapted by {sorted(already) or 'nothing'} and cannot get {kinds} as well")
    if not already:
        encoder.requires_grad_(False)
    for config in configs:
        for block in _chosen(encoder, config.layers):
            ADAPTERS[_kind(config)][1](block, config)
    encoder.adapted = (*getattr(encoder, "adapted", ()), *configs)
    return [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]


def _kind(config: Any) -> str:
    for name, (kind, _) in ADAPTERS.items():
        if isinstance(config, kind):
            return name
    raise ConfigError(f"{type(config).__name__} adapts nothing; known are {', '.join(ADAPTERS)}")


def _chosen(encoder: Any, layers: tuple[int, ...]) -> list[nn.Module]:
    blocks = list(encoder.blocks)
    for layer in layers:
        if not 0 <= layer < len(blocks):
            raise ConfigError(f"layers: the encoder has blocks 0 to {len(blocks) - 1}, got {layer}")
    return [blocks[layer] for layer in layers] if layers else blocks


def _attentions(block: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """(who holds it, under which name, the attention); the one inside a prefixed attention, not that."""
    found = [
        (parent, name, child)
        for parent in block.modules()
        for name, child in parent.named_children()
        if not isinstance(child, PrefixedAttention)
        and isinstance(getattr(child, "query_key_value", None), nn.Linear)
        and isinstance(getattr(child, "output", None), nn.Linear)
    ]
    if not found:
        raise ConfigError(_nothing(block, "attention with query_key_value and output"))
    return found


def _feed_forwards(block: nn.Module) -> list[tuple[nn.Module, str]]:
    """Who holds the last product of each feed-forward, and under which name."""
    found = []
    for name, module in block.named_modules():
        if name.rpartition(".")[2].endswith("ffn"):
            linear = [(parent, key) for parent in module.modules() for key, child in parent.named_children()
                      if isinstance(child, nn.Linear)]  # fmt: skip
            found += [(parent, key) for parent, key in linear[-1:]]
    if not found:
        raise ConfigError(_nothing(block, "feed-forward (a part whose name ends in ffn)"))
    return found


def _nothing(block: nn.Module, wanted: str) -> str:
    there = ", ".join(f"{name} ({type(child).__name__})" for name, child in block.named_children())
    return (
        f"{type(block).__name__} holds no {wanted}; it holds {there or 'nothing'}. Choose another kind or other layers"
    )


def _put(parent: nn.Module, name: str, kind: str, part: nn.Module) -> None:
    """Sets a part on a linear layer."""
    linear: Any = parent.get_submodule(name)
    if not isinstance(linear, AdaptedLinear):
        if type(linear) not in (nn.Linear, Linear):
            raise ConfigError(f"{name} is a {type(linear).__name__} and not a plain linear layer; it cannot be adapted")
        linear = AdaptedLinear(linear)
        linear.train(parent.training)
        setattr(parent, name, linear)
    linear.parts[kind] = part.to(linear.weight.device, linear.weight.dtype)


def _lora(block: nn.Module, config: LoraConfig) -> None:
    for _, _, attention in _attentions(block):
        joined, output = attention.query_key_value, attention.output
        chosen = [index for index, part in enumerate(PARTS) if part in config.parts]
        if chosen:
            widths = [joined.out_features // 3] * 3
            part = LowRank(joined.in_features, widths, chosen, config.rank, config.alpha, config.dropout)
            _put(attention, "query_key_value", "lora", part)
        if "output" in config.parts:
            widths = [output.out_features]
            part = LowRank(output.in_features, widths, [0], config.rank, config.alpha, config.dropout)
            _put(attention, "output", "lora", part)


def _houlsby(block: nn.Module, config: HoulsbyConfig) -> None:
    places = []
    if "attention" in config.places:
        places += [(attention, "output") for _, _, attention in _attentions(block)]
    if "ffn" in config.places:
        places += _feed_forwards(block)
    for parent, name in places:
        _put(parent, name, "houlsby", Bottleneck(parent.get_submodule(name).out_features, config.dim))  # type: ignore[arg-type]


def _adapter_bias(block: nn.Module, config: AdapterBiasConfig) -> None:
    for parent, name in _feed_forwards(block):
        _put(parent, name, "adapter_bias", TokenShift(parent.get_submodule(name).out_features))  # type: ignore[arg-type]


def _prefix(block: nn.Module, config: PrefixConfig) -> None:
    for parent, name, attention in _attentions(block):
        output = attention.output
        prefix = GatedPrefix(output.in_features, attention.num_heads, config.length)
        prefixed = PrefixedAttention(attention, prefix.to(output.weight.device, output.weight.dtype))
        setattr(parent, name, prefixed.train(parent.training))


def _bitfit(block: nn.Module, config: BitFitConfig) -> None:
    for name, parameter in block.named_parameters():
        if name.rpartition(".")[2] == "bias" and ".parts." not in name:
            parameter.requires_grad_(True)


def _lna(block: nn.Module, config: LnaConfig) -> None:
    if config.norms:
        for module in block.modules():
            if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                module.requires_grad_(True)
    if config.attention:
        for _, _, attention in _attentions(block):
            attention.requires_grad_(True)


ADAPTERS: dict[str, tuple[type, Callable[[nn.Module, Any], None]]] = {
    "lora": (LoraConfig, _lora),
    "houlsby": (HoulsbyConfig, _houlsby),
    "adapter_bias": (AdapterBiasConfig, _adapter_bias),
    "prefix": (PrefixConfig, _prefix),
    "bitfit": (BitFitConfig, _bitfit),
    "lna": (LnaConfig, _lna),
}
"""Name → (configuration, what it does to a block)."""


# --- folding LoRA into the weights ------------------------------------------------------------------------------------


def _low_ranks(encoder: nn.Module) -> Iterator[tuple[AdaptedLinear, LowRank]]:
    for module in encoder.modules():
        if isinstance(module, AdaptedLinear):
            for part in module.parts.values():
                if isinstance(part, LowRank):
                    yield module, part


@torch.no_grad()
def merge(encoder: nn.Module) -> int:
    """Adds LoRA's changes to the weights, so that they cost nothing any more; returns how many there were."""
    count = 0
    for linear, part in _low_ranks(encoder):
        if not part.merged:
            linear.weight.add_(part.change())
            part.merged, count = True, count + 1
    return count


@torch.no_grad()
def unmerge(encoder: nn.Module) -> int:
    """Takes them out again; returns how many there were."""
    count = 0
    for linear, part in _low_ranks(encoder):
        if part.merged:
            linear.weight.sub_(part.change())
            part.merged, count = False, count + 1
    return count


# --- the adapter alone ------------------------------------------------------------------------------------------------


def adapter_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name.

    Raises:
        ConfigError: LoRA is merged, so that loading it on the merged weights would count it twice.
    """
    if any(part.merged for _, part in _low_ranks(encoder)):
        raise ConfigError("LoRA is merged into the weights; call unmerge first")
    return {name: parameter.detach() for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def save_adapter(encoder: Any, folder: str | Path) -> Path:
    """Writes what `adapt` added or left to be trained, without the encoder."""
    adapted = getattr(encoder, "adapted", ())
    if not adapted:
        raise ConfigError("the encoder is not adapted; call adapt first")
    told = [{"kind": _kind(config), "options": to_plain(config)} for config in adapted]
    return save_checkpoint(folder, kind=KIND, weights=adapter_weights(encoder), config={"adapters": told})


def _told(told: Any, folder: str | Path) -> Any:
    """The configuration that `save_adapter` told."""
    kind = str(told.get("kind")) if isinstance(told, dict) else ""
    if kind not in ADAPTERS:
        raise CheckpointError(f"{folder}: {unknown_name('kind of adapter', kind, ADAPTERS)}")
    return from_plain(ADAPTERS[kind][0], told.get("options", {}))


def load_adapter(encoder: Any, folder: str | Path) -> list[str]:
    """Adapts an encoder as that one was from which the adapter was stored; returns the names of what is trained.

    Raises:
        CheckpointError: it belongs to an encoder of other sizes, or holds a kind of adapter that is not known.
    """
    found = load_checkpoint(folder, kind=KIND)
    names = adapt(encoder, *(_told(one, folder) for one in found.config.get("adapters", ())))
    own = dict(encoder.named_parameters())
    wrong = [name for name in sorted({*names, *found.weights})
             if name not in found.weights or name not in own or own[name].shape != found.weights[name].shape]  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"{folder} was trained on another encoder: {len(wrong)} of its tensors do not fit, such as {wrong[0]}"
        )
    with torch.no_grad():
        for name, tensor in found.weights.items():
            own[name].copy_(tensor)
    return names
