"""Back-off n-gram models as ARPA text: one reader for all that reads the format, and a model in plain Python.

`open_arpa` checks a file as it goes through it: it was perhaps cut off, or comes from somewhere else. `ArpaModel` is for the
reference search and for small models; the C++ search reads ARPA files through its own KenLM, and the tests hold the two to
the same scores. Logarithms are to base 10 in the file.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sonorant.core.errors import DataError

__all__ = ["LN10", "ArpaModel", "ArpaText", "arpa_words", "check_arpa", "open_arpa"]

LN10 = math.log(10)
_HEADER_LINES = 1000
_PACKED = 1100
"""Most bytes that one packed byte can stand for (DEFLATE's limit is 1032)."""
_ENTRY_BYTES = 4
"""Of the shortest entry: a digit, a blank, a letter, the end of the line."""

Entry = tuple[float, list[str], float]
"""Base-10 log-probability, words, base-10 back-off weight."""


class ArpaText:
    """An ARPA file that is being read; `entries(1)`, `entries(2)`, … in this order.

    Args:
        lines: of the file.
        path: for messages.
        size: bytes that the file can hold at most, unpacked; counts beyond what fits are refused before room is made.
    """

    def __init__(self, lines: Iterator[str], path: Path, size: int) -> None:
        self._lines, self.path = enumerate(lines, 1), path
        self.line = 0
        """Number of the line that was read last."""
        self.counts = self._header()
        """How many n-grams of each order the file announces."""
        if sum(self.counts) * _ENTRY_BYTES > size:
            raise DataError(f"{path} announces {sum(self.counts)} n-grams, more than a file of its size can hold")

    def entries(self, order: int) -> Iterator[Entry]:
        """Exactly as many as announced.

        Raises:
            DataError: names the line that is not as it should be.
        """
        count, found, begun = self.counts[order - 1], 0, False
        while found < count or not begun:
            fields = self._next().split()
            if not fields:
                if self._ended:
                    raise DataError(f"{self.path} ends after {found} of {count} {order}-grams; it was cut off")
                continue
            if fields[0].startswith("\\") and len(fields) == 1:
                if begun or fields[0] != f"\\{order}-grams:":
                    raise self._fault(f"{found} of {count} {order}-grams came before {fields[0]!r}")
                begun = True
                continue
            if not begun or not order + 1 <= len(fields) <= order + 2:
                raise self._fault(f"no entry of the {count} {order}-grams: {' '.join(fields)[:80]!r}")
            yield (
                self._number(fields[0]),
                fields[1 : order + 1],
                self._number(fields[-1]) if len(fields) > order + 1 else 0.0,
            )
            found += 1

    def finish(self) -> None:
        """Refuses anything but `\\end\\` behind the last entry."""
        while not self._ended:
            text = self._next().strip()
            if text == "\\end\\":
                return
            if text:
                raise self._fault(f"\\end\\ is due, got {text[:80]!r}")
        raise DataError(f"{self.path} has no \\end\\; it was cut off")

    def _header(self) -> list[int]:
        """Stops after the blank line behind the counts."""
        self._ended = False
        counts: list[int] = []
        inside = False
        while not self._ended and (inside or self.line < _HEADER_LINES):
            text = self._next().strip()
            if text == "\\data\\":
                inside = True
            elif inside and text.startswith("ngram "):
                order, _, count = text[6:].partition("=")
                if order.strip() != str(len(counts) + 1) or not count.strip().isdecimal():
                    raise self._fault(f"'ngram {len(counts) + 1}=…' is due, got {text[:80]!r}")
                counts.append(int(count))
            elif counts and not text:
                return counts
            elif inside and text:
                break
        raise DataError(f"{self.path} is no ARPA file: it has no \\data\\ section with counts")

    def _next(self) -> str:
        """The next line; empty at the end."""
        try:
            self.line, text = next(self._lines)
        except StopIteration:
            self._ended, text = True, ""
        return text

    def _number(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # −inf is how some tools write a probability of zero, such as that of <s>.
        if math.isnan(value) or value == math.inf:
            raise self._fault(f"not a number: {text[:80]!r}")
        return value

    def _fault(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.line}: {what}")


@contextmanager
def open_arpa(path: str | Path) -> Iterator[ArpaText]:
    """An ARPA file, packed where its name ends in `.gz`, with its header read.

    Raises:
        DataError: not there, no ARPA file, not UTF-8, damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no language model at {path}")
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as raw:
            lines = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")  # type: ignore[arg-type]
            yield ArpaText(lines, path, path.stat().st_size * (_PACKED if packed else 1))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error}); a KenLM binary does not tell its words: give the ARPA file"
        ) from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def check_arpa(path: str | Path) -> int:
    """Refuses what is no ARPA file; returns its order."""
    with open_arpa(path) as text:
        return len(text.counts)


def arpa_words(path: str | Path) -> list[str]:
    """The words of an ARPA file, from its unigrams."""
    with open_arpa(path) as text:
        return [words[0] for _, words, _ in text.entries(1)]


class ArpaModel:
    """Scores of words after words, as natural logarithms.

    A state is the tuple of the last words. An unknown word is scored as `<unk>`, or as 10⁻¹⁰⁰ where the file has none.
    """

    def __init__(self, order: int, entries: dict[tuple[str, ...], tuple[float, float]]) -> None:
        self.order, self.entries = order, entries

    @classmethod
    def load(cls, path: str | Path) -> "ArpaModel":
        """Reads a file.

        Raises:
            DataError: names the line that cannot be read.
        """
        entries: dict[tuple[str, ...], tuple[float, float]] = {}
        with open_arpa(path) as text:
            for order in range(1, len(text.counts) + 1):
                for log_prob, words, back_off in text.entries(order):
                    entries[tuple(words)] = (log_prob * LN10, back_off * LN10)
            text.finish()
        return cls(len(text.counts), entries)

    def start(self) -> tuple[str, ...]:
        """The state at the beginning of a sentence."""
        return ("<s>",)

    def score(self, state: tuple[str, ...], word: str) -> tuple[tuple[str, ...], float]:
        """The state after `word`, and its log-probability."""
        if (word,) not in self.entries:
            word = "<unk>"
        history, back_off = state[-(self.order - 1) :] if self.order > 1 else (), 0.0
        following = (*history, word)[-(self.order - 1) :] if self.order > 1 else ()
        while True:
            entry = self.entries.get((*history, word))
            if entry is not None:
                return following, back_off + entry[0]
            if not history:
                return following, back_off - 100 * LN10
            back_off += self.entries.get(history, (0.0, 0.0))[1]
            history = history[1:]

    def finish(self, state: tuple[str, ...]) -> float:
        """Log-probability of the sentence ending here."""
        return self.score(state, "</s>")[1]
