"""Audio files → text, JSON, SRT, VTT or CTM.

  sonorant transcribe a.wav --model runs/conformer_ctc-toy
  sonorant transcribe a.wav --model facebook/wav2vec2-base-960h
  sonorant transcribe *.mp3 --model export --format srt --out captions/
  sonorant transcribe a.wav --model export --hot-word sonorant=4

Files of any length, sample rate and number of channels are taken; long ones in windows that overlap.
"""

import argparse
import logging
from pathlib import Path

from sonorant.cli.options import hot_words, write
from sonorant.core.errors import ConfigError, DataError
from sonorant.tasks.asr.package import open_transcriber
from sonorant.tasks.asr.transcriber import Windows
from sonorant.tasks.asr.transcript import FORMATS, Transcript

log = logging.getLogger("sonorant")
SUFFIXES = {"text": "txt", "json": "json", "srt": "srt", "vtt": "vtt", "ctm": "ctm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="wav, flac, ogg, opus, mp3; with the extra `audio` also video"
    )
    parser.add_argument(
        "--model",
        required=True,
        help="an export, a checkpoint, the folder of a run, or a CTC model of transformers: its folder or name",
    )
    parser.add_argument("--format", choices=list(FORMATS), default="text")
    parser.add_argument("--out", type=Path, help="folder for one file each; standard output without it")
    parser.add_argument("--lm", type=Path, help="ARPA file in place of the export's language model")
    parser.add_argument("--greedy", action="store_true", help="best path: no search, no language model")
    parser.add_argument("--hot-word", action="append", default=[], metavar="WORD=BONUS", help="favour a word or phrase")
    parser.add_argument("--beam-size", type=int, help="hypotheses kept after each frame")
    parser.add_argument("--window", type=float, default=30.0, help="seconds taken at a time (default: 30)")
    parser.add_argument("--margin", type=float, default=4.0, help="seconds of overlap at each side (default: 4)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if args.greedy and (args.lm or args.hot_word or args.beam_size):
        raise ConfigError("--greedy takes no search: leave out --lm, --hot-word and --beam-size")
    places = _places(args)
    options = {} if args.beam_size is None else {"beam_size": args.beam_size}
    transcriber = open_transcriber(
        args.model,
        lm=args.lm,
        greedy=args.greedy,
        hot_words=hot_words(args.hot_word),
        windows=Windows(seconds=args.window, margin=args.margin),
        **options,
    )
    done: list[Transcript] = []
    failed = 0
    for name in args.files:
        try:
            transcript = transcriber.transcribe(name)
        except DataError as error:
            # One bad file of many does not cost the others; the exit status says that something is missing.
            log.error("%s", error if name in str(error) else f"{name}: {error}")
            failed += 1
            continue
        if args.out is None:
            done.append(transcript)
        else:
            write(FORMATS[args.format]([transcript]), places[name])
            log.info("%s: %d words → %s", name, len(transcript.words), places[name])
    if done:
        write(FORMATS[args.format](done))
    return 1 if failed else 0


def _places(args: argparse.Namespace) -> dict[str, Path]:
    """Recording → file to write; refused where two would go into one, before any work is done."""
    if args.out is None:
        return {}
    places = {name: args.out / f"{Path(name).stem}.{SUFFIXES[args.format]}" for name in args.files}
    owners: dict[Path, str] = {}
    for name, place in places.items():
        if owners.setdefault(place, name) != name:
            raise ConfigError(
                f"{owners[place]} and {name} would both be written to {place}; give them to separate calls"
            )
    return places
