"""The page is well formed, needs nothing but itself, and says what its entries say."""

import re
import resource
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroconv.core.files import WriteError
from neuroconv.report import (
    DendriteCost,
    Entry,
    dendritic_filters,
    error_against_cost,
    inline_svg,
    learning_curves,
    write_report,
)
from neuroconv.report.plots import tuning
from neuroconv.report.style import INK
from tests.report.entries import ENTRY
from tests.report.labels import assert_labels_are_legible

VOID = {"meta", "br", "img", "link", "hr", "input"}


def history(epochs: int, offset: float) -> list[dict[str, Any]]:
    return [
        {
            "epoch": n, "train_loss": 1 / n, "val_loss": 1 / n + offset,
            "train_accuracy": 1 - 0.5 / n, "val_accuracy": 1 - 0.5 / n - offset,
        }
        for n in range(1, epochs + 1)
    ]  # fmt: skip


def entry(label: str, mean: float, mflop: float, **changes: Any) -> Entry:
    accuracies = {3: mean - 0.01, 5: mean + 0.01}
    histories = [history(3, 0.0), history(3, 0.1)]
    changes = {"settings": {"optimizer": "sgd", "learning_rate": 0.01}, **changes}
    numbers = {"mean": mean, "mac_executed": mflop, "accuracies": accuracies}
    return replace(ENTRY, **{"label": label, "histories": histories, **numbers, **changes})


RNG = np.random.default_rng(0)
TRIALS = [
    {"learning_rate": 0.1, "weight_decay": 0.01, "val_accuracy": 0.9},
    {"learning_rate": 0.01, "weight_decay": 0.01, "val_accuracy": 0.95},
    {"learning_rate": 0.001, "weight_decay": 0.01, "val_accuracy": None},
    {"learning_rate": 0.01, "weight_decay": 0.1, "val_accuracy": 0.94},
]
ENTRIES = [
    entry(
        "granule <b>", 0.95, 2.0, difference=None, difference_half_width=None,
        dendrites=DendriteCost(4500.0, 4800.0, 5000.0, 200.0),
        filters=[
            ("granule", RNG.normal(size=(2, 5, 3, 4))),
            ("purkinje", RNG.normal(size=(1, 2, 5, 50))),
        ],
    ),
    entry(
        "control & co", 0.96, 1.9, verdict="equal (slightly better)", p=0.012, primary=True,
        trials=TRIALS,
    ),
    entry("perfect", 1.0, 0.01),
]  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are closed, and collects identifiers, references and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href"):
                self.references.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = write_report(
        tmp_path_factory.mktemp("report") / "new" / "report.html",
        title="Neurons & <others>", summary="Three were compared.", entries=ENTRIES,
        linear_accuracy=0.9, chance=0.1, notes=["The budget was equal."],
        command="neuroconv compare x.toml", configuration='name = "<x>"',
        environment={"python": "3.11", "packages": {"torch": "2.10"}, "git_commit": None},
    )  # fmt: skip
    assert target.is_absolute()
    return target.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_nothing_but_itself(page: str) -> None:
    parsed = Page(page)
    assert parsed.tags.isdisjoint({"script", "link", "iframe"})
    assert parsed.references  # glyphs and pictures of the figures
    assert all(reference.startswith(("#", "data:")) for reference in parsed.references)
    assert "@import" not in page
    assert len(parsed.ids) == len(set(parsed.ids))
    urls = re.findall(r"url\(([^)]*)\)", page)
    assert all(url.startswith("#") for url in urls)
    targets = [target[1:] for target in (*urls, *parsed.references) if target.startswith("#")]
    assert set(targets) <= set(parsed.ids)
    pictures = re.findall(r"<svg[^>]*>", page)
    # The neuron, curves, costs, trials, and two kinds of filters.
    assert len(pictures) == 1 + 2 + 3 + 1 + 2
    assert all('role="img" aria-label="' in picture for picture in pictures)


def test_the_page_shows_its_entries_and_escapes_their_text(page: str) -> None:
    for text in (
        "perfect, which has no dendrites, is best in the mean with 100.00 % over 2 seeds",
        "All are above the linear classifier (90.00 %)",
        "<td>95.00 ± 2.00 %</td>",
        "<td>+1.00 ± 3.00</td>",
        "<td>1,234</td>",
        "<td>sgd</td><td>0.01</td>",
        '<span class="verdict equal">equal (slightly better)</span> *<br><small>p = 0.012</small>',
        "seed 3, 5. granule &lt;b&gt;: 94.00, 96.00; control &amp; co: 95.00, 97.00",
        "<td>4,500.0</td>",
        "<td>5,000.0</td><td>200.0</td>",
        "<td>10.00 %</td>",
        "<title>Neurons &amp; &lt;others&gt;</title>",
        "The budget was equal.",
        "neuroconv compare x.toml",
        "name = &#34;&lt;x&gt;&#34;",
        "<dt>torch</dt><dd>2.10</dd>",
        "Every model was counted by three counters",
    ):
        assert text in page.replace("\u00a0", " ")
    assert "git commit" not in page  # unknown
    assert "None" not in page


def test_a_page_without_linear_classifier_dendrites_or_intervals(tmp_path: Path) -> None:
    alone = entry(
        "alone", 0.5, 1.0, accuracies={0: 0.5}, half_width=None, difference=None,
        mac_per_neuron=None, histories=[history(1, 0.0)],
    )  # fmt: skip
    page: dict[str, Any] = {
        "title": "t", "summary": "s", "linear_accuracy": None, "chance": 0.1, "notes": [],
        "command": "c",
    }  # fmt: skip
    text = write_report(tmp_path / "report.html", entries=[alone], **page).read_text("utf-8")
    Page(text)
    assert "50.00 %" in text
    assert "linear" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert "dendritic filters" not in text
    with pytest.raises(ValueError, match="no entries"):
        write_report(tmp_path / "report.html", entries=[], **page)


def test_a_page_that_does_not_fit_on_the_disk_leaves_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WriteError, match=r"report\.html: cannot be written .*free some space"):
            write_report(
                page, title="t", summary="s", entries=[replace(ENTRIES[0], filters=())], notes=[],
                linear_accuracy=None, chance=0.1, command="c",
            )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert page.read_text() == "before"
    assert list(tmp_path.iterdir()) == [page]


def test_seeds_that_failed_are_drawn_and_not_averaged() -> None:
    failed: dict[str, Any] = {"failures": {7: "loss nan"}, "failed_histories": [history(2, 0.2)]}
    first = replace(ENTRIES[0], **failed)
    (error,) = learning_curves([first]).axes
    assert [len(np.asarray(line.get_ydata())) for line in error.lines] == [3, 3, 2, 3]
    assert [line.get_marker() for line in error.lines] == ["", "", "x", ""]
    none = replace(ENTRIES[1], accuracies={}, mean=None, half_width=None, histories=[])
    figure = error_against_cost([none, first])
    assert_labels_are_legible(figure, ["2"])  # its position in the tables
    assert error_against_cost([none]) is None
    learning_curves([none], "loss").draw_without_rendering()  # nothing


@pytest.mark.parametrize("count", [1, 9])
def test_labels_overlap_neither_each_other_nor_the_lines(count: int) -> None:
    rng = np.random.default_rng(count)
    entries = [
        entry(f"a model called {n}", float(rng.uniform(0.95, 0.99)), float(rng.uniform(1, 1.5)))
        for n in range(count)
    ]
    figure = error_against_cost(entries, linear_accuracy=0.97)
    boxes = assert_labels_are_legible(figure, [f"{n + 1}" for n in range(count)])
    y = figure.axes[0].transData.transform((1.0, 0.03))[1]
    assert not any(box.y0 < y < box.y1 for box in boxes)


def test_errors_and_intervals_are_drawn_where_they_are() -> None:
    figure = error_against_cost(ENTRIES, linear_accuracy=0.9)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    points = [container.lines[0].get_xydata().tolist() for container in axes.containers]  # type: ignore[attr-defined]
    assert points[0] == [[2.0, pytest.approx(0.05)]]
    assert points[2] == [[0.01, low]]  # no error lies below a log scale: at its end
    (ends,) = axes.containers[0].lines[2][0].get_segments()  # type: ignore[attr-defined]
    assert ends[:, 1] == pytest.approx([0.03, 0.07])  # 95 % +- 2
    assert 0 < low < 0.03
    assert high > 0.1  # the linear classifier's


def test_trials_are_drawn_at_their_rates_and_the_best_is_marked() -> None:
    figure = tuning(ENTRIES)
    line, others, best = figure.axes[0].lines
    assert np.asarray(line.get_xydata()) == pytest.approx(np.array([[0.01, 0.05], [0.1, 0.1]]))
    assert np.asarray(others.get_xydata()) == pytest.approx(np.array([[0.01, 0.06]]))
    assert np.asarray(best.get_xydata()) == pytest.approx(np.array([[0.01, 0.05]]))
    assert_labels_are_legible(figure, ["2"])  # the second entry alone has trials
    assert tuning(ENTRIES[:1]) is None


def test_learning_curves_draw_each_seed_and_the_mean_of_their_common_epochs() -> None:
    longer = replace(ENTRIES[0], histories=[history(4, 0.0), history(2, 0.1)])
    (error,), (loss,) = (learning_curves([longer], key).axes for key in ("error", "loss"))
    assert [len(np.asarray(line.get_ydata())) for line in error.lines] == [4, 2, 2]
    assert np.asarray(error.lines[-1].get_ydata()) == pytest.approx([0.55, 0.30])
    assert np.asarray(loss.lines[-1].get_ydata()) == pytest.approx([1.05, 0.55])
    assert np.asarray(error.lines[-1].get_xdata()).tolist() == [1, 2]


def test_filters_show_the_largest_neurons_and_the_present_last() -> None:
    weights = np.zeros((9, 5, 3, 4))
    weights[7] = 2.0
    weights[2, -1] = -3.0  # in the present alone, and with a smaller norm
    weights[4, 0] = 0.1
    panels = np.array(dendritic_filters(weights, most=2).axes).reshape(2, 5)
    assert [row[0].get_ylabel() for row in panels] == ["neuron 7", "neuron 2"]
    assert [axes.get_title() for axes in panels[0]] == ["t − 4", "t − 3", "t − 2", "t − 1", "t"]
    (last,) = panels[1][-1].images
    assert np.asarray(last.get_array()).tolist() == [[-3.0] * 4] * 3
    assert last.get_clim() == (-3.0, 3.0)
    assert panels[0][0].images[0].get_clim() == (-2.0, 2.0)  # each neuron has its own scale
    assert [text.get_text() for text in panels[1][-1].texts] == ["±3.0"]


def test_filters_of_an_image_layer_and_of_a_purkinje_cell() -> None:
    weights = np.zeros((2, 3, 1, 2, 2))
    weights[1, 2] = 1.0
    first, second = dendritic_filters(weights).axes
    assert [first.get_ylabel(), second.get_ylabel()] == ["unit 1\nchannel 2", "unit 0\nchannel 0"]
    assert np.asarray(first.images[0].get_array()).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    stacked = dendritic_filters(RNG.normal(size=(2, 5, 10, 1000))).axes
    assert len(stacked) == 10
    assert np.asarray(stacked[0].images[0].get_array()).shape == (10, 1000)
    assert stacked[4].get_ylabel() == "t"


@pytest.mark.parametrize("shape", [(3, 4), (0, 5, 3, 4), (1, 1, 1, 1, 1, 1)])
def test_filters_of_other_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"weights have shape {shape}")):
        dendritic_filters(np.zeros(shape))


def test_an_svg_takes_the_pages_ink_and_escapes_its_text() -> None:
    svg = inline_svg(dendritic_filters(np.ones((1, 1, 2, 2))), alt='"a" & b', name="one")
    assert INK not in svg
    assert "currentColor" in svg
    assert svg.startswith('<svg role="img" aria-label="&quot;a&quot; &amp; b"')
    assert svg.endswith("</svg>")
