"""A system's card, its claims, and what it takes to prove one.

`prove` runs a recipe under several seeds and compares arms within each seed. A claim holds when the mean difference points
the claimed way and its t-interval over the seeds leaves out the margin; a control is a comparison that must *not* hold.
"""

import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sonorant.core.config import to_plain
from sonorant.core.errors import ConfigError, unknown_name
from sonorant.core.files import atomic_write
from sonorant.core.score import Score

__all__ = ["Card", "Claim", "Verdict", "judge", "load_result", "save_result"]

Outcome = Literal["holds", "does not hold"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """Who a recipe is."""

    system: str
    """Number of the paper, or the name of a seed system."""
    title: str
    paper: str
    """arXiv id or address."""
    family: str
    """Folder of the recipe: asr, ssl, units, …"""
    headline: str
    """What the source reports, in a sentence."""


@dataclass(frozen=True)
class Claim:
    """That one arm's score lies below (or above) another arm's, or a number.

    Scores bear names `arm/metric`; `Claim("wer", of="lm", below="greedy")` compares `lm/wer` with `greedy/wer`.
    """

    metric: str
    of: str
    below: str | float | None = None
    above: str | float | None = None
    must_fail: bool = False
    """A control: the comparison must *not* hold, else the proof shows nothing."""
    why: str = ""

    def __post_init__(self) -> None:
        if (self.below is None) == (self.above is None):
            raise ConfigError(f"claim on {self.of}/{self.metric}: give either below or above")

    @property
    def other(self) -> str | float:
        return self.below if self.below is not None else self.above  # type: ignore[return-value]

    def __str__(self) -> str:
        word = "<" if self.below is not None else ">"
        right = f"{self.other}/{self.metric}" if isinstance(self.other, str) else f"{self.other:g}"
        return f"{self.of}/{self.metric} {word} {right}" + (" (control, must fail)" if self.must_fail else "")


@dataclass(frozen=True)
class Verdict:
    """What several seeds say of a claim."""

    claim: str
    outcome: Outcome
    difference: float
    """Mean over seeds of (this arm − the other), in the metric's unit."""
    low: float
    """95 % t-interval of the difference over the seeds."""
    high: float
    num_seeds: int


# Two-sided 95 % quantiles of Student's t for 1, 2, 3, … degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def judge(claim: Claim, runs: Sequence[Mapping[str, Score]]) -> Verdict:
    """Compares two arms within each seed.

    Args:
        claim: what is claimed.
        runs: for each seed its scores by name.

    A score that is not finite shows nothing: neither the claim nor a control holds.

    Raises:
        ConfigError: fewer than two runs, or a run lacks a score that the claim names.
    """
    if len(runs) < 2:
        raise ConfigError(f"a claim needs at least 2 seeds for an interval, got {len(runs)}")
    gaps = [_value(run, claim.of, claim.metric) - _value(run, claim.other, claim.metric) for run in runs]
    if not all(map(math.isfinite, gaps)):
        return Verdict(str(claim), "does not hold", math.nan, -math.inf, math.inf, len(gaps))
    mean = statistics.fmean(gaps)
    quantile = _T95[min(len(gaps) - 1, len(_T95)) - 1]
    half = quantile * statistics.stdev(gaps) / math.sqrt(len(gaps))
    shown = mean + half < 0 if claim.below is not None else mean - half > 0
    holds = shown != claim.must_fail
    return Verdict(str(claim), "holds" if holds else "does not hold", mean, mean - half, mean + half, len(gaps))


def _value(run: Mapping[str, Score], arm: str | float, metric: str) -> float:
    if not isinstance(arm, str):
        return float(arm)
    name = f"{arm}/{metric}"
    if name not in run:
        raise ConfigError(unknown_name("score", name, run))
    return run[name].value


# --- stored results ---------------------------------------------------------------------------------------------------


def save_result(
    path: Path,
    *,
    recipe: str,
    preset: str,
    command: str,
    config: Any,
    runs: Sequence[Mapping[str, Score]],
    verdicts: Sequence[Verdict],
    seconds: float,
    machine: str,
) -> None:
    """Writes what `prove` measured as JSON: scores by seed, verdicts, commit, command, machine."""
    record = {
        "recipe": recipe,
        "preset": preset,
        "command": command,
        "commit": _commit(),
        "machine": machine,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "config": to_plain(config),
        "runs": [[to_plain(score) for score in run.values()] for run in runs],
        "verdicts": [to_plain(verdict) for verdict in verdicts],
    }
    with atomic_write(path) as file:
        file.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def load_result(path: Path) -> dict[str, Any] | None:
    """A stored result, or None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and {"verdicts", "preset", "date"} <= found.keys() else None


def _commit(run: Callable[..., Any] = subprocess.run) -> str:
    """The commit of the sources that run, or the version where they are not a checkout."""
    from sonorant import __version__

    here = Path(__file__).parent
    try:
        found = run(["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"v{__version__}"
    return str(found.stdout).strip()
