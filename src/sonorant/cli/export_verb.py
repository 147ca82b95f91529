"""Write a trained recogniser as one folder that transcribes with no flags.

sonorant export runs/conformer_ctc-toy --out my_model
sonorant export runs/conformer_ctc-toy --out my_model --lm lm.arpa --lm-weight 0.8
"""

import argparse
import logging
from pathlib import Path

from sonorant.tasks.asr.package import DECODER, LM, checkpoint_in, export_recogniser, find_recogniser, stored_search

log = logging.getLogger("sonorant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a run, an export, or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="the new folder")
    parser.add_argument("--lm", type=Path, help="ARPA file in place of the run's own")
    parser.add_argument("--lm-weight", type=float, help="in place of the tuned one")
    parser.add_argument("--word-bonus", type=float, help="in place of the tuned one")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    place = find_recogniser(args.run)
    model = checkpoint_in(place)
    lm = args.lm or (place / LM if (place / LM).is_file() else None)
    given = {"lm_weight": args.lm_weight, "word_bonus": args.word_bonus}
    search = {**stored_search(place / DECODER), **{name: value for name, value in given.items() if value is not None}}
    export_recogniser(model, args.out, lm=lm, search=search)
    log.info("%s holds the model%s", args.out, " and its language model" if lm else "")
    return 0
