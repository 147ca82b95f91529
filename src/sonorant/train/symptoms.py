"""Signs that a model says nothing any more, judged from what `diagnose` measures; and where gradients arrive."""

import math
from collections.abc import Iterator, Mapping

from torch import nn

from sonorant.train.config import DoctorConfig
from sonorant.train.devices import full_tensor

__all__ = ["collapses", "gradient_shares"]


def collapses(step: int, statistics: Mapping[str, float], config: DoctorConfig) -> Iterator[tuple[str, str]]:
    """Each sign of collapse in what `diagnose` says: its name, and the cause with what to do."""
    if config.collapse_steps and step >= config.collapse_steps:
        yield from _alike(statistics, config)
        for name, perplexity in statistics.items():
            if name.endswith("_perplexity") and perplexity < config.min_perplexity:
                yield name, _one_code(name.removesuffix("_perplexity"), perplexity)
    accuracy, chance = statistics.get("contrastive_accuracy"), statistics.get("contrastive_chance", 0.0)
    late = config.chance_steps and step >= config.chance_steps
    if late and accuracy is not None and accuracy < config.chance_factor * chance:
        message = (
            f"the contrastive choice is right in {accuracy:.2%}, and guessing gives {chance:.2%}: nothing was learnt. "
            "Raise the learning rate, shorten the spans that are hidden, take fewer negatives, raise the diversity "
            "weight if few codes are in use, and see whether one utterance alone can be learnt by heart"
        )
        yield "contrastive_accuracy", message


def _alike(statistics: Mapping[str, float], config: DoctorConfig) -> Iterator[tuple[str, str]]:
    variation, rank = statistics.get("frame_variation"), statistics.get("effective_rank")
    if not all(math.isfinite(value) for value in (variation, rank) if value is not None):
        message = (
            "the representation has collapsed: frames are not finite though the loss is. Lower the learning rate, clip the "
            "gradient, train in 32-true; look for a logarithm, a division or a norm of silence in the encoder"
        )
        yield "not_finite", message
    elif variation is not None and variation < config.min_variation:
        message = (
            f"the representation has collapsed: frames vary by {variation:.2g} of their mean square, so they are all "
            "alike. Lower the learning rate or lengthen its warm-up; for a moving teacher start with a lower decay "
            "and normalise its targets; see that the input is not silent or normalised away"
        )
        yield "frame_variation", message
    elif rank is not None and rank < config.min_rank:
        message = (
            f"the representation has collapsed to {rank:.2f} directions. Lower the learning rate, hide less or shorter "
            "spans, and see whether positions alone answer the question (targets that are a function of time)"
        )
        yield "effective_rank", message


def _one_code(what: str, perplexity: float) -> str:
    found = f"the {what} codes have collapsed: {perplexity:.2f} in equal use"
    if what == "target":
        return (
            f"{found}, so there is nothing to predict. The clustering or the quantiser that made them is at fault: fit it on "
            "more frames with other seeds, normalise its features, raise its diversity weight or start warmer"
        )
    return (
        f"{found}: one answer for every frame. Raise the learning rate or shorten the warm-up; see that labels belong to "
        "their audio and are spread over their units; for a quantiser raise the diversity weight or the temperature"
    )


def gradient_shares(module: nn.Module) -> dict[str, float]:
    """Norm of the gradient of each part of a module, over the norm of all, as `gradient/<part>`.

    Parts are the children, and those of a child that is called `encoder`.
    """
    squares: dict[str, float] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            words = name.split(".")
            part = ".".join(words[: 2 if words[0] == "encoder" and len(words) > 2 else 1])
            squares[part] = squares.get(part, 0.0) + float(full_tensor(parameter.grad.detach().float().square().sum()))
    total = sum(squares.values())
    return {f"gradient/{part}": (square / total) ** 0.5 if total else 0.0 for part, square in squares.items()}
