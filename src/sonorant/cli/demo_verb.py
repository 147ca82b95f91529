"""The whole road in minutes, without a download: make a corpus, train a recogniser, evaluate, transcribe, report.

  sonorant demo
  sonorant demo --audio my_recording.wav

Started again, it goes on where it was stopped. Everything is written to --out; open report.html there.
"""

import argparse
import json
import logging
from pathlib import Path

from sonorant.benchmark.workspace import Workspace
from sonorant.cli.demo_report import write_report
from sonorant.cli.options import table
from sonorant.cli.run_verb import cost_rows, score_rows
from sonorant.core.types import Score
from sonorant.data.synthetic.corpus import SyntheticConfig, speak
from sonorant.recipes.catalogue import load_recipe, preset
from sonorant.tasks.asr.package import open_transcriber
from sonorant.tasks.asr.transcriber import Transcriber
from sonorant.tasks.asr.transcript import Transcript

log = logging.getLogger("sonorant")
NUM_CLIPS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to work in (default: demo)")
    parser.add_argument(
        "--audio", type=Path, action="append", default=[], help="recording to transcribe; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few seconds: shows that it runs, learns nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    recipe = load_recipe("conformer_ctc")
    config = preset(recipe, "tiny" if args.smoke else "demo")
    work = Workspace(folder=args.out, seed=args.seed, progress=not args.quiet)
    with work.locked():
        work.write_config(config)
        scores: list[Score] = recipe.run(config, work)
        transcriber = open_transcriber(args.out / "export")
        clips = (
            recorded(args.audio, transcriber)
            if args.audio
            else spoken(args.out, unseen_sentences(work), transcriber, args.seed)
        )
        report = write_report(args.out, scores, clips, work)
    table(score_rows(scores), "Unseen voices, unseen sentences")
    table(
        [{"clip": t.id, "said": said, "heard": t.text, "confidence": t.confidence} for _, t, said in clips],
        "Transcripts",
    )
    table(cost_rows(work), "Cost by stage")
    log.info("open %s", report)
    return 0


Clips = list[tuple[Path, Transcript, str]]


def recorded(files: list[Path], transcriber: Transcriber) -> Clips:
    """The user's recordings with their transcripts; what was said is unknown."""
    return [(file, transcriber.transcribe(file), "") for file in files]


def unseen_sentences(work: Workspace) -> list[str]:
    """A few sentences of the test split, which training never saw."""
    folder = next(stage.folder for stage in work.done if stage.name == "evaluate-main")
    rows = [json.loads(line) for line in (folder / "main.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = sorted({row["reference"] for row in rows}, key=len)
    return texts[len(texts) // 2 :][:NUM_CLIPS]


def spoken(folder: Path, sentences: list[str], transcriber: Transcriber, seed: int) -> Clips:
    """The sentences in a voice that no split of the corpus has."""
    from sonorant.audio.io import write_audio

    found = []
    for number, text in enumerate(sentences, start=1):
        utterance = speak(text, voice="guest", seed=seed + number, config=SyntheticConfig())
        path = folder / "clips" / f"clip_{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, utterance.waveform, utterance.sample_rate)
        found.append((path, transcriber.transcribe(path), utterance.text))
    return found
