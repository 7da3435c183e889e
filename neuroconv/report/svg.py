"""Figures inside a page."""

import io
import re
from html import escape

from matplotlib.figure import Figure

from neuroconv.report.plots import INK


def inline_svg(figure: Figure, *, alt: str, name: str) -> str:
    """A figure as an <svg> element whose ink takes the colour of the text around it.

    Args:
        figure: drawn with `INK` where it should follow the page.
        alt: what it shows, in words.
        name: of the figure, different for each of a page: keeps the identifiers in it apart.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    # Two figures may hold the same identifier, and a page may not.
    svg = re.sub(r'(\bid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    width = figure.get_size_inches()[0] * 96
    head = (
        f'<svg role="img" aria-label="{escape(alt)}" style="width: {width:.0f}px" '
        f'viewBox="{_view_box(svg)}">'
    )
    return head + svg[svg.index(">") + 1 :].strip()


def _view_box(svg: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', svg)
    assert found is not None  # matplotlib always writes one
    return found[1]
