"""The page of a classifier's diagnostics draws and says what its numbers are."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuroconv.core.text import drawable
from neuroconv.report import diagnostics
from neuroconv.training.diagnostics import classification, share
from tests.report.test_report_page import Page


@pytest.fixture(params=[2, 30])
def numbers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """400 images of 2 or 30 classes with long names that are neither markup nor TeX."""
    labels = torch.arange(400) % request.param
    logits = torch.randn(400, request.param, dtype=torch.float64)
    logits[range(400), labels] += 2
    names = [f"<b> & $x_ \\frac \x1b\udcff more letters {k}" for k in range(request.param)]
    levels = [{"level": k, **share(390 - 99 * k, 400)} for k in range(4)]
    return {
        "run": "runs/<x>", "model": "net", "data": "folder", "split": "val",
        **classification(logits, labels.numpy(), names),
        "perturbed": dict.fromkeys(diagnostics.UNITS, levels),
    }  # fmt: skip


def test_the_page_is_well_formed_and_says_its_numbers(
    numbers: dict[str, Any], tmp_path: Path
) -> None:
    diagnostics.write_diagnostics(tmp_path / "page.html", numbers)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert r"&lt;b&gt; &amp; $x_ \frac \x1b\udcff more letters 1" in text
    assert page.tags.isdisjoint({"script", "link", "b"})
    assert len(page.ids) == len(set(page.ids))
    assert text.count("<svg") == 5
    for value in (
        f"{numbers['accuracy']['value'] * 100:.2f} % <small>",
        f"{numbers['expected_calibration_error'] * 100:.2f} %: ",
        f"{numbers['brier_score']:.4f}", f"{numbers['cross_entropy_nats']:.4f} nats",
        f"{numbers['classes'][-1]['precision']['value'] * 100:.2f} % <small>",
        "runs/&lt;x&gt;, on the 400 images of the validation split", "23.25 % <small>(19.4 to 27",
    ):  # fmt: skip
        assert value in text
    errors = np.array(numbers["confusion_matrix"])
    np.fill_diagonal(errors, 0)
    shown = [int(count) for count in re.findall(r"<td>(\d+)</td><td>[\d.]+ %</td></tr>", text)]
    assert shown == sorted(errors[errors > 0].tolist(), reverse=True)[:10]


def test_the_figures_draw_the_numbers(numbers: dict[str, Any]) -> None:
    matrix = np.array(numbers["confusion_matrix"])
    axes: Any = diagnostics.confusion_matrix(numbers).axes[0]
    cells = {(j, i): f"{matrix[i, j]}" for i, j in np.argwhere(matrix)}
    drawn = {text.get_position(): text.get_text() for text in axes.texts}
    assert drawn == (cells if len(matrix) <= 20 else {})
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [drawable(row["name"]) for row in numbers["classes"]]
    opacity = axes.images[0].get_array()[..., 3]
    np.testing.assert_allclose((opacity / 0.75) ** 2, matrix / matrix.sum(1, keepdims=True))
    points, histogram = diagnostics.reliability_diagram(numbers).axes
    bins = numbers["reliability"]
    filled = [[row["confidence"], row["accuracy"]["value"]] for row in bins if row["images"]]
    assert points.lines[1].get_xydata().tolist() == filled
    assert [bar.get_height() for bar in histogram.patches] == [row["images"] for row in bins]
    for kind, rows in numbers["perturbed"].items():
        axes = diagnostics.accuracy_curve(numbers, kind).axes[0]
        chance, curve = axes.lines
        assert chance.get_ydata()[0] == matrix.sum(1).max() / 400
        assert curve.get_xydata().tolist() == [[row["level"], row["value"]] for row in rows]
        bars = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
        assert bars == [[row["low"], row["high"]] for row in rows]
