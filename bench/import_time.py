"""What an import costs: `import sonorant` and its key modules over `import torch`, and the command line's help.

    python bench/import_time.py [--quick]

Each import runs in a process of its own, after `import torch`, by that process's own clock, so that neither the start of the
interpreter nor torch counts. The aim is 0.2 s for `import sonorant`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import report

SRC = Path(__file__).resolve().parents[1] / "src"
AIM = 0.2
MODULES = (
    "sonorant",
    "sonorant.core.types",
    "sonorant.audio.io",
    "sonorant.audio.features.fbank",
    "sonorant.metrics.edit",
    "sonorant.encoders.catalogue",
    "sonorant.decoding.ctc_beam",
    "sonorant.train.loop",
    "sonorant.recipes.catalogue",
    "sonorant.data.batches",
    "sonorant.data.corpora.catalogue",
    "sonorant.tasks.asr.package",
)
PROBE = """
import resource, sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
__import__(sys.argv[1])
end = time.perf_counter()
ours = sum(name.partition(".")[0] == "sonorant" for name in sys.modules)
print(end - middle, middle - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, ours)
"""


def imported(name: str) -> tuple[float, float, float, int]:
    """Seconds of the import, of `import torch` before it, peak memory in MB, and how many modules of ours were loaded."""
    command = [sys.executable, "-c", PROBE, name]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    seconds, torch_seconds, memory, modules = done.stdout.split()
    return float(seconds), float(torch_seconds), float(memory), int(modules)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}


def row(name: str, repeats: int) -> dict[str, Any]:
    """Medians over several processes; a first one, which may have to compile our files, does not count."""
    runs = [imported(name) for _ in range(repeats + 1)][1:]
    extra, torch_seconds, memory, _ = (statistics.median(column) for column in zip(*runs, strict=True))
    return {
        "what": f"import {name}",
        "over import torch, s": extra,
        "import torch, s": torch_seconds,
        "our modules": runs[0][3],
        "memory_mb": memory,
    }


def command_line(repeats: int, *arguments: str) -> dict[str, Any]:
    """Wall time of a whole process, against an empty one."""
    call = [sys.executable, "-m", "sonorant.cli.main", *arguments]
    times = [(run(call), run([sys.executable, "-c", ""])) for _ in range(repeats + 1)][1:]
    return {
        "what": f"`sonorant {' '.join(arguments)}`, whole process, s",
        "ours": statistics.median(ours for ours, _ in times),
        "peer": statistics.median(empty for _, empty in times),
    }


def run(call: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(call, env=environment(), capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and modules")
    quick = parser.parse_args().quick
    repeats = 1 if quick else 3
    rows = [row(name, repeats) for name in (MODULES[:1] if quick else MODULES)]
    rows += [command_line(repeats, "--help"), command_line(repeats, "run", "--help")]
    notes = (
        f"Aim: `import sonorant` at most {AIM} s over `import torch`; modules further down bring what they need "
        "(lhotse, lightning). The command line's peer is an empty Python process."
    )
    report("import_time", "Imports and the command line's help", rows, notes)


if __name__ == "__main__":
    main()
