"""What a training's log is made from: sums since the last row, and the pace of this session."""

import time
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sonorant.train.devices import gather
from sonorant.train.step import StepResult

__all__ = ["Meter"]

Parts = dict[str, dict[str, Float[Tensor, ""]]]


class Meter:
    """Adds up steps; the sums are part of the training state, so the log of a resumed run has the same rows."""

    def __init__(self) -> None:
        self.audio_seconds = 0.0
        self.losses: dict[str, float] = {}
        """Of the last row."""
        self.rates: dict[str, float] = {}
        self.steps = 0
        """Of this session."""
        self._session_audio = 0.0
        self._start = time.perf_counter()
        self._local: Parts = {}
        self._clear()

    def _clear(self) -> None:
        self._window = 0
        self._totals: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._norms: dict[str, float] = {}
        self._parts: dict[str, dict[str, float]] = {}
        self._notes: dict[str, float] = {}

    def start(self) -> None:
        """Starts the session's clock."""
        self._start = time.perf_counter()

    def add(self, result: StepResult) -> None:
        """A step; one that was skipped counts as audio and time only."""
        self.steps += 1
        self.audio_seconds += result.seconds
        self._session_audio += result.seconds
        if result.fault:
            return
        self._window += 1
        self.rates = result.rates
        for name, loss in result.losses.items():
            self._totals[name] = self._totals.get(name, 0.0) + loss * result.counts[name]
            self._counts[name] = self._counts.get(name, 0.0) + result.counts[name]
            self._norms[name] = self._norms.get(name, 0.0) + result.norms[name]
            sums = self._local.setdefault(name, {})
            for part, value in result.parts[name].items():
                sums[part] = sums[part] + value if part in sums else value

    def note(self, statistics: Mapping[str, float]) -> None:
        """Figures for the next row."""
        self._notes.update(statistics)

    def fold(self, fabric: Any) -> None:
        """Brings the workers' parts together; every worker must call."""
        local = {name: {part: float(value) for part, value in parts.items()} for name, parts in self._local.items()}
        self._local.clear()
        for worker in gather(fabric, local):
            for name, parts in worker.items():
                sums = self._parts.setdefault(name, {})
                for part, value in parts.items():
                    sums[part] = sums.get(part, 0.0) + value

    def row(self, fabric: Any) -> dict[str, float]:
        """Means since the last row; every worker must call. Empty where every step was skipped."""
        self.fold(fabric)
        self.losses = {name: total / self._counts[name] for name, total in self._totals.items()}
        several = len(self._totals) > 1
        row: dict[str, float] = {}
        for name, loss in self.losses.items():
            end = f"_{name}" if several else ""
            row[f"loss{end}"] = loss
            parts = self._parts.get(name, {})
            row |= {f"{part}{end}": value / self._counts[name] for part, value in parts.items()}
            row[f"grad_norm{end}"] = self._norms[name] / self._window
            row[f"lr{end}"] = self.rates.get(name, 0.0)
        row |= self._notes
        self._clear()
        return row

    # --- pace -------------------------------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Seconds of this session."""
        return time.perf_counter() - self._start

    def speed(self) -> float:
        """Seconds of audio trained on in each second of this session, over all workers."""
        return self._session_audio / max(self.elapsed(), 1e-9)

    def waiting_share(self, waited: float) -> float:
        """Share of this session that its worker spent waiting for data, given the seconds it waited."""
        return waited / max(self.elapsed(), 1e-9)

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Call `fold` before."""
        return {key: getattr(self, key) for key in _KEPT}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key in _KEPT:
            setattr(self, key, state[key])


_KEPT = ("audio_seconds", "losses", "rates", "_window", "_totals", "_counts", "_norms", "_parts", "_notes")
