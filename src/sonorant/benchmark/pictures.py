"""Pictures without a plotting library: line charts as SVG, spectrograms as PNG, audio as data, all to be put into a page."""

import base64
import html
import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sonorant.audio.io import write_audio
from sonorant.audio.stft import stft
from sonorant.core.types import Segment

__all__ = ["audio_data", "line_chart", "png_data", "spectrogram"]

Points = Sequence[tuple[float, float]]
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
_FEW = 40
"""Points up to which each is marked; a single one would otherwise not be seen."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 280, 64, 16, 14, 40


def line_chart(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    log_y: bool = False,
    marks: Mapping[str, float] | None = None,
) -> str:
    """An SVG with a line for each series.

    Args:
        series: name → points (x, y); points that are not finite are left out.
        x_label, y_label: what stands at the axes, units included.
        log_y: logarithmic y axis (values at or below 0 are left out).
        marks: name → y of horizontal lines, such as a baseline.

    >>> line_chart({"loss": [(0, 3.0), (1, 2.0)]}, "step", "loss").startswith("<svg")
    True
    """
    usable = {name: [(x, y) for x, y in points if _usable(y, log_y)] for name, points in series.items()}
    points = [point for line in usable.values() for point in line] + [(math.nan, y) for y in (marks or {}).values()]
    if not any(usable.values()):
        return "<p class='empty'>nothing to draw: no point was recorded</p>"
    xs = [x for x, _ in points if math.isfinite(x)]
    ys = [_scaled(y, log_y) for _, y in points if _usable(y, log_y)]
    x_axis, y_axis = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' class='chart'>"]
    parts += _grid(x_axis, y_axis, x_label, y_label, log_y)
    for colour, line in zip(_cycle(len(usable)), usable.values()):
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(_scaled(y, log_y)):.1f}" for x, y in line)
        parts.append(f"<polyline fill='none' stroke='{colour}' stroke-width='1.8' points='{path}'/>")
        if len(line) <= _FEW:
            spots = (point.split(",") for point in path.split())
            parts += [f"<circle cx='{x}' cy='{y}' r='2.6' fill='{colour}'/>" for x, y in spots]
    for name, y in ((name, y) for name, y in (marks or {}).items() if _usable(y, log_y)):
        at = y_axis.at(_scaled(y, log_y))
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{at:.1f}' y2='{at:.1f}' class='mark'/>")
        parts.append(f"<text x='{WIDTH - RIGHT}' y='{at - 4:.1f}' text-anchor='end'>{html.escape(name)} {y:.3g}</text>")
    legend = "".join(
        f"<span><i style='background:{colour}'></i>{html.escape(name)}</span>"
        for colour, name in zip(_cycle(len(usable)), usable)
    )
    return "".join([*parts, "</svg>", f"<div class='legend'>{legend}</div>"])


class _Axis:
    """Values ↔ pixels along one side."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        # A constant still needs a width; a share of its size keeps the tick labels apart.
        spread = (high - low) or max(abs(high), 1.0) * 0.1
        self.low, self.high, self.start, self.end = low, low + spread, start, end

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        raw = (self.high - self.low) / count
        power = 10 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _grid(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str, log_y: bool) -> list[str]:
    parts = []
    for tick in y_axis.ticks():
        y, text = y_axis.at(tick), f"{10**tick if log_y else tick:.3g}"
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>")
    for tick in x_axis.ticks(6):
        parts.append(f"<text x='{x_axis.at(tick):.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{tick:g}</text>")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>{html.escape(x_label)}</text>"
    )
    turned = f"x='14' y='{middle}' text-anchor='middle' transform='rotate(-90 14 {middle})'"
    parts.append(f"<text {turned}>{html.escape(y_label)}</text>")
    return parts


def spectrogram(
    waveform: Float[Tensor, " time"], sample_rate: int, words: Sequence[Segment] = (), height: int = 160
) -> str:
    """A spectrogram to 8 kHz with the words written above their stretch of time.

    Args:
        waveform: mono.
        sample_rate: Hz.
        words: times in seconds.
        height: pixels of the picture.
    """
    hop = max(1, sample_rate // 200)
    n_fft = 1 << (max(64, sample_rate // 40) - 1).bit_length()
    power = stft(waveform[None], n_fft=n_fft, hop_length=hop)[0].abs().square()
    bins = min(power.shape[0], round(8000 / sample_rate * n_fft))
    decibels = 10 * torch.log10(power[:bins] + 1e-10)
    top = float(decibels.max())
    level = ((decibels - top + 70) / 70).clamp(0, 1)
    image = torch.nn.functional.interpolate(level[None, None].flip(2), (height, level.shape[1]), mode="bilinear")[0, 0]
    seconds = len(waveform) / sample_rate
    labels = "".join(
        f"<span style='left:{100 * w.start / seconds:.2f}%;width:{100 * w.duration / seconds:.2f}%' "
        f"title='{w.start:.2f} to {w.end:.2f} s, confidence {w.score:.2f}'>{html.escape(w.label)}</span>"
        for w in words
    )
    picture = f"<img src='{png_data(_magma(image.numpy()))}' alt='spectrogram of {seconds:.2f} s' height='{height}'>"
    ticks = _Axis(0.0, seconds, 0.0, 100.0).ticks(8)
    times = "".join(
        f"<span style='left:{100 * tick / seconds:.2f}%'>{tick:g} s</span>" for tick in ticks if tick < seconds
    )
    return f"<div class='spectrogram'><div class='words'>{labels}</div>{picture}<div class='times'>{times}</div></div>"


def _magma(level: np.ndarray) -> np.ndarray:
    """Dark to bright in even steps of lightness; a few anchors of the magma map, straight lines between them."""
    anchors = np.array(
        [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 176, 120], [252, 253, 191]]
    )
    place = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(level, place, anchors[:, i]) for i in range(3)], axis=-1).astype(np.uint8)


def png_data(rgb: np.ndarray) -> str:
    """A picture `(row, column, 3)` of bytes as a `data:` address of a PNG."""
    rows, columns, _ = rgb.shape
    raw = b"".join(b"\0" + rgb[row].tobytes() for row in range(rows))
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def audio_data(waveform: Float[Tensor, " time"], sample_rate: int) -> str:
    """Audio as a `data:` address of a 16-bit WAV file, which every browser plays."""
    stream = io.BytesIO()
    write_audio(stream, waveform.clamp(-1, 1), sample_rate, format="wav")
    return "data:audio/wav;base64," + base64.b64encode(stream.getvalue()).decode()


def _usable(y: float, log_y: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log_y)


def _scaled(y: float, log_y: bool) -> float:
    return math.log10(y) if log_y else y


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
