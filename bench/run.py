"""Runs every bench script and writes `bench/README.md`, and the figures of the README, from the stored results.

    python bench/run.py [--quick] [--only NAME …] [--page] [--minutes M]

Each script runs in a process of its own with a time limit; one that fails or takes too long keeps its stored result and is
named at the end. `--page` runs nothing and only writes. A quick run never takes the place of a stored full one. Scripts
that need arguments (they take no `--quick`) are run by hand, and their results stand on the page all the same.
"""

import argparse
import ast
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
BEGIN, END = "<!-- figures: made by bench/run.py -->", "<!-- end of figures -->"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class HotPath:
    """One line of the summary: where its figure stands, and what it should be."""

    title: str
    bench: str
    what: str
    """Regular expression; the first row whose `what` it matches counts."""
    column: str = "ratio"
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"
    where: tuple[tuple[str, Any], ...] = ()
    """Further columns and their values, such as one thread."""
    front: bool = False
    """Whether the README shows it."""

    @property
    def aim(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}"
        return "none set" if self.at_most is None else f"≤ {self.at_most:g} {self.unit}"

    def met(self, value: float) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most


ONE, TWO = (("threads", 1),), (("threads", 2),)
HOT_PATHS = (
    HotPath(
        "fbank, batch of 32, over kaldi-native-fbank, one thread",
        "features",
        "fbank, 32 x",
        at_least=2,
        where=ONE,
        front=True,
    ),
    HotPath("fbank, batch of 32, two threads each", "features", "fbank, 32 x", at_least=2, where=TWO),
    HotPath("fbank, one file, over kaldi-native-fbank", "features", "fbank, 1 s", at_least=1, where=ONE),
    HotPath("MFCC, batch of 32, over kaldi-native-fbank", "features", "mfcc, 32 x", at_least=2, where=ONE),
    HotPath("MFCC, one file, over kaldi-native-fbank", "features", "mfcc, 1 s", at_least=1, where=ONE),
    HotPath("mel, batch of 32, over librosa, one thread", "features", "mel, 32 x", at_least=1, where=ONE, front=True),
    HotPath("pitch, batch, over Praat", "pitch", "speed, 8 x", at_least=1, front=True),
    HotPath("resampling 44.1 → 16 kHz over soxr HQ", "resample", "44100 to 16000, high$"),
    HotPath(
        "synthetic corpus, jittered, one core",
        "corpus",
        "jittered",
        "x real time, processor",
        300,
        unit="× real time",
        front=True,
    ),
    HotPath("loading flac over lhotse's sampler", "loader", "flac files, 0 workers", at_least=1),
    HotPath(
        "padding of random batches over ours, 20 000 items",
        "loader",
        "padding share, 20000 items; peer: random",
        at_least=1,
        front=True,
    ),
    HotPath("going on at 99 % of a million items", "loader", "going on at 99% of 1000000", "ours", at_most=1, unit="s"),
    HotPath("word error rate of 100 000 pairs over jiwer", "wer", "WER of 100000", at_least=1, front=True),
    HotPath("CTC beam search without a model over pyctcdecode", "decoding", r"no model \(pyctcdecode\)", at_least=1),
    HotPath("CTC loss and gradient over torch's, 500 tokens", "ctc", "CTC loss and gradient, 32 × 125", at_least=1),
    HotPath("forced alignment over numpy", "ctc", "forced alignment", at_least=1),
    HotPath(
        "n-gram training, 10 M words, order 3",
        "ngram",
        "order 3, 10 M words",
        "ours",
        at_most=600,
        unit="s",
        front=True,
    ),
    HotPath(
        "k-means, 500 clusters, 10 passes over 50 000 × 768, over faiss",
        "kmeans",
        r"K=500.*\(faiss\)",
        at_least=1,
        front=True,
    ),
    HotPath("the same over scikit-learn's MiniBatchKMeans", "kmeans", r"K=500.*\(MiniBatchKMeans\)", at_least=3),
    HotPath(
        "its inertia over that of scikit-learn's full k-means",
        "kmeans",
        r"K=500.*\(faiss\)",
        "inertia, ours",
        at_most=1.01,
    ),
    HotPath("training a vector quantiser over vector-quantize-pytorch", "quantize", "VQ 1024", at_least=1),
    HotPath("training a Gumbel quantiser over transformers", "quantize", "Gumbel", at_least=1),
    HotPath(
        "HuBERT base, mixed lengths, fp32, over transformers' padded batch",
        "encoders",
        "fp32, mixed.*padded there",
        at_least=2.5,
        front=True,
    ),
    HotPath("the same over transformers one by one", "encoders", "fp32, mixed.*one by one", at_least=1.1),
    HotPath("the same in bf16", "encoders", "bf16 autocast, mixed.*padded", at_least=2.5),
    HotPath("equal lengths, fp32", "encoders", "fp32, equal.*padded there", at_least=1),
    HotPath("its memory beside the weights", "encoders", "memory beside the weights", at_least=2),
    HotPath(
        "HuBERT base, training step, mixed lengths, fp32",
        "encoders",
        "training step, fp32, mixed",
        at_least=2.5,
        front=True,
    ),
    HotPath("training step, `fit` over a bare loop", "train_step", "training step, GRU 128", at_least=0.95, front=True),
    HotPath(
        "training step, Conformer 4 × 144", "ctc", "training step: Conformer 4 × 144, frames", "ours", unit="audio-s/s"
    ),
    HotPath(
        "`import sonorant` over `import torch`",
        "import_time",
        "import sonorant$",
        "over import torch, s",
        at_most=0.2,
        unit="s",
        front=True,
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="passed on: fewer repeats, smaller sizes")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this bench; may be repeated")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    parser.add_argument("--minutes", type=float, default=20.0, help="limit for each script (default: 20)")
    args = parser.parse_args()
    unknown = sorted(set(args.only) - set(scripts()))
    if unknown:
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(scripts())}")
    failures = {}
    if not args.page:
        for name in args.only or [name for name in scripts() if takes_quick(name)]:
            problem = run(name, args.quick, 60 * args.minutes)
            if problem:
                failures[name] = problem
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    (HERE / "README.md").write_text(page(found), encoding="utf-8")
    front = HERE.parent / "README.md"
    front.write_text(with_figures(front.read_text("utf-8"), found), encoding="utf-8")
    for name, problem in failures.items():
        print(f"{name}: {problem}; its stored result stays as it was", file=sys.stderr)
    return 1 if failures else 0


def scripts() -> list[str]:
    """Names of the bench scripts: files here with a `main`."""
    own = {"run", "harness"}
    return [p.stem for p in sorted(HERE.glob("*.py")) if p.stem not in own and "\ndef main(" in p.read_text("utf-8")]


def takes_quick(name: str) -> bool:
    return '"--quick"' in (HERE / f"{name}.py").read_text("utf-8")


def run(name: str, quick: bool, limit: float) -> str:
    """Runs a script; what went wrong, or nothing."""
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, timeout=limit, check=False, cwd=HERE.parent)
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s and was stopped"
    print(f"== {name} took {time.perf_counter() - start:.0f} s", flush=True)
    return f"ended with status {done.returncode}" if done.returncode else ""


# --- the page ---------------------------------------------------------------------------------------------------------


def page(found: Mapping[str, Any]) -> str:
    """The whole of `bench/README.md`, from results by name."""
    lines = [
        "# Benches", "",
        "Made by `python bench/run.py` (`make bench`) from `bench/results/*.json`; do not edit. Ours and the peer's runs "
        "alternate in one process, and a ratio is the median over pairs of runs: above 1, ours is faster. Machines are "
        "shared and noisy: compare ratios, not seconds."
        " Where nothing stricter is asked, the aim is the peer's own speed.", "", "## Hot paths", "",
        "| | figure | aim | met | commit |", "|---|---|---|---|---|", *(summary(path, found) for path in HOT_PATHS), "",
    ]  # fmt: skip
    for name in sorted({*scripts(), *found}):
        lines += section(name, found.get(name))
    return "\n".join(lines).rstrip() + "\n"


def summary(path: HotPath, found: Mapping[str, Any]) -> str:
    """One hot path as a row."""
    result = found.get(path.bench)
    title = f"[{path.title}](#{anchor(path.bench, result)})"
    value = figure(path, result)
    if result is None or value is None:
        return f"| {title} | not measured | {path.aim} | | |"
    met = {None: "", True: "yes", False: "**no**"}[path.met(value)]
    return f"| {title} | {value:.3g} {path.unit} | {path.aim} | {met} | {result['commit']} |"


def figure(path: HotPath, result: Mapping[str, Any] | None) -> float | None:
    """A hot path's figure in the stored result of its bench; None where it is not there."""
    for row in [] if result is None else result["rows"]:
        named = re.match(path.what, str(row.get("what", "")))
        if named and all(row.get(key) == value for key, value in path.where):
            return number(row.get(path.column))
    return None


def with_figures(text: str, found: Mapping[str, Any]) -> str:
    """The README with its table of figures made anew: those that were measured, and where."""
    rows = [(path, figure(path, found.get(path.bench))) for path in HOT_PATHS if path.front]
    measured = [(path, value) for path, value in rows if value is not None]
    machines = sorted({found[path.bench]["machine"] for path, _ in measured})
    body = [f"| {path.title} | {value:.3g} {path.unit} |" for path, value in measured]
    verdicts = [path.met(value) for path in HOT_PATHS if (value := figure(path, found.get(path.bench))) is not None]
    met = f"{verdicts.count(True)} of the {len(verdicts) - verdicts.count(None)} aims that were measured are met"
    lines = [
        BEGIN,
        "| | |",
        "|---|---|",
        *body,
        "",
        f"On {'; '.join(machines)}; × = times faster (or fewer). {met}.",
        END,
    ]
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: "\n".join(lines), text, flags=re.DOTALL)


def number(value: Any) -> float | None:
    """A figure, also where a unit follows it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if math.isnan(value) else float(value)
    match = re.match(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", str(value))
    return float(match[0]) if match else None


def section(name: str, result: Mapping[str, Any] | None) -> list[str]:
    """One bench: its table, and how it was made."""
    if result is None:
        return [f"## {name}", "", purpose(name), "", f"Not measured yet: `{usage(name)}`.", ""]
    made = f"`{result['command']}`, commit {result['commit']}, {result['machine']}."
    return [
        f"## {result['title']}",
        "",
        purpose(name),
        "",
        *table(result["rows"]),
        "",
        result.get("notes", ""),
        "",
        made,
        "",
    ]


def anchor(name: str, result: Mapping[str, Any] | None) -> str:
    """As GitHub makes it from a heading."""
    title = name if result is None else result["title"]
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def docstring(name: str) -> str:
    file = HERE / f"{name}.py"
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "") if file.is_file() else ""


def purpose(name: str) -> str:
    """The first line of a script's docstring."""
    return " ".join(docstring(name).split("\n\n")[0].split())


def usage(name: str) -> str:
    """The command that its docstring names."""
    match = re.search(rf"python bench/{name}\.py[^`\n]*", docstring(name))
    return match[0].strip() if match else f"python bench/{name}.py"


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as Markdown; columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(shown(row.get(column, "")) for column in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


def shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
