"""A back-off n-gram model read from ARPA text, in plain Python: for the reference search and for small models.

The C++ search reads ARPA files through its own KenLM; the tests hold the two to the same scores.
"""

import math
from pathlib import Path

from sonorant.core.errors import DataError

__all__ = ["LN10", "ArpaModel", "check_arpa"]

LN10 = math.log(10)


def check_arpa(path: str | Path) -> int:
    """Refuses what is no ARPA file; returns its order.

    Raises:
        DataError: not there, or without the header `\\data\\` and its counts.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no language model at {path}")
    orders = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            if line.startswith("ngram "):
                orders.append(int(line[6:].partition("=")[0]))
            elif orders or number > 50:
                break
    if not orders:
        raise DataError(f"{path} is no ARPA file: no '\\data\\' section with counts at its head")
    return max(orders)


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
        order, size = check_arpa(path), 0
        entries: dict[tuple[str, ...], tuple[float, float]] = {}
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                line = line.strip()
                if line.startswith("\\") and line.endswith("-grams:"):
                    size = int(line[1:-7])
                elif line.startswith("\\"):
                    size = 0
                elif line and size:
                    fields = line.split()
                    if len(fields) not in (size + 1, size + 2):
                        raise DataError(
                            f"{path}, line {number}: expected {size} words and one or two numbers, got '{line}'"
                        )
                    back_off = float(fields[size + 1]) * LN10 if len(fields) == size + 2 else 0.0
                    entries[tuple(fields[1 : size + 1])] = (float(fields[0]) * LN10, back_off)
        return cls(order, entries)

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
