"""What a folder was trained with, and whether the present training may go on in it."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from sonorant.core.config import differences, to_plain
from sonorant.core.errors import TrainingError
from sonorant.train.config import TrainConfig, learning_fields

__all__ = ["Resume", "check_record", "run_record"]

Resume = Literal["auto", "ignore-config"]


def run_record(
    config: TrainConfig, settings: Any, optimizers: Mapping[str, torch.optim.Optimizer], workers: int
) -> dict[str, Any]:
    """Everything about a training that changes what is learnt, as plain values.

    How many steps it takes is left out, so that a finished training can be carried further.
    """
    described = {name: _described(optimizer) for name, optimizer in optimizers.items()}
    plain = {} if settings is None else to_plain(settings)
    return {"settings": plain, "train": learning_fields(config), "optimizers": described, "workers": workers}


_HOW = ("params", "foreach", "fused", "capturable", "differentiable")
"""Of a parameter group: what is not a setting, and how the same update is computed."""


def _described(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = {
        f"group{index}": {key: _plain(value) for key, value in group.items() if key not in _HOW}
        for index, group in enumerate(optimizer.param_groups)
    }
    return {"class": type(optimizer).__name__, **groups}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def check_record(
    there: Mapping[str, Any], now: Mapping[str, Any], *, folder: Any, step: int, resume: Resume
) -> list[str]:
    """Compares what a folder was trained with to the present training.

    Returns:
        A line for each difference that `resume="ignore-config"` lets pass.

    Raises:
        TrainingError: they differ; the message names the fields and the ways to go on.
    """
    found = differences(there, now)
    lines = [f"{name}: there {old!r}, now {new!r}" for name, old, new in found]
    if not lines or resume == "ignore-config":
        return lines
    rows = "\n".join(f"  {line}" for line in lines[:20])
    more = f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else ""
    raise TrainingError(
        f"{folder} holds a training (at step {step}) with another configuration:\n{rows}{more}\n"
        "Give another folder to train anew, restore these fields to go on as it was, or go on from its state with the new "
        "configuration by resume='ignore-config' (on the command line --resume ignore-config)"
    )
