"""Logs: rows up to the resumed step, new columns, a last row cut short, TensorBoard without doubles."""

import io
from pathlib import Path

import pytest

from sonorant.core.types import Score
from sonorant.train.log import CsvLog, TrainingLog
from sonorant.train.progress import ProgressBar


def test_rows_beyond_the_step_go(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "a.csv", 0)
    for step in (1, 2, 3, 4):
        log.append({"step": step, "loss": step / 2})
    again = CsvLog(tmp_path / "a.csv", 2)
    again.append({"step": 3, "loss": 9})
    assert (tmp_path / "a.csv").read_text() == "step,loss\n1,0.5\n2,1.0\n3,9\n"


def test_a_row_cut_short_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n1,0.5\n2,1.0\n3,0.")
    CsvLog(path, 10).append({"step": 3, "loss": 0.25})
    assert path.read_text() == "step,loss\n1,0.5\n2,1.0\n3,0.25\n"


@pytest.mark.parametrize("content", ["", "st", "step,loss\n"])
def test_hardly_begun(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    CsvLog(path, 10).append({"step": 3, "loss": 0.25})
    assert path.read_text() == "step,loss\n3,0.25\n"


def test_new_columns_and_commas(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "a.csv", 0)
    log.append({"step": 1, "a": "x"})
    log.append({"step": 2, "b": "y,z"})
    log.append({"step": 3, "a": "u", "b": "v"})
    assert (tmp_path / "a.csv").read_text() == 'step,a,b\n1,x,\n2,,"y,z"\n3,u,v\n'
    assert CsvLog(tmp_path / "a.csv", 2).rows[1] == {"step": "2", "a": "", "b": "y,z"}


def test_tensorboard_has_each_step_once(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = TrainingLog(tmp_path, 0, tensorboard=True)
    for step in (10, 20, 30):
        first.row(step, {"loss": float(step)})
    first.scores(20, [Score("wer", 0.5, "lower", 0.4, 0.6, 10)])
    first.close()
    second = TrainingLog(tmp_path, 20, tensorboard=True)
    for step in (30, 40):
        second.row(step, {"loss": float(step) + 1})
    second.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(10, 10.0), (20, 20.0), (30, 31.0), (40, 41.0)]
    assert [e.step for e in events.Scalars("validation/wer")] == [20]
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "20,wer,0.5,0.4,0.6,10"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    bar = ProgressBar(0, 10, show=True)
    bar.update(5, {"model": 1.25}, {"model": 1e-3}, 310.0)
    bar.close()
    for part in ("5/10", "loss 1.25", "lr 1.00e-03", "310 audio-s/s"):
        assert part in terminal.getvalue()
    plain = io.StringIO()
    monkeypatch.setattr("sys.stderr", plain)
    silent = ProgressBar(0, 10, show=True)
    silent.update(5, {"model": 1.25}, {"model": 1e-3}, 310.0)
    silent.close()
    assert plain.getvalue() == ""
