"""Errors that name the thing, say what was expected, and what to do."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "MissingPackage",
    "SonorantError",
    "TrainingError",
    "blaming",
    "unknown_name",
]


class SonorantError(Exception):
    """Base of every error that a user can mend; the command line prints it without a traceback."""

    exit_status = 1
    """What a program that stops for this error should end with."""


class ConfigError(SonorantError, ValueError):
    """A configuration holds an unknown key, a wrong type, or a value out of range."""


class CheckpointError(SonorantError, ValueError):
    """A checkpoint is damaged, of a newer schema, or does not fit the model it is loaded into."""


class DataError(SonorantError, ValueError):
    """Audio, a label, or a corpus is not what it must be; the message bears the item's id."""


class TrainingError(SonorantError, RuntimeError):
    """Training cannot go on (loss not finite, disk full, another configuration in the folder)."""


class MissingPackage(SonorantError, ImportError):
    """An optional package is needed here and not installed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name: the nearest known one, then the whole list.

    >>> unknown_name("recipe", "hubrt", ["hubert", "wavlm"])
    "unknown recipe 'hubrt'; did you mean 'hubert'? Known: hubert, wavlm"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {kind} '{name}'{hint} Known: {', '.join(names) or 'none'}"


@contextmanager
def blaming(place: str | Path) -> Iterator[None]:
    """Names the file that is to blame for whatever goes wrong while it is understood.

    What others wrote may hold anything: a word where a number belongs, a list for a table, a table that lacks a name.

    Raises:
        SonorantError: of the kind that came, with `place` in front where it was not named.
        CheckpointError: for all that the file's reader did not foresee.
    """
    try:
        yield
    except SonorantError as error:
        if str(place) in str(error):
            raise
        raise type(error)(f"{place}: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{place} does not hold what a file of its kind must ({type(error).__name__}: {error}); fetch it anew, or write "
            "it once more with the toolkit that it comes from"
        ) from error
