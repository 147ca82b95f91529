"""Time to a probe score: how long each network must train, on the same audio and units, until its frames tell phones apart.

Each budget is a training of its own with a schedule that ends there, so that every point of a curve is a finished model. The
networks are those of the toy presets of hubert, fast_hubert and k2ssl: about as many parameters and four blocks each, on
log-mel (at 100 frames a second and less) or on the waveform; objective, units (100 clusters of MFCC), audio and probe are the
same. One seed. Finished trainings are kept in `--out` and not made again.

    python bench/time_to_score.py [--quick] [--out DIR]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, report

from sonorant.benchmark.pictures import line_chart
from sonorant.benchmark.pretraining import PretrainConfig
from sonorant.benchmark.settings import toy_study
from sonorant.benchmark.study import Study
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.recipes.ssl import fast_hubert, hubert, k2ssl

STEPS = (100, 300, 900)
"""Of 30 s; the waveform network is not given the last, which would take half an hour."""


def contenders() -> dict[str, tuple[Any, Any, PretrainConfig]]:
    """Name → network, objective, training of three toy presets."""
    narrow, fast, zipformer = hubert.toy(), fast_hubert.toy(), k2ssl.toy()
    training = toy_study().training
    return {
        "HuBERT, waveform, 20 ms": (fast.waveform, fast.hubert, training),
        "Fast-HuBERT, 40 ms": (fast.encoder, fast.objective, training),
        "Transformer, log-mel, 20 ms": (zipformer.transformer, zipformer.objective, training),
        "Zipformer, 20 ms": (zipformer.encoder, zipformer.objective, zipformer.study.training),
        "Conformer, 40 ms": (narrow.encoder, narrow.objective, training),
    }


def measure(
    out: Path, steps: tuple[int, ...]
) -> tuple[dict[str, list[tuple[float, float]]], list[dict[str, Any]], float]:
    """Curves of (training seconds, phone accuracy), rows of the table, and what log-mel alone reaches."""
    settings = toy_study(frame_rate=100)
    probe = replace(settings.protocol.probe, speakers=False, noisy=False)
    settings = replace(settings, protocol=replace(settings.protocol, probe=probe, finetune=None))
    found = contenders()
    first = next(iter(found.values()))[0]
    work = Workspace(folder=out, progress=False)
    with work.locked():
        base = Study(work, settings, first)
        units = base.units("targets", base.spectrum(fast_hubert.toy().targets), 100)
        spectrum = accuracy(base.judge("log_mel", base.spectrum(hubert.toy().study.front)))
        curves: dict[str, list[tuple[float, float]]] = {}
        rows = []
        for name, (network, objective, training) in found.items():
            # Stacked frames for the network that takes them, 100 a second for those that stride by themselves.
            front = hubert.toy().study.front if "Conformer" in name else settings.front
            study = Study(work, replace(settings, front=front), network)
            for count in steps[:-1] if "waveform" in name and len(steps) > 1 else steps:
                arm = f"{name.split(',')[0].lower().replace(' ', '-')}-{count}"
                budget = replace(training, steps=count)
                folder = study.pretrain(arm, objective, {"units": units}, training=budget)
                (took,) = study.training_seconds(arm, folder)
                right = accuracy(study.judge(arm, folder))
                curves.setdefault(name, []).append((took.value, right))
                rows.append({"what": f"{name}, {count} steps", "training s": took.value, "phone accuracy": right})
    return curves, rows, spectrum


def accuracy(scores: list[Score]) -> float:
    return next(score.value for score in scores if score.name.endswith("/phone_accuracy"))


def reached(curve: list[tuple[float, float]], wanted: float) -> str:
    """Seconds until a curve comes to a score, between the two points around it."""
    before = (0.0, 0.0)
    for point in curve:
        if point[1] >= wanted:
            if before[0] == 0:
                return f"≤ {point[0]:.0f} s"
            share = (wanted - before[1]) / (point[1] - before[1])
            return f"{before[0] + share * (point[0] - before[0]):.0f} s"
        before = point
    return f"not within {curve[-1][0]:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small budgets; shows that it runs")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_score"), help="where trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    curves, rows, spectrum = measure(args.out, (5, 10) if args.quick else STEPS)
    goals = [spectrum, *(round(spectrum + gain, 2) for gain in (0.02, 0.05))]
    rows += [
        {"what": f"time to {goal:.2f}: {name}", "ours": reached(curve, goal)}
        for goal in goals
        for name, curve in curves.items()
    ]
    chart = line_chart(curves, "seconds of training", "phone accuracy of a frozen probe", marks={"log-mel": spectrum})
    if not args.quick:
        (RESULTS / "time_to_score.svg").write_text(chart, encoding="utf-8")
    notes = f"{args.threads} thread(s), one seed, 60 labelled utterances, 200 of test; log-mel itself: {spectrum:.3f}."
    report("time_to_score", "Time to a probe score", rows, notes, command="python bench/time_to_score.py")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
