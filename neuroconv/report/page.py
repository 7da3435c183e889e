"""report.html: a comparison on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from neuroconv.report.entry import Entry, against_linear, counting, finding
from neuroconv.report.filters import dendritic_filters
from neuroconv.report.plots import accuracy_against_flops, learning_curves
from neuroconv.report.svg import inline_svg


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
    """Write a self-contained page: the finding, the table, the plots, and how it was made.

    Args:
        path: the page.
        title: its heading.
        summary: what was compared, in a sentence or two.
        entries: one for each model; differences are to the first.
        linear_accuracy: the linear classifier's on the same test set; None if it was not fitted.
        chance: the test set's share of its most frequent class.
        notes: what was held equal, a sentence each.
        command: makes the comparison again.
        configuration: the configuration's text.
        environment: what it ran on; tables within it are flattened.

    Returns:
        The page's absolute path.

    Raises:
        ValueError: without entries.
    """
    if not entries:
        raise ValueError("no entries: expected one or more models to report on")
    statements = [finding(entries)]
    if linear_accuracy is not None:
        statements.append(against_linear(entries, linear_accuracy))
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(summary)}</p>",
        '<div class="finding">' + "".join(f"<p>{escape(s)}</p>" for s in statements) + "</div>",
        _results(entries, linear_accuracy, chance),
        _curves(entries),
        _costs(entries, linear_accuracy, chance),
        _dendrites(entries),
        _filters(entries),
        "<h2>What was held equal</h2>",
        _list(notes),
        "<h2>How to make it again</h2>",
        f"<pre>{escape(command)}</pre>",
    ]
    if configuration is not None:
        parts.append(
            f"<details><summary>The configuration</summary><pre>{escape(configuration)}</pre>"
            "</details>"
        )
    if environment:
        parts += ["<h2>What it ran on</h2>", _environment(environment)]
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_page(title, "\n".join(parts)), encoding="utf-8")
    return target


def _page(title: str, body: str) -> str:
    style = files("neuroconv.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _results(entries: Sequence[Entry], linear_accuracy: float | None, chance: float) -> str:
    first = entries[0]
    seeds = len(first.accuracies)
    head = [
        "model",
        f"test accuracy, mean of {seeds} seeds &plusmn; 95 %" if seeds > 1 else "test accuracy",
        f"points to {escape(first.label)}, paired" + (" &plusmn; 95 %" if seeds > 1 else ""),
        "parameters", "neurons", "MAC per neuron", "MFLOP per image", "seconds per epoch",
    ]  # fmt: skip
    most = max(entry.mean for entry in entries)
    rows = [
        _row(
            [
                escape(entry.label),
                percent(entry.mean, entry.half_width),
                points(entry.difference, entry.difference_half_width),
                f"{entry.parameters:,}",
                f"{entry.neurons:,}",
                "&ndash;" if entry.mac_per_neuron is None else f"{entry.mac_per_neuron:,.1f}",
                f"{entry.mflop_per_image:,.3f}",
                f"{entry.seconds_per_epoch:.2f}",
            ],
            "best" if entry.mean == most else "",
        )
        for entry in entries
    ]
    lines = {} if linear_accuracy is None else {"linear classifier on the pixels": linear_accuracy}
    for name, accuracy in {**lines, "chance (the most frequent class)": chance}.items():
        rows.append(_row([name, percent(accuracy, None), *[""] * 6], "bar"))
    by_seed = "; ".join(
        f"{entry.label}: " + ", ".join(f"{value * 100:.2f}" for value in entry.accuracies.values())
        for entry in entries
    )
    names = ", ".join(map(str, first.accuracies))
    return (
        "<h2>Results</h2>" + _table(head, rows) + f'<p class="soft">Test accuracy in % of seed '
        f"{escape(names)}. {escape(by_seed)}. Intervals are Student's t over seeds: they hold what "
        "weights, order and dropout change, not the choice of test images. 1 MAC is 2 FLOP; "
        "neurons are counted once for each place in the image.</p>"
        + "".join(f'<p class="soft">{escape(line)}</p>' for line in counting(entries))
    )


def _curves(entries: Sequence[Entry]) -> str:
    labels = ", ".join(entry.label for entry in entries)
    alt = f"Validation accuracy and loss against the epoch for {labels}."
    picture = inline_svg(learning_curves(entries), alt=alt, name="curves")
    caption = "On the validation split. Each seed thin, the mean over seeds bold."
    return f"<h2>Learning</h2>{_figure(picture, caption)}"


def _costs(entries: Sequence[Entry], linear_accuracy: float | None, chance: float) -> str:
    values = "; ".join(
        f"{e.label} {e.mean:.2%} at {e.mflop_per_image:.3g} MFLOP per image" for e in entries
    )
    figure = accuracy_against_flops(entries, linear_accuracy=linear_accuracy, chance=chance)
    picture = inline_svg(figure, alt=f"Test accuracy against cost: {values}.", name="costs")
    caption = (
        "Bars are 95 % intervals over seeds, cut where they leave the picture. Both axes are "
        "stretched: cost by its logarithm, accuracy by its logit, which gives 98 to 99 % the room "
        "that 50 to 67 % has."
    )
    return f"<h2>Accuracy against cost</h2>{_figure(picture, caption)}"


def _dendrites(entries: Sequence[Entry]) -> str:
    rows = [
        _row(
            [escape(e.label)]
            + [f"{v:,.1f}" for v in (e.dendrites.essay, e.dendrites.direct, e.dendrites.executed)]
        )
        for e in entries
        if e.dendrites
    ]
    if not rows:
        return ""
    head = ["model", "essay's rule", "direct convolution", "executed"]
    return (
        "<h2>What the dendrites cost</h2>" + _table(head, rows) + '<p class="soft">MAC for one '
        "dendritic neuron and one image, all time steps. The essay's rule: synapses &times; time "
        "steps &times; taps of the filter. Direct: a convolution of the dendritic sheet, padding "
        "zeros counted. Executed: the algorithm that ran, which may multiply zeros to be "
        "faster.</p>"
    )


def _filters(entries: Sequence[Entry]) -> str:
    blocks = []
    for number, entry in enumerate(entries):
        drawn = []
        for index, (title, weights) in enumerate(entry.filters):
            picture = inline_svg(
                dendritic_filters(weights),
                alt=f"Dendritic filters of {entry.label}, {title}, one panel for each time step.",
                name=f"filters{number}-{index}",
            )
            drawn.append(f"<figure><h3>{escape(title)}</h3>{picture}</figure>")
        if drawn:
            heading = f"<h2>Learned dendritic filters: {escape(entry.label)}</h2>"
            blocks.append(f'{heading}<div class="filters">{"".join(drawn)}</div>')
    if not blocks:
        return ""
    caption = (
        '<p class="soft">Sizes are branches &times; dendrites &times; time steps. Weights of the '
        "first seed, of the neurons with the largest norm. Red "
        "excites, blue inhibits, grey is zero; each neuron has its own scale, written beside it. "
        "Branches run down, dendrites across; t is the present frame, t &minus; 4 the one four "
        "frames ago.</p>"
    )
    return "".join(blocks) + caption


def _environment(environment: Mapping[str, Any]) -> str:
    flat: dict[str, Any] = {}
    for key, value in environment.items():
        flat.update(value if isinstance(value, Mapping) else {key: value})
    items = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>"
        for key, value in flat.items()
        if value is not None
    )
    return f"<dl>{items}</dl>"


def percent(value: float, half_width: float | None) -> str:
    """An accuracy in per cent, with its interval if it has one."""
    interval = "" if half_width is None else f" ± {half_width * 100:.2f}"
    return f"{value * 100:.2f}{interval} %"


def points(difference: float | None, half_width: float | None) -> str:
    """A difference of accuracies in percentage points; a dash for none."""
    if difference is None:
        return "–"
    interval = "" if half_width is None else f" ± {half_width * 100:.2f}"
    return f"{difference * 100:+.2f}{interval}"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(cells: Sequence[str], kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f"<tr{of_kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _figure(picture: str, caption: str) -> str:
    return (
        f'<figure><div class="scroll plot">{picture}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
