"""Figures embedded in a page."""

import io
import re
from html import escape

from markupsafe import Markup
from matplotlib.figure import Figure

from neuroconv.report.style import INK


def inline_svg(figure: Figure, *, alt: str, name: str) -> Markup:
    """Returns a figure as an <svg> element; what is drawn in `INK` takes the page's text colour.

    `name` is unique on the page, and prefixes the figure's identifiers, which others may use too.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    tag = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert tag is not None  # matplotlib always writes one
    width = figure.get_size_inches()[0] * 96
    return Markup(
        f'<svg role="img" aria-label="{escape(alt)}" style="width: {width:.0f}px" '
        f'viewBox="{tag[1]}">{svg[tag.end() :].strip()}'
    )
