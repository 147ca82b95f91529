"""A teacher that follows its student slowly: the moving average of data2vec, DinoSR, BYOL and DINO.

The average is taken of the weights as the optimiser leaves them, once a step however many batches make one: `follow` looks
whether the weights have changed since it was last called. Averages and the number of updates are in the state dict, so a
resumed training has the teacher of the one left alone.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sonorant.core.config import at_least, within
from sonorant.objectives.steps import StepCounter

__all__ = ["Teacher", "decay_fields", "ramp"]


def ramp(start: float, end: float, steps: int) -> Callable[[int], float]:
    """From `start` to `end` in equal steps, and `end` from then on.

    >>> [ramp(0.0, 1.0, 4)(step) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    return lambda step: end if step >= steps else start + (end - start) * step / steps


class Teacher(nn.Module):
    """A copy of a module that learns nothing by itself and is never in training mode.

    Args:
        student: what is followed.
        averaged: the part of it that is averaged; all of it where None. Other parts are copied, and so are buffers.
    """

    def __init__(self, student: nn.Module, averaged: nn.Module | None = None) -> None:
        super().__init__()
        self.module: Any = copy.deepcopy(student).requires_grad_(False).eval()
        part = {id(parameter) for parameter in (student if averaged is None else averaged).parameters()}
        self._averaged = {name for name, parameter in student.named_parameters() if id(parameter) in part}
        self._student = (student,)  # in a tuple, lest it be registered as a part
        self.steps = StepCounter(student)

    @property
    def updates(self) -> int:
        """Steps that the teacher has followed."""
        return int(self.steps.count)

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode: no dropout in targets."""
        super().train(mode)
        self.module.eval()
        return self

    @torch.no_grad()
    def follow(self, decay: Callable[[int], float]) -> None:
        """Takes a step towards the student, if that has moved since the last call.

        Args:
            decay: number of updates so far → share of the average that is kept.
        """
        before = self.updates
        if not self.steps.tick():
            return
        student, own = self._student[0], dict(self.module.named_parameters())
        averages, targets = [], []
        for name, parameter in student.named_parameters():
            if name in self._averaged:
                averages.append(own[name])
                targets.append(parameter.detach())
            else:
                own[name].copy_(parameter)
        torch._foreach_lerp_(averages, targets, 1 - decay(before))
        for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)


def decay_fields(start: float, end: float, steps: int) -> None:
    """Refuses a schedule of decays that makes no sense, by name."""
    within("decay_start", start, 0, 1)
    within("decay_end", end, 0, 1)
    at_least("decay_steps", steps, 0)
