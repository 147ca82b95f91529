"""A report: one HTML file that needs no network, with tables, curves, spectrograms and audio players."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sonorant.benchmark.pictures import Points, audio_data, line_chart, spectrogram
from sonorant.core.files import atomic_write
from sonorant.core.types import Segment

__all__ = ["Report"]

STYLE = """
:root{color-scheme:light dark;--ink:#1f2937;--soft:#6b7280;--line:#e5e7eb;--paper:#fff;--tint:#f3f4f6}
@media(prefers-color-scheme:dark){:root{--ink:#e5e7eb;--soft:#9ca3af;--line:#374151;--paper:#111827;--tint:#1f2937}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
p.lead{color:var(--soft);margin:.2rem 0 1rem}table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem .25rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}pre{background:var(--tint);padding:.6rem;overflow-x:auto;border-radius:4px;font-size:13px}
.chart{width:100%;height:auto}.chart text{font-size:11px;fill:var(--soft)}.grid{stroke:var(--line)}
.mark{stroke:var(--soft);stroke-dasharray:4 3}.legend span{margin-right:1rem;font-size:13px}
.legend i{display:inline-block;width:.8rem;height:.2rem;margin-right:.35rem;vertical-align:middle}
.spectrogram{margin:.3rem 0}.spectrogram img{width:100%;display:block;border-radius:4px;image-rendering:auto}
.words{position:relative;height:1.5rem;font-size:12px}.words span{position:absolute;overflow:hidden;white-space:nowrap;
text-overflow:ellipsis;border-left:2px solid #2563eb;padding-left:3px;background:var(--tint);box-sizing:border-box}
.times{position:relative;height:1.2rem;font-size:11px;color:var(--soft)}.times span{position:absolute;border-left:1px solid
var(--line);padding-left:3px}audio{width:100%;height:2.2rem}.ok{color:#059669}.bad{color:#dc2626}.empty{color:var(--soft)}
"""


class Report:
    """Collects blocks in order; `write` makes the file.

    >>> report = Report("A run", "what it shows")
    >>> report.heading("Scores").table([{"wer": 0.1}]).html().count("<table>")
    1
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self.blocks = [f"<h1>{html.escape(title)}</h1>", f"<p class='lead'>{html.escape(lead)}</p>"]

    def heading(self, text: str, level: int = 2) -> "Report":
        """A heading."""
        return self._add(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str) -> "Report":
        """A paragraph."""
        return self._add(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> "Report":
        """Lines in a fixed pitch, such as a command or an alignment."""
        return self._add(f"<pre>{html.escape(text)}</pre>")

    def table(self, rows: Sequence[Mapping[str, Any]]) -> "Report":
        """Rows under the names of their columns."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(n, ''))}</td>" for n in names) + "</tr>" for row in rows)
        return self._add(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def curves(
        self, series: Mapping[str, Points], x_label: str, y_label: str, log_y: bool = False, **marks: float
    ) -> "Report":
        """Lines over a common x axis; `marks` are horizontal lines by name."""
        return self._add(line_chart(series, x_label, y_label, log_y, marks))

    def clip(
        self, title: str, waveform: Float[Tensor, " time"], sample_rate: int, words: Sequence[Segment] = ()
    ) -> "Report":
        """A recording: its title, spectrogram with word times, and a player."""
        player = f"<audio controls preload='none' src='{audio_data(waveform, sample_rate)}'></audio>"
        return self._add(f"<h3>{html.escape(title)}</h3>{spectrogram(waveform, sample_rate, words)}{player}")

    def html(self) -> str:
        """The whole page."""
        body = "\n".join(self.blocks)
        # No script and nothing from elsewhere: what a report shows cannot run code or call home.
        policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
        return (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            "<meta name='viewport' content='width=device-width,initial-scale=1'>"
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Writes the page; it appears whole or not at all."""
        with atomic_write(path) as file:
            file.write(self.html().encode())
        return Path(path)

    def _add(self, block: str) -> "Report":
        self.blocks.append(block)
        return self


def _cell(value: Any) -> str:
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
