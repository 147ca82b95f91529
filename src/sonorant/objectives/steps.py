"""Counts the steps of an optimiser from inside an objective, for what changes with time: temperatures, teachers.

`losses` is called once a batch, and several batches may make one step; a step shows in the weights.
"""

import torch
from torch import Tensor, nn

__all__ = ["StepCounter"]


class StepCounter(nn.Module):
    """Number of steps that a module's weights have taken, as far as `tick` was called between them.

    Count and whether a step has not been counted yet are in the state dict, so that a resumed training counts as the one
    left alone does.

    Args:
        module: what is trained; not a part of this one.
    """

    count: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, lest it be registered as a part
        self._seen: int | None = None
        self._due = False
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def tick(self) -> bool:
        """True, and counted, if the weights have changed since the last call."""
        moved, self._seen = self._moved(), self._weights_version()
        if moved:
            self.count += 1
        return moved

    def _weights_version(self) -> int:
        # torch counts for each tensor how often it was written to.
        return sum(parameter._version for parameter in self._module[0].parameters())

    def _moved(self) -> bool:
        return self._due if self._seen is None else self._weights_version() != self._seen

    def get_extra_state(self) -> Tensor:
        """Whether a step is still to be counted; a tensor, as checkpoints hold nothing else."""
        return torch.tensor(self._moved())

    def set_extra_state(self, state: Tensor) -> None:
        self._due, self._seen = bool(state), None
