"""The page that `sonorant demo` writes: curves, error rates with intervals, alignments, clips with word times, cost."""

import csv
import json
from pathlib import Path

from sonorant.audio.io import read_audio
from sonorant.benchmark.report import Report
from sonorant.benchmark.workspace import Workspace
from sonorant.core.types import Score
from sonorant.metrics.edit import edit_counts, format_alignment
from sonorant.tasks.asr.transcript import Transcript

__all__ = ["write_report"]


def write_report(folder: Path, scores: list[Score], clips: list[tuple[Path, Transcript, str]], work: Workspace) -> Path:
    """Writes `report.html` into the folder and returns its path."""
    report = Report(
        "A recogniser in minutes", "Trained on the built-in corpus, tested on voices and sentences it never heard."
    )
    report.heading("Error rates").table([_score_row(score) for score in scores])
    report.text(
        "The intervals are 95 % bootstrap intervals over speakers. main_lm searches with a trigram of the training text."
    )
    stages = {stage.name: stage for stage in work.done}
    _curves(report, stages["train-main"].folder / "training")
    report.heading("Recordings")
    for path, transcript, said in clips:
        audio = read_audio(path)
        report.clip(f"{transcript.text or '(nothing heard)'}", audio.waveform, audio.sample_rate, transcript.words)
        if said:
            report.code(format_alignment(said.split(), transcript.text.split()))
    report.heading("Alignments").text("The utterances of the test split with most errors, and a few without.")
    report.code(_alignments(stages["evaluate-main"].folder))
    report.heading("Cost").table(
        [
            {
                "stage": s.name,
                "seconds": s.cost.seconds,
                "processor seconds": s.cost.cpu_seconds,
                "peak MB": s.cost.peak_memory_mb,
            }
            for s in work.done
        ]
    )
    report.heading("Configuration").code((folder / "config.yaml").read_text(encoding="utf-8"))
    return report.write(folder / "report.html")


def _score_row(score: Score) -> dict[str, object]:
    interval = "" if score.low is None else f"{100 * score.low:.1f} to {100 * (score.high or 0):.1f}"
    return {
        "score": score.name,
        "%": f"{100 * score.value:.1f}",
        "95 % interval": interval,
        "utterances": score.num_items,
    }


def _curves(report: Report, folder: Path) -> None:
    report.heading("Training")
    loss = [(float(row["step"]), float(row["loss"])) for row in _rows(folder / "log.csv") if row.get("loss")]
    report.curves({"training loss": loss}, "step", "loss in nats a token")
    rates: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(folder / "scores.csv"):
        rates.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    if rates:
        report.curves(rates, "step", "error rate on development data")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _alignments(folder: Path, worst: int = 6, best: int = 3) -> str:
    file = folder / "main_lm.jsonl"
    lines = (file if file.is_file() else folder / "main.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    pairs = [(row["reference"].split(), row["hypothesis"].split(), row["id"], row["speaker"]) for row in rows]
    ranked = sorted(pairs, key=lambda pair: -edit_counts(pair[0], pair[1]).edits)
    chosen = ranked[:worst] + [pair for pair in ranked[::-1][:best] if pair not in ranked[:worst]]
    return "\n\n".join(f"{name} ({speaker})\n{format_alignment(ref, hyp)}" for ref, hyp, name, speaker in chosen)
