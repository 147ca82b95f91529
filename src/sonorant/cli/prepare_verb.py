"""Bring a corpus into the form that trains, and record where it came from.

  sonorant prepare librispeech --source /data/LibriSpeech --out corpora/librispeech
  sonorant prepare csv --source train.csv,dev.csv,test.csv --out corpora/mine
  sonorant prepare --list                                      every corpus that can be read

An up-to-date folder is left alone; a stale or half-written one is made anew. Options of an importer follow as --name value.
"""

import argparse
from inspect import Parameter
from pathlib import Path

from sonorant.cli.options import overrides, table
from sonorant.core.errors import ConfigError
from sonorant.data.corpora.catalogue import CATALOGUE, entry_options, prepare
from sonorant.data.corpora.corpus import describe

TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a corpus; --list has them all")
    parser.add_argument("--source", help="the folder (or files) as the corpus's owner publishes it")
    parser.add_argument("--out", type=Path, help="the folder to write")
    parser.add_argument("--loaders", type=int, default=0, help="processes or threads; 0 chooses")
    parser.add_argument("--list", action="store_true", help="every corpus that can be read")
    parser.add_argument("--options", action="store_true", help="the options of this corpus's importer")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if args.list:
        table([{"corpus": name, "reads": entry.summary} for name, entry in sorted(CATALOGUE.items())])
        return 0
    if args.name is None:
        raise ConfigError("name a corpus, or give --list")
    if args.options:
        rows = entry_options(args.name).items()
        table([{"option": f"--{n}", "default": "must be given" if d is Parameter.empty else d} for n, d in rows])
        return 0
    if args.source is None or args.out is None:
        raise ConfigError(f"sonorant prepare {args.name} needs --source FOLDER and --out FOLDER")
    options = {name: value if isinstance(value, str) else ",".join(value) for name, value in overrides(rest).items()}
    corpus = prepare(args.name, args.source, args.out, num_workers=args.loaders, **options)
    table([{"what": what, "value": value} for what, value in describe(corpus)])
    return 0
