"""Pictures in plain SVG: text stays text, and light and dark pages have their own colours."""

from collections.abc import Iterable, Sequence
from html import escape

# GitHub's background and ink, and three colours that the colour-blind can tell apart. Strength is
# opacity, so that a map is ordered in grey and on either background; a stroke marks values below
# zero too. "up" is above rest, "down" below rest, "rate" a firing rate.
LIGHT = {
    "ground": "#ffffff", "ink": "#1f2328", "soft": "#59636e", "faint": "#d1d9e0",
    "up": "#b34700", "down": "#0b5fa5", "rate": "#00704f",
}  # fmt: skip
DARK = {
    "ground": "#0d1117", "ink": "#f0f6fc", "soft": "#9aa4ae", "faint": "#3d444d",
    "up": "#ff9a4d", "down": "#6cb6ff", "rate": "#3ddba4",
}  # fmt: skip
FONT = "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', monospace"
LEVELS = 20  # of opacity in a map

Point = tuple[float, float]


def _rules(colours: dict[str, str]) -> str:
    return "".join(
        f".{name}{{fill:{colour}}}.{name}-line{{stroke:{colour};fill:none}}"
        for name, colour in colours.items()
    )


def _number(value: float) -> str:
    """Formats with one digit after the point, and none if it is zero."""
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0" if abs(value) < 0.05 else "-0")


class Drawing:
    """An SVG picture with its own background.

    Args:
        width, height: in pixels; GitHub shows 800 of them unscaled.
        about: a description of what it shows.
    """

    def __init__(self, width: int, height: int, about: str) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">\n'
            f"<style>text{{font-family:{FONT}}}.mono{{font-family:{MONO}}}{_rules(LIGHT)}"
            f"@media (prefers-color-scheme:dark){{{_rules(DARK)}}}</style>\n"
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>\n'
        )
        self.parts: list[str] = []

    def svg(self) -> str:
        return self.head + "\n".join(self.parts) + "\n</svg>\n"

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        colour: str = "ink",
        size: int = 13,
        anchor: str = "start",
        mono: bool = False,
        bold: bool = False,
    ) -> None:
        kind = f"{colour} mono" if mono else colour
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}" font-size="{size}" '
            f'text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def note(self, x: float, y: float, words: str, anchor: str = "start") -> None:
        """Writes small, soft text."""
        self.text(x, y, words, colour="soft", size=12, anchor=anchor)

    def title(self, number: int, biology: str, module: str) -> None:
        """Writes the head of a panel: the step's number, what the cell does, and the module."""
        self.badge(22, 23, number)
        self.text(40, 28, biology, size=15, bold=True)
        self.text(786, 28, module, size=14, anchor="end", mono=True)

    def badge(self, x: float, y: float, number: int) -> None:
        self.circle(x, y, 11, "ink")
        self.text(x, y + 4.5, str(number), colour="ground", size=13, anchor="middle", bold=True)

    def label(self, x: float, y: float, number: int, module: str) -> None:
        """Writes a module's name with its step's number before it, from x on."""
        self.badge(x + 11, y - 4.5, number)
        self.text(x + 27, y, module, mono=True)

    def circle(self, x: float, y: float, radius: float, colour: str, opacity: float = 1.0) -> None:
        faded = "" if opacity == 1 else f' fill-opacity="{opacity:.2f}"'
        self.parts.append(
            f'<circle class="{colour}" cx="{_number(x)}" cy="{_number(y)}" '
            f'r="{_number(radius)}"{faded}/>'
        )

    def line(
        self,
        points: Iterable[Point],
        colour: str = "ink",
        width: float = 1.5,
        *,
        dash: str = "",
        curved: bool = False,
    ) -> None:
        """Draws a line through the points, or a Bezier curve of four."""
        first, *rest = [f"{_number(x)} {_number(y)}" for x, y in points]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<path class="{colour}-line" d="M{first} {"C" if curved else "L"}{" ".join(rest)}" '
            f'stroke-width="{_number(width)}" stroke-linejoin="round" '
            f'stroke-linecap="round"{dashed}/>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str = "soft",
        *,
        stroke: float = 1.0,
        filled: bool = False,
    ) -> None:
        kind = colour if filled else f"{colour}-line"
        outline = "" if filled else f' stroke-width="{stroke}"'
        self.parts.append(
            f'<rect class="{kind}" x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" '
            f'height="{_number(height)}"{outline}/>'
        )

    def arrow(self, x: float, y: float, length: float = 22) -> None:
        self.line([(x, y), (x + length, y)], "soft", 2)
        self.line([(x + length - 6, y - 5), (x + length, y), (x + length - 6, y + 5)], "soft", 2)

    def heat(
        self,
        x: float,
        y: float,
        values: Sequence[Sequence[float]],
        cell: Point,
        top: float,
        colour: str = "up",
    ) -> None:
        """Draws a map, one row of `values` below the other; opacity is |value| / top, at most 1.

        Values below zero are "down" and bear a stroke.
        """
        width, height = cell
        squares: dict[tuple[str, int], list[str]] = {}
        strokes = []
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                level = min(LEVELS, round(abs(value) / top * LEVELS))
                if level == 0:
                    continue
                left, above = x + column * width, y + row * height
                corner = f"M{_number(left)} {_number(above)}"
                kind = colour if value > 0 else "down"
                squares.setdefault((kind, level), []).append(
                    f"{corner}h{_number(width)}v{_number(height)}h-{_number(width)}z"
                )
                if value < 0 and level > 1:
                    middle = _number(above + height / 2)
                    strokes.append(f"M{_number(left + width * 0.25)} {middle}h{_number(width / 2)}")
        for (kind, level), paths in sorted(squares.items()):
            self.parts.append(
                f'<path class="{kind}" fill-opacity="{level / LEVELS:.2f}" d="{"".join(paths)}"/>'
            )
        if strokes:
            self.parts.append(f'<path class="ink-line" stroke-width="1.5" d="{"".join(strokes)}"/>')
        self.box(x, y, width * len(values[0]), height * len(values))

    def scale(self, x: float, y: float, top: float, words: str, colour: str = "up") -> None:
        """Draws the legend of a map: a ramp from 0 to `top`, and its unit."""
        self.note(x, y + 10, "0")
        steps = [[step / 10 for step in range(1, 11)]]
        self.heat(x + 12, y, steps, (6, 11), 1, colour)
        self.note(x + 77, y + 10, f"{top:.2f} {words}")

    def bars(
        self,
        x: float,
        y: float,
        values: Sequence[float],
        size: Point,
        top: float,
        colour: str = "rate",
        *,
        hollow: bool = False,
    ) -> None:
        """Draws bars that stand on y, in a strip of this size; negative ones hang from it."""
        width, height = size[0] / len(values), size[1]
        for step, value in enumerate(values):
            tall = min(abs(value) / top, 1.0) * height
            if tall < 0.3:
                continue
            left = x + step * width + width * 0.12
            self.box(
                left, y - tall if value > 0 else y, width * 0.76, tall,
                colour if value > 0 else "down", filled=not hollow,
            )  # fmt: skip
        self.line([(x, y), (x + size[0], y)], "soft", 1)

    def axes(self, x: float, y: float, size: Point, across: str, up: str) -> None:
        """Draws two axes that meet at (x, y), the lower left corner, with their labels."""
        width, height = size
        self.line([(x, y - height), (x, y), (x + width, y)], "soft", 1)
        self.note(x + width / 2, y + 18, across, "middle")
        self.note(x, y - height - 7, up)
