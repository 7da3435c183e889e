"""report.html: a comparison on one page that loads nothing from elsewhere."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from neuroconv.core.files import write_text
from neuroconv.core.text import printable
from neuroconv.report.entry import (
    CURRENCIES,
    MAIN,
    Currency,
    Entry,
    counting,
    findings,
    percent,
    points,
    short,
)
from neuroconv.report.filters import dendritic_filters
from neuroconv.report.plots import error_against_cost, learning_curves, tuning
from neuroconv.report.style import COLOURS, INK

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("neuroconv.report", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    finalize=lambda value: printable(value) if type(value) is str else value,
)
TEMPLATES.filters.update(percent=percent, points=points, short=short)


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    entries: Sequence[Entry],
    linear_accuracy: float | None,
    chance: float,
    notes: Sequence[str],
    command: str,
    configuration: str | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a self-contained page (finding, table, plots, how to reproduce it); returns its path.

    Args:
        path: the page; its folder is created if necessary.
        entries: one or more, one for each model; differences are to the first.
        linear_accuracy: a linear classifier's accuracy on the same test set, if there is one.
        chance: the share of the most frequent class in the test set.
        notes: what was equal for all models, one sentence each.
        command, configuration: what reproduces the comparison.
        environment: the machine and the versions; nested tables are flattened.
    """
    if not entries:
        raise ValueError("no entries: expected one or more models to report on")
    filters = (list(_filters(number, entry)) for number, entry in enumerate(entries))
    html = TEMPLATES.get_template("page.html").render(
        title=title, summary=summary, entries=entries, notes=notes,
        findings=findings(entries, linear_accuracy), counter_statements=counting(entries),
        colours=COLOURS, main=_currencies(entries, MAIN),
        currencies={**_currencies(entries), "seconds_per_epoch": "seconds per epoch"},
        verdicts=any(entry.verdict for entry in entries), tuning=_tuning(entries),
        linear_accuracy=linear_accuracy, chance=chance, curves=[*_curves(entries)],
        costs=[*_costs(entries, linear_accuracy)],
        filters=[(row.label, drawn) for row, drawn in zip(entries, filters, strict=True) if drawn],
        command=command, configuration=configuration, environment=_flatten(environment or {}),
    )  # fmt: skip
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, html)
    return target


def _currencies(
    entries: Sequence[Entry], keys: Iterable[Currency] = tuple(CURRENCIES)
) -> dict[Currency, str]:
    """Returns the costs that were counted, and their names."""
    counted = [key for key in keys if any(getattr(entry, key) for entry in entries)]
    return {key: CURRENCIES[key] for key in counted}


def _tuning(entries: Sequence[Entry]) -> Markup | None:
    figure = tuning(entries)
    rows = (f"{e.label} {e.settings['learning_rate']:g}" for e in entries if e.trials)
    alt = f"Validation error of trials against the learning rate; chosen: {', '.join(rows)}."
    return None if figure is None else inline_svg(figure, alt=alt, name="tuning")


def _curves(entries: Sequence[Entry]) -> Iterator[Markup]:
    labels = ", ".join(entry.label for entry in entries)
    for key in ("error", "loss"):
        alt = f"Validation {key} against the epoch for {labels}."
        yield inline_svg(learning_curves(entries, key), alt=alt, name=f"curves-{key}")


def _costs(entries: Sequence[Entry], linear_accuracy: float | None) -> Iterator[Markup]:
    for key, name in _currencies(entries, MAIN).items():
        figure = error_against_cost(entries, key, linear_accuracy=linear_accuracy)
        if figure is not None:
            rows = (f"{row.label} {percent(row.mean)} at {getattr(row, key)}" for row in entries)
            alt = f"Test error against {name}. Test accuracies: {'; '.join(rows)}."
            yield inline_svg(figure, alt=alt, name=f"costs-{key}")


def _filters(number: int, entry: Entry) -> Iterator[tuple[str, Markup]]:
    for index, (title, weights) in enumerate(entry.filters):
        alt = f"Dendritic filters of {entry.label}, {title}, one panel for each time step."
        name = f"filters{number}-{index}"
        yield title, inline_svg(dendritic_filters(weights), alt=alt, name=name)


def _flatten(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the environment without nesting or None, and what later ones change."""
    flat: dict[str, Any] = {}
    for key, value in environment.items():
        flat.update(value if isinstance(value, Mapping) else {key: value})
    for later in flat.pop("resumed_with", ()):
        flat |= {f"{k}, resumed": v for k, v in _flatten(later).items() if v != flat.get(k)}
    return {key: value for key, value in flat.items() if value is not None}


def inline_svg(figure: Figure, *, alt: str, name: str) -> Markup:
    """Returns a figure as an <svg> element; what is drawn in `INK` takes the page's text colour.

    `name` is unique on the page, and prefixes the figure's identifiers, which others may use too.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    return svg_element(buffer.getvalue(), alt=alt, name=name)


def svg_element(svg: str, *, alt: str, name: str) -> Markup:
    """Returns a file of matplotlib's as an <svg> element; ValueError without a viewBox."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    tag = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    if tag is None:
        raise ValueError(f"{name}: expected an SVG with a viewBox")
    width = float(tag[1].split()[2]) * 96 / 72  # matplotlib's unit is a point
    return Markup(
        f'<svg role="img" aria-label="{escape(printable(alt))}" width="{width:.0f}" '
        f'viewBox="{tag[1]}">{svg[tag.end() :].strip()}'
    )
