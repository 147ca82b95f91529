"""`Score`, one of the seven types (`core.types`), by itself: who only lists or judges results need not load torch."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """A figure with its interval."""

    name: str
    value: float
    better: Literal["lower", "higher"]
    low: float | None = None
    """Lower end of the confidence interval (95 % unless the name says otherwise)."""
    high: float | None = None
    num_items: int = 0

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name} {self.value:.4g}{interval} (n={self.num_items})"
