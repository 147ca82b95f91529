"""What a result cost: seconds, processor seconds, peak memory; written by the toolkit beside every score."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Cost", "Measured", "measured"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a stage or a run."""

    seconds: float
    """Of the clock on the wall."""
    cpu_seconds: float
    """Of this process and the children it has waited for."""
    peak_memory_mb: float
    """Largest resident size of this process until now; it never falls, so an earlier stage's peak can stand here."""


class Measured:
    """Holds the cost once the block has ended."""

    value: Cost


@contextmanager
def measured() -> Iterator[Measured]:
    """Measures the block.

    >>> with measured() as cost:
    ...     _ = sum(range(1000))
    >>> cost.value.seconds >= 0
    True
    """
    result = Measured()
    start, cpu = time.perf_counter(), _cpu_seconds()
    yield result
    result.value = Cost(
        seconds=round(time.perf_counter() - start, 3),
        cpu_seconds=round(_cpu_seconds() - cpu, 3),
        peak_memory_mb=round(_peak_mb(), 1),
    )


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
