"""Texts of users, as terminals, pages and plots can show them."""

import re
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

# They move the cursor, end or turn the line, or are half a character (of a file name).
_UNSEEN = re.compile(r"[\0-\t\v-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_DRAWN = 40


def printable(text: str) -> str:
    r"""Returns a text with its control characters, all but the line feed, written as \x1b."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


class Terminal(Console):
    """A console of plain texts: no markup, no emoji codes, no escape sequences, any encoding."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if reconfigure := getattr(self.file, "reconfigure", None):
            reconfigure(errors="backslashreplace")

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def drawable(text: str) -> str:
    """Returns a text as matplotlib draws it literally: no TeX, and nothing that a legend hides.

    Characters that the font lacks become escapes, and a long text loses its middle.
    """
    from matplotlib import rcParams  # slow to import

    glyphs = _glyphs(tuple(rcParams["font.family"]))
    text = "".join(c if ord(c) in glyphs or c == "\n" else ascii(c)[1:-1] for c in printable(text))
    if len(text) > _LONGEST_DRAWN:
        text = f"{text[: _LONGEST_DRAWN // 2]}…{text[-_LONGEST_DRAWN // 2 :]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text[:1] in ("", "_") else text


@cache
def _glyphs(families: tuple[str, ...]) -> set[int]:
    """Returns the characters that fonts of the families have, in regular and in bold."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    def characters(weight: str) -> set[int]:
        fonts = [FontProperties(family=name, weight=weight) for name in families]
        return {code for font in fonts for code in get_font(findfont(font)).get_charmap()}

    return characters("regular") & characters("bold")
