"""The page in a browser, where there is one: it fits a telephone, and reports no error."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from neuroconv.essay.page import read_claims, read_sections, write_page
from neuroconv.report import write_report
from tests.report.test_report_page import ENTRIES, entry

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WIDTHS = (390, 1280)
PROJECT = Path(__file__).resolve().parents[2]
# Opens what is folded, and names what reaches over the right edge, but for what scrolls in its box.
MEASURE = """
addEventListener("load", () => {
  const widths = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, edge = frame.clientWidth;
    page.querySelectorAll("details").forEach((part) => { part.open = true; });
    const wide = [...page.querySelectorAll("body *")].filter((part) =>
      part.getBoundingClientRect().right > edge + 1 && !part.closest(".scroll, pre, svg *"));
    return [page.documentElement.scrollWidth, page.querySelectorAll("svg").length,
            wide.map((part) => part.outerHTML.slice(0, 80))];
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(widths) + "</pre>";
});
"""


def measure(text: str, folder: Path) -> list[tuple[int, int, list[str]]]:
    """The width of a page in a frame of each of WIDTHS, its pictures, and what is too wide."""
    frames = (
        f'<iframe width="{width}" height="900" srcdoc="{escape(text)}"></iframe>'
        for width in WIDTHS
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<body><script>{MEASURE}</script>{''.join(frames)}</body>", "utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         wrapper.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.findall(r"CONSOLE.*", done.stderr) == []
    measured = re.search("<pre>(.*)</pre>", done.stdout)
    return [tuple(row) for row in json.loads(unescape(measured[1]))]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome")
def test_the_page_fits_a_telephone_and_a_wide_screen(tmp_path: Path) -> None:
    many = [entry(f"a model with a long name, {n}", 0.9 + 0.01 * n, 0.1 * 4**n) for n in range(8)]
    text = write_report(
        tmp_path / "report.html", title="Neurons", summary="Many were compared.",
        entries=[*ENTRIES, *many], linear_accuracy=0.9, chance=0.1, notes=["All was equal."],
        command="neuroconv compare " + "x" * 200, configuration="name = 1",
        environment={"a": "b" * 99},
    ).read_text("utf-8")  # fmt: skip
    for width, (scrolled, pictures, wide) in zip(WIDTHS, measure(text, tmp_path), strict=True):
        assert (scrolled, wide) == (width, [])
        assert pictures >= 6  # the neuron, two curves, two costs, filters


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome")
def test_the_page_of_the_essay_fits_a_telephone_and_a_wide_screen(tmp_path: Path) -> None:
    experiments = PROJECT / "experiments"
    folders = [*read_claims(experiments)]
    pictures = sum((folder / "picture.svg").exists() for folder in folders)
    write_page(tmp_path / "essay.html", read_sections(experiments))
    text = (tmp_path / "essay.html").read_text("utf-8")
    assert text.count("<section") == len(folders)
    for width, (scrolled, shown, wide) in zip(WIDTHS, measure(text, tmp_path), strict=True):
        assert (scrolled, shown, wide) == (width, pictures, [])
