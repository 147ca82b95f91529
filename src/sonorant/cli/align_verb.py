"""Audio and its text → times of words.

sonorant align a.wav "she had your dark suit" --model export
sonorant align a.wav a.txt --model export --format srt
"""

import argparse
import os
from pathlib import Path

from sonorant.audio.io import read_audio
from sonorant.audio.resample import resample
from sonorant.cli.options import write
from sonorant.core.errors import DataError
from sonorant.core.files import read_text
from sonorant.tasks.asr.package import open_transcriber
from sonorant.tasks.asr.transcript import FORMATS
from sonorant.text.normalise import Normaliser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="audio")
    parser.add_argument("text", help="what was said, or a file that holds it")
    parser.add_argument("--model", required=True, help="an export, a checkpoint, or the folder of a run")
    parser.add_argument("--format", choices=list(FORMATS), default="ctm")
    parser.add_argument("--language", default="en", help="of number words (default: en)")
    parser.add_argument(
        "--as-is", action="store_true", help="take the text as it stands: no lower case, no number words"
    )
    parser.add_argument("--out", type=Path, help="file; standard output without it")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    transcriber = open_transcriber(args.model, greedy=True)
    # Unlike Path.is_file, this also answers for a sentence that is longer than a file's name may be.
    text = read_text(args.text) if os.path.isfile(args.text) else args.text
    if not args.as_is:
        text = Normaliser(language=args.language, numbers=args.language in ("en", "fr", "es", "de"))(text)
    if not text.strip():
        raise DataError("the text is empty: nothing to align")
    audio = read_audio(args.file)
    waveform = resample(audio.waveform[None], audio.sample_rate, transcriber.model.sample_rate)[0]
    write(FORMATS[args.format]([transcriber.align(waveform, text, Path(args.file).name)]), args.out)
    return 0
