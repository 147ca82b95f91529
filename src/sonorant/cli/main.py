"""`sonorant VERB …`: the verbs, and what happens to an error.

Each verb is a file with `add_arguments(parser)` and `run(args, rest)`; only the one that is asked for is imported.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from sonorant import __version__
from sonorant.core.errors import SonorantError, unknown_name

__all__ = ["VERBS", "help_text", "main", "verb_parser"]

VERBS: dict[str, str] = {
    "list": "all recipes, with family, paper and last verdict",
    "show": "one recipe: what it is, its presets, options and claims",
    "run": "run a recipe: sonorant run conformer_ctc --corpus pack:DIR",
    "prove": "run a recipe under several seeds and judge its claims",
    "prepare": "bring a corpus into the form that trains: sonorant prepare librispeech --source DIR --out DIR",
    "check": "look a corpus over before training: audio, text, speakers, licence",
    "transcribe": "audio files → text, JSON, SRT, VTT or CTM",
    "align": "audio and its text → times of words",
    "score": "error rate of hypotheses against references, with interval and alignment",
    "lm": "train an n-gram language model from text: sonorant lm text.txt --out lm.arpa",
    "export": "write a trained recogniser as one folder that transcribes with no flags",
    "demo": "make a corpus, train for minutes, transcribe, write a report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status.

    0, 1 for an error that a user can mend, 2 for wrong usage, 128 + n where signal n stopped it (130 for Ctrl-C).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(help_text())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"sonorant {__version__}\n")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        sys.stderr.write(unknown_name("verb", verb, VERBS) + "\n")
        return 2
    logging.basicConfig(level=os.environ.get("SONORANT_LOG", "INFO").upper(), format="%(message)s", stream=sys.stderr)
    try:
        return _run(verb, rest)
    except SonorantError as error:
        sys.stderr.write(f"sonorant {verb}: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write(f"sonorant {verb}: stopped\n")
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """The options of a verb."""
    module = importlib.import_module(f"sonorant.cli.{verb}_verb")
    parser = argparse.ArgumentParser(
        prog=f"sonorant {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def _run(verb: str, rest: Sequence[str]) -> int:
    module, parser = importlib.import_module(f"sonorant.cli.{verb}_verb"), verb_parser(verb)
    takes_options = getattr(module, "TAKES_OPTIONS", False)
    args, extra = parser.parse_known_args(rest)
    if extra and not takes_options:
        known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        given = next((word for word in extra if word.startswith("-")), None)
        parser.error(unknown_name("option", given, known) if given else f"unexpected {' '.join(extra)}")
    return int(module.run(args, extra) or 0)


def help_text() -> str:
    """What `sonorant --help` prints."""
    width = max(map(len, VERBS)) + 2
    verbs = "".join(f"  {name:<{width}}{text}\n" for name, text in VERBS.items())
    return (
        "Sonorant: train, compare, trust and serve speech models.\n\n"
        f"usage: sonorant VERB [options]      sonorant VERB --help\n\n{verbs}\n"
        "First steps:\n"
        "  sonorant demo                                  the whole road in minutes, without a download\n"
        "  sonorant run conformer_ctc                     a recipe on the built-in corpus\n"
        "  sonorant transcribe a.wav --model runs/…       what was trained, at work\n"
    )


if __name__ == "__main__":
    sys.exit(main())
