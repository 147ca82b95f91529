"""Stops a training that cannot succeed, in its first minutes, with the cause and what to do.

`inspect` looks at batches before they are used, `observe` at the losses of each step, `examine` at what the task says of its
output, `starved` at the time spent waiting. Every message names the items or figures it rests on. The losses that it
remembers are part of the training state, so a resumed run stops where the uninterrupted one would.
"""

import logging
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonorant.core.errors import TrainingError
from sonorant.core.types import Batch
from sonorant.train.config import DoctorConfig
from sonorant.train.symptoms import collapses

__all__ = ["Diagnosis", "Doctor", "dead_items", "untargeted_items"]

logger = logging.getLogger(__name__)
WINDOW = 200
"""Losses that the running median is taken over."""


class Diagnosis(TrainingError):
    """Training was stopped because it cannot succeed as it is; the message says why and what to do."""


@dataclass
class _LossHistory:
    """Of one optimiser's loss."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    first: list[float] = field(default_factory=list)
    threshold: float | None = None
    spikes: int = 0
    same: int = 0


class Doctor:
    """Watches one training; see the module's docstring."""

    def __init__(self, config: DoctorConfig) -> None:
        self.config = config
        self._losses: dict[str, _LossHistory] = {}
        self._nonfinite = 0
        self._inspected = 0
        self._items = 0
        self._dead: list[str] = []
        self._untargeted: list[str] = []
        self._warned: set[str] = set()
        self._symptoms: dict[str, int] = {}
        """Signs of collapse, and in how many looks in a row each was seen."""

    # --- batches --------------------------------------------------------------------------------------------------

    def inspect(self, batch: Any) -> None:
        """Looks for dead audio and missing targets in the first batches and, later, in some.

        Raises:
            Diagnosis: more than `dead_share` of the items seen so far are of no use.
        """
        count, self._inspected = self._inspected, self._inspected + 1
        if not isinstance(batch, Batch) or not self._due(count):
            return
        self._items += len(batch)
        dead = dead_items(batch.waveform, batch.lengths) if batch.waveform.shape[-1] else []
        self._dead += _names(batch.ids, dead)
        untargeted = untargeted_items(batch)
        self._untargeted += _names(batch.ids, untargeted)
        self._refuse(
            self._dead,
            "carry constant or non-finite audio",
            "The files are silent, truncated or read from the wrong channel: play one, and run the corpus checks",
        )
        self._refuse(
            self._untargeted,
            "have text but no target",
            "The alphabet does not cover these labels (another language, case or script?): see the uncovered characters "
            "in the corpus checks, normalise the text, or build the alphabet from this corpus",
        )

    def _due(self, count: int) -> bool:
        every = self.config.inspect_every
        return count < self.config.inspect_first or bool(every and count % every == 0)

    def _refuse(self, found: Sequence[str], what: str, remedy: str) -> None:
        if found and what not in self._warned:
            self._warned.add(what)
            logger.warning("item %s: among those that %s", found[0], what)
        share = self.config.dead_share
        if share and len(found) > share * self._items:
            some = ", ".join(found[:5])
            raise Diagnosis(f"{len(found)} of the first {self._items} items {what}, such as {some}. {remedy}")

    # --- losses ---------------------------------------------------------------------------------------------------

    def skipped(self, step: int, reason: str, ids: Sequence[str]) -> None:
        """Takes note of a step that was skipped because something was not finite.

        Raises:
            Diagnosis: it is the `max_nonfinite`-th in a row.
        """
        self._nonfinite += 1
        some = ", ".join(ids[:8]) or "no ids given"
        logger.warning("step %d skipped: %s (items %s)", step, reason, some)
        if 0 < self.config.max_nonfinite <= self._nonfinite:
            raise Diagnosis(
                f"{self._nonfinite} steps in a row were not finite, the last at step {step}: {reason}; items {some}. "
                "Lower the learning rate or lengthen the warm-up, clip the gradient, train in 32-true; if it is always "
                "the same items, look at them: a target longer than its frames, or a logarithm or division of silence"
            )

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        """Looks at the mean losses of a finished step.

        Raises:
            Diagnosis: a loss explodes, is flat, or is frozen.
        """
        self._nonfinite = 0
        for name, loss in losses.items():
            history = self._losses.setdefault(name, _LossHistory())
            self._exploding(step, name, loss, history)
            self._frozen(step, name, loss, history)
            history.recent.append(loss)
            self._flat(step, name, history)

    def _exploding(self, step: int, name: str, loss: float, history: _LossHistory) -> None:
        factor, limit = self.config.spike_factor, self.config.spike_steps
        if not factor or not limit or len(history.recent) < 20:
            return
        # A loss can be negative (a log-density, an SNR), so the distance from the median counts, not the ratio to it.
        # The median is taken now and then: sorting the window at each step would cost more than a small model does.
        if history.threshold is None or (step % 20 == 0 and not history.spikes):
            middle = statistics.median(history.recent)
            history.threshold = middle + factor * max(abs(middle), 1e-6)
        history.spikes = history.spikes + 1 if loss > history.threshold else 0
        if history.spikes >= limit:
            raise Diagnosis(
                f"the loss '{name}' explodes: {loss:.4g} at step {step}, {history.spikes} steps in a row "
                f"above {history.threshold:.4g}, which is {factor:g} times its running median away from it. "
                "Lower the learning rate, lengthen the warm-up, or clip the gradient (clip_norm); then go on "
                "from a checkpoint before this step, in a copy of the folder"
            )

    def _frozen(self, step: int, name: str, loss: float, history: _LossHistory) -> None:
        limit = self.config.frozen_steps
        history.same = history.same + 1 if history.recent and loss == history.recent[-1] and loss != 0 else 0
        if limit and history.same >= limit:
            raise Diagnosis(
                f"the loss '{name}' has been exactly {loss:.6g} for {history.same} steps (now step {step}): nothing "
                "learns. Is the learning rate 0, is the model frozen or detached from its loss, or are all inputs the same?"
            )

    def _flat(self, step: int, name: str, history: _LossHistory) -> None:
        limit = self.config.flat_steps
        if len(history.first) < WINDOW // 4:
            history.first.append(history.recent[-1])
        if not limit or step != limit or len(history.recent) < WINDOW:
            return
        before, now = statistics.median(history.first), statistics.median(history.recent)
        if before - now <= self.config.flat_tolerance * abs(before):
            raise Diagnosis(
                f"the loss '{name}' is flat: {before:.4g} at the start, {now:.4g} after {step} steps. Raise the learning "
                "rate or shorten the warm-up, check that labels belong to their audio, and see whether one utterance alone "
                "can be learnt by heart. (Adversarial losses may stay flat: doctor.flat_steps 0)"
            )

    # --- output, gradients, time ----------------------------------------------------------------------------------

    def examine(self, step: int, statistics: Mapping[str, float]) -> None:
        """Looks at what the task's `diagnose` says of its present output.

        Raises:
            Diagnosis: "blank_share" is still at the limit after `blank_steps`, or a representation has collapsed.
        """
        self._collapsed(step, statistics)
        share = statistics.get("blank_share", 0.0)
        limit = self.config.blank_steps
        if limit and step >= limit and share >= self.config.blank_share:
            raise Diagnosis(
                f"the output is all blank: {share:.1%} of frames at step {step}. CTC leaves blanks when loss falls below a "
                "plateau; it did not. Raise the learning rate, start with shorter utterances, lower the number of tokens "
                "or the stride, and check that the labels are not empty"
            )

    def _collapsed(self, step: int, statistics: Mapping[str, float]) -> None:
        found = dict(collapses(step, statistics, self.config))
        for gone in set(self._symptoms) - set(found):
            del self._symptoms[gone]
        for symptom, message in found.items():
            self._symptoms[symptom] = self._symptoms.get(symptom, 0) + 1
            if 0 < self.config.collapse_checks <= self._symptoms[symptom]:
                raise Diagnosis(f"{message} (step {step}, {self._symptoms[symptom]} checks in a row)")
            logger.warning("step %d: %s", step, message)

    def unreached(self, module: nn.Module) -> list[str]:
        """Names of parameters that learn and got no gradient in the first step, warned of once.

        Raises:
            Diagnosis: none got any.
        """
        learning = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        idle = [name for name, p in learning if p.grad is None]
        if learning and len(idle) == len(learning):
            raise Diagnosis(
                "no parameter got a gradient: the loss does not depend on the model. Was it detached, computed under "
                "no_grad, or from predictions that were rounded (argmax)?"
            )
        if idle:
            some = ", ".join(idle[:5])
            logger.warning("%d of %d parameters got no gradient in the first step: %s", len(idle), len(learning), some)
        return idle

    def starved(self, waiting_share: float) -> None:
        """Warns, once, when the loader holds the model up."""
        limit = self.config.starved_share
        if limit and waiting_share > limit and "starved" not in self._warned:
            self._warned.add("starved")
            logger.warning(
                "training waits for data %.0f %% of the time: use more loader workers, cache features, or store the "
                "corpus in shards near the machine",
                100 * waiting_share,
            )

    # --- state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        losses = {name: {**vars(history), "recent": list(history.recent)} for name, history in self._losses.items()}
        return {"losses": losses, "nonfinite": self._nonfinite, "symptoms": dict(self._symptoms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._nonfinite = state["nonfinite"]
        self._symptoms = dict(state.get("symptoms", {}))  # older checkpoints have none
        self._losses = {
            name: _LossHistory(**{**history, "recent": deque(history["recent"], maxlen=WINDOW)})
            for name, history in state["losses"].items()
        }


def dead_items(
    waveform: Float[Tensor, "batch time"] | Float[Tensor, "batch channel time"], lengths: Int[Tensor, " batch"]
) -> list[int]:
    """Positions of items whose audio is constant in every channel (silence, a stuck converter) or not finite.

    >>> dead_items(torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.3, 0.0]]), torch.tensor([2, 2]))
    [1]
    """
    inside = torch.arange(waveform.shape[-1], device=waveform.device) < lengths.view(-1, *[1] * (waveform.dim() - 1))
    # Padding is zeros, which would make a constant item vary: its own first sample stands in for it.
    kept = torch.where(inside, waveform, waveform[..., :1])
    span = (kept.amax(dim=-1) - kept.amin(dim=-1)).flatten(1 if waveform.dim() > 2 else 0)
    span = span.amax(dim=1) if waveform.dim() > 2 else span
    return torch.nonzero(~(span > 0) | ~torch.isfinite(span)).flatten().tolist()


def untargeted_items(batch: Batch) -> list[int]:
    """Positions of items whose text became no token at all."""
    lengths = batch.labels.get("tokens_lengths")
    if lengths is None:
        return []
    texts = batch.labels.get("text", [None] * len(batch))
    return [i for i, (n, text) in enumerate(zip(lengths.tolist(), texts)) if n == 0 and (text is None or text.strip())]


def _names(ids: Sequence[str], positions: Sequence[int]) -> list[str]:
    return [ids[i] if i < len(ids) else f"#{i}" for i in positions]
