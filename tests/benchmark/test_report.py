import base64
import io
import math
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sonorant.benchmark.pictures import audio_data, line_chart, png_data, spectrogram
from sonorant.benchmark.report import Report
from sonorant.core.types import Segment


def test_a_report_is_one_page_that_runs_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    report = Report("<b>run</b>", "lead")
    report.table([{"wer": 0.12345, "note": "<script>alert(1)</script>"}]).text("a & b").code("REF  a")
    report.curves({"loss": [(0, 3.0), (1, 1.0)]}, "step", "loss").clip("clip", torch.randn(16000) * 0.1, 16000)
    text = report.write(tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r"""(?:src|href)=['"](?!data:)""", text)
    assert "default-src 'none'" in text


def test_a_chart_is_well_formed_and_leaves_out_what_is_not_finite() -> None:
    chart = line_chart({"a": [(0, 1.0), (1, math.nan), (2, 3.0)]}, "x", "y", marks={"base": 2.0})
    root = ET.fromstring(chart[: chart.index("</svg>") + 6])
    points = next(node.attrib["points"] for node in root.iter() if node.tag.endswith("polyline"))
    assert len(points.split()) == 2
    first, last = (tuple(map(float, point.split(","))) for point in points.split())
    assert first[0] < last[0]
    assert first[1] > last[1], "larger values stand higher"


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(0, -1.0)]])
def test_a_chart_without_points_says_so(points: list) -> None:
    assert "nothing to draw" in line_chart({"a": points}, "x", "y", log_y=True)


def test_a_mark_that_a_logarithmic_axis_lacks_is_left_out() -> None:
    chart = line_chart({"a": [(0, 1.0), (1, 2.0)]}, "x", "y", log_y=True, marks={"none": 0.0, "base": 1.5})
    assert "base" in chart
    assert "none 0" not in chart


def test_a_constant_line_can_be_drawn() -> None:
    assert "<polyline" in line_chart({"a": [(0, 0.0), (1, 0.0)]}, "x", "y")


def test_png_holds_the_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    data = base64.b64decode(png_data(rgb).split(",")[1])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (5, 3)
    start = data.index(b"IDAT") + 4
    raw = zlib.decompress(data[start : start + struct.unpack(">I", data[start - 8 : start - 4])[0]])
    rows = np.frombuffer(raw, np.uint8).reshape(3, 16)
    assert np.array_equal(rows[:, 1:].reshape(3, 5, 3), rgb)


def test_audio_survives_to_sixteen_bits() -> None:
    tone = 0.5 * torch.sin(torch.arange(800) * 0.1)
    read, rate = soundfile.read(io.BytesIO(base64.b64decode(audio_data(tone, 8000).split(",")[1])))
    assert rate == 8000
    assert np.abs(read - tone.numpy()).max() < 1e-4


def test_a_spectrogram_shows_its_words_in_their_places() -> None:
    html = spectrogram(torch.randn(16000) * 0.1, 16000, [Segment(0.25, 0.5, "<word>", 0.9)])
    assert "left:25.00%;width:50.00%" in html
    assert "&lt;word&gt;" in html
