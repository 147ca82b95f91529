"""What every bench script shares: interleaved timing against a peer, peak memory, a table, and a stored result.

Machines are shared and noisy, so ours and the peer's runs alternate (ours, peer, ours, peer, …) and what is reported is
the median of the ratios within each pair, not a ratio of two medians.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Pair:
    """Seconds of each run, in the order in which they ran."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ours_seconds(self) -> float:
        return statistics.median(self.ours)

    @property
    def peer_seconds(self) -> float:
        return statistics.median(self.peer)

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the median over pairs of peer / ours."""
        return statistics.median(peer / ours for ours, peer in zip(self.ours, self.peer, strict=True))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int = 7) -> Pair:
    """Runs both once to warm up, then `repeats` times in turn."""
    ours()
    peer()
    runs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    return Pair(tuple(run[0] for run in runs), tuple(run[1] for run in runs))


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def peak_of(work: Callable[[], Any]) -> float:
    """MB that some work adds to what this process holds, at its highest; Linux only.

    The largest size so far will not do: making a model may have taken more for a moment than the work takes.
    """
    before = _status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    work()
    return _status_mb("VmHWM") - before


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def machine() -> str:
    """The machine in words: processor, cores, Python and torch."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def commit() -> str:
    """Short name of the commit that was measured, with a plus where the tree had changes."""
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(" --- " for _ in columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(name: str, title: str, rows: Sequence[Mapping[str, Any]], notes: str = "", command: str = "") -> None:
    """Prints the table and stores it as `bench/results/<name>.json`, from which `bench/README.md` is made.

    `command` stands in for the one that was typed, where that holds paths of one machine. A run with `--quick` never takes
    the place of a stored full one.
    """
    print(f"\n## {title}\n\n{table(rows)}\n")
    if notes:
        print(notes)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    if "--quick" in sys.argv and file.is_file() and "--quick" not in json.loads(file.read_text())["command"]:
        print(f"not stored: {file.name} holds a full run, and this was a quick one", file=sys.stderr)
        return
    stored = {
        "title": title,
        "command": command or " ".join(["python", f"bench/{name}.py", *sys.argv[1:]]),
        "machine": machine(),
        "commit": commit(),
        "notes": notes,
        "rows": [dict(row) for row in rows],
    }
    file.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
