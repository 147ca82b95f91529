"""What a training leaves to read: `log.csv` (a row each so many steps), `scores.csv` (a row a score), TensorBoard events.

On resume, rows beyond the step that training goes on from are removed, so that every step stands once.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonorant.core.files import atomic_write
from sonorant.core.optional import require
from sonorant.core.types import Score

__all__ = ["CsvLog", "TrainingLog"]


class CsvLog:
    """A table that grows by rows and, when a row brings a new name, by columns.

    Args:
        path: the file; what stands there is kept up to `step`.
        step: rows of later steps, and one cut short, are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns, rows = _read(path)
        self.rows = [row for row in rows if int(row["step"]) <= step]
        self._rewrite()

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row and hands it to the system at once."""
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            self.rows.append({name: str(value) for name, value in row.items()})
            self._rewrite()
            return
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerow(row)
        self.rows.append({name: str(value) for name, value in row.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())

    def _rewrite(self) -> None:
        if not self.columns:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if not path.exists():
        return [], []
    lines = path.read_text(encoding="utf-8").split("\n")
    # A last line with no line end was cut short when the process was killed.
    table = list(csv.reader(lines[:-1]))
    if not table:
        return [], []
    columns = table[0]
    return columns, [dict(zip(columns, row)) for row in table[1:] if len(row) == len(columns) and row[0].isdigit()]


class TrainingLog:
    """Both CSV files and, if asked for, TensorBoard.

    Args:
        folder: the run's folder.
        step: the step that training goes on from.
        tensorboard: write events too, into `tensorboard/`.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._log = CsvLog(folder / "log.csv", step)
        self._scores = CsvLog(folder / "scores.csv", step)
        self._writer: Any = None
        if tensorboard:
            require("tensorboard", extra="train", purpose="to log for TensorBoard (or set tensorboard=False)")
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard drops what earlier sessions wrote from this step on.
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the figures of the steps since the last row."""
        self._log.append({"step": step, **{name: f"{value:.7g}" for name, value in values.items()}})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def scores(self, step: int, scores: Sequence[Score]) -> None:
        """Adds the scores of a validation."""
        for score in scores:
            row = {"step": step, "name": score.name, "value": f"{score.value:.7g}"}
            low, high = ("" if end is None else f"{end:.7g}" for end in (score.low, score.high))
            self._scores.append({**row, "low": low, "high": high, "num_items": score.num_items})
            if self._writer is not None:
                self._writer.add_scalar(f"validation/{score.name}", score.value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
