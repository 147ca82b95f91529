"""Train an n-gram language model from text, a sentence a line, and write it as ARPA.

  sonorant lm train.txt --out lm.arpa --order 3
  sonorant lm train.txt --out lm.arpa.gz --order 4 --max-words 200000 --cutoff 0 --cutoff 1 --prune 1e-8 --held-out dev.txt
  sonorant lm domain.txt --mix general.arpa --held-out dev.txt --out both.arpa

Smoothing is modified Kneser-Ney. KenLM and SRILM read the file; `sonorant transcribe --lm` and `sonorant export --lm` use it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonorant.cli.options import table
from sonorant.core.errors import ConfigError, DataError
from sonorant.lm.interpolate import interpolate, mix_weights
from sonorant.lm.ngram import NGram, train_ngram
from sonorant.lm.prune import prune
from sonorant.text.normalise import Normaliser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="+", type=Path, help="files with a sentence a line")
    parser.add_argument("--out", type=Path, required=True, help="ARPA file; packed where the name ends in .gz")
    parser.add_argument("--order", type=int, default=3, help="words of an n-gram (default: 3)")
    parser.add_argument("--max-words", type=int, help="keep only the commonest words")
    parser.add_argument(
        "--cutoff", type=int, action="append", default=[], help="drop n-grams of order 2, 3, … seen at most so often"
    )
    parser.add_argument(
        "--prune", type=float, default=0.0, help="drop n-grams that change the perplexity by less (1e-8 is mild)"
    )
    parser.add_argument("--mix", type=Path, action="append", default=[], help="another ARPA file to interpolate with")
    parser.add_argument(
        "--held-out", type=Path, help="text to fit the mixture's weights on, and to report perplexity of"
    )
    parser.add_argument(
        "--normalise", metavar="LANGUAGE", help="lower case, no punctuation, numbers in words of en/fr/es/de"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if args.mix and args.held_out is None:
        raise ConfigError("--mix needs --held-out: a text to fit the weights of the mixture on")
    change = Normaliser(language=args.normalise) if args.normalise else None
    model = train_ngram(_lines(args.text, change), args.order, cutoffs=args.cutoff, max_words=args.max_words)
    rows: list[dict[str, object]] = []
    if args.mix:
        models = [model, *(NGram.load_arpa(path) for path in args.mix)]
        weights = mix_weights(models, _lines([args.held_out], change))
        rows += [
            {"what": f"weight of {n}", "value": float(w)} for n, w in zip(["this text", *map(str, args.mix)], weights)
        ]
        model = interpolate(models, weights)
    if args.prune:
        model = prune(model, args.prune)
    model.save_arpa(args.out)
    rows += [{"what": f"{size.order}-grams", "value": size.num_ngrams} for size in model.sizes]
    if args.held_out:
        found = model.evaluate(_lines([args.held_out], change))
        rows.append({"what": f"perplexity of {args.held_out}", "value": found.perplexity})
        rows.append({"what": "unknown words there", "value": f"{found.num_unknown} of {found.num_tokens}"})
    table(rows, str(args.out))
    return 0


def _lines(paths: list[Path], change: Normaliser | None) -> Iterator[str]:
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    yield change(line) if change else line
        except FileNotFoundError:
            raise DataError(f"no file {path}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text: {error}") from None
