"""Look a corpus over before training: audio, durations, transcripts, speakers in two splits, licence.

  sonorant check pack:DIR
  sonorant check csv:train.csv,dev.csv --alphabet "abcdefghijklmnopqrstuvwxyz'|" --out report/

Exit status 1 where training would be refused.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from sonorant.cli.options import table
from sonorant.data.checks import check_corpus
from sonorant.data.corpora.catalogue import open_corpus
from sonorant.data.corpora.corpus import describe
from sonorant.text.alphabet import Alphabet
from sonorant.text.normalise import Normaliser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help="pack:DIR, prepared:DIR, csv:FILE, folder:DIR, kaldi:DIR, …")
    parser.add_argument("--alphabet", help="characters that a recogniser knows; | stands for the space")
    parser.add_argument("--frame-rate", type=float, help="frames a second that a CTC loss will see")
    parser.add_argument("--normalise", metavar="LANGUAGE", help="normalise transcripts first (en, fr, es, de)")
    parser.add_argument("--max-bad-share", type=float, default=0.05)
    parser.add_argument("--allow-shared-speakers", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for skipped.jsonl and check.json")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    with TemporaryDirectory() as scratch:
        corpus = open_corpus(args.corpus, Path(scratch))
        table([{"what": what, "value": value} for what, value in describe(corpus)], "Corpus")
        report = check_corpus(
            corpus,
            tokenizer=None if args.alphabet is None else Alphabet(dict.fromkeys(args.alphabet)),
            normalise=Normaliser(language=args.normalise) if args.normalise else None,
            frame_rate=args.frame_rate,
            max_bad_share=args.max_bad_share,
            allow_shared_speakers=args.allow_shared_speakers,
            out_folder=args.out,
        )
    table([{"what": what, "value": value} for what, value in report.rows()], "Check")
    return 0
