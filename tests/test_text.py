"""Texts of users in tables, plots and pages: shown as they are, or as escapes, and no crash."""

import io
import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from neuroconv.brain.section import Notes
from neuroconv.comparison.table import comparison_table
from neuroconv.core.text import Terminal, drawable, printable
from neuroconv.flops import profile, stage_table, summary_table
from neuroconv.report import write_report
from neuroconv.report.style import label_points
from neuroconv.training.curves import plot_curves
from neuroconv.training.metrics import TrainingBar
from tests.commands import Call
from tests.report.test_report_page import Page, entry, history

# A text, how a terminal and a page show it, and how a plot does.
TEXTS = {
    "[red]x[/] [/] :smile:": ("[red]x[/] [/] :smile:", "[red]x[/] [/] :smile:"),
    r"$x_{ $\frac{1}{0}$": (r"$x_{ $\frac{1}{0}$", r"\$x_{ \$\frac{1}{0}\$"),
    r"\alpha \$": (r"\alpha \$", r"\alpha \\$"),
    "%&<>\"' --> {{ x }} {% x %}": ("%&<>\"' --> {{ x }} {% x %}",) * 2,
    "\x1b[31m\x9b1m\x1b]0;t\a": (r"\x1b[31m\x9b1m\x1b]0;t\x07",) * 2,
    "a\tb\rc\0": (r"a\tb\rc\x00",) * 2,
    "a\u202eb\u200f\u2028": (r"a\u202eb\u200f\u2028",) * 2,
    "\udcff": (r"\udcff",) * 2,  # half a character, as in a file name that is not UTF-8
    "_hidden": ("_hidden", " _hidden"),
    "": ("", " "),
    "漢字 ü 😀\U000e0067": ("漢字 ü 😀\U000e0067", "\\u6f22\\u5b57 ü 😀\\U000e0067"),
    "0123456789" * 1000: ("0123456789" * 1000, "01234567890123456789…01234567890123456789"),
}
ENTRIES = [entry(text, 0.9, 1.0 + number) for number, text in enumerate(TEXTS)]


@pytest.mark.parametrize("text", TEXTS, ids=[ascii(text[:20]) for text in TEXTS])
def test_a_text_is_shown_as_it_is_or_as_escapes(text: str) -> None:
    assert (printable(text), drawable(text)) == TEXTS[text]


def test_tex_is_drawn_literally() -> None:
    figure = Figure()
    widths = [figure.text(0, 0, drawable(t)).get_window_extent().width for t in ("$x$", "x")]
    assert widths[0] > 2.5 * widths[1]


def test_plots_and_pages_hold_every_text(tmp_path: Path) -> None:
    axes, count = Figure().subplots(), len(TEXTS)
    label_points(axes, [*TEXTS], [(0.1, n / count) for n in range(count)], ["red"] * count)
    assert [text.get_text() for text in axes.texts if text.get_text()] == [
        drawn for _, drawn in TEXTS.values()
    ]
    activity = {text: {"active_share": 0.5} for text in TEXTS}
    records = [{**record, "activity": activity} for record in history(1, 0.0)]
    plot_curves(records, tmp_path / "curves.png", label="".join(TEXTS))
    texts = {name: "".join(TEXTS) for name in ("title", "summary", "command", "configuration")}
    page = write_report(
        tmp_path / "page.html", entries=ENTRIES[::2], linear_accuracy=0.5, chance=0.1,
        notes=[*TEXTS], environment={text: text for text in TEXTS}, **texts,
    ).read_text(encoding="utf-8")  # fmt: skip
    assert Page(page).tags.isdisjoint({"script", "x"})
    assert page == printable(page)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_terminals_get_no_control_characters(encoding: str) -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding)
    notes, bar = Notes(), TrainingBar("\x1b[31m[/]", epochs=1, steps=1, done=0, shown=True)
    assert printable(bar.tasks[0].description) == bar.tasks[0].description
    terminal = Terminal(file=stream, width=30_000)
    terminal.print(comparison_table(ENTRIES, 0.5, 0.1))
    for text in TEXTS:
        notes.mark(text)
        terminal.print(text)
        terminal.out(text)
    terminal.print(notes)
    stream.flush()
    shown = buffer.getvalue().decode(encoding)
    assert shown == printable(shown)
    for text, _ in TEXTS.values():
        line = text.encode(encoding, "backslashreplace").decode(encoding)
        assert shown.count(line) >= 4


def test_names_in_tables_are_no_markup_on_any_console() -> None:
    import torch
    from torch import nn

    model = nn.Sequential()
    model.add_module("[/] \x1b[31m", nn.Linear(2, 2))
    record = profile(model, torch.zeros(1, 2), name="[/] \x1b[31m")
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table([record]), stage_table(record))
    assert str(record).count(r"[/] \x1b[31m") == 1


def test_errors_send_no_escape_sequences(call: Call) -> None:
    status, _, err = call("train", "\x1b[31m[/]\udcff.toml")
    assert (status, printable(err)) == (2, err)
    assert r"error: \x1b[31m[/]\udcff.toml: cannot be read" in err
    assert r"\x1b[31m[/]" in warnings.formatwarning("\x1b[31m[/]", UserWarning, "file.py", 1)
