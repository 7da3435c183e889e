"""Writes what run.py recorded into README.md, here and at the project's root.

    python experiments/bench/table.py

tables.toml says which figures of the record each row of the tables shows.
"""

import json
import re
import textwrap
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RECORD = HERE / "result.json"
BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("| | | forward | bar | both ways | bar |", "|---|---|---:|---|---:|---|")
NOTHING = "not measured"
TASKS = ("forward", "forward and backward")
Figures = list[dict[str, Any]]


class Line(NamedTuple):
    """A row of the tables.

    Attributes:
        group, text: its first two cells.
        columns: forward and both ways, the comparisons (`*` for anything; none where nothing is
            compared) and the figure that it shows.
        decimals: of numbers below a hundred.
    """

    group: str
    text: str
    columns: Sequence[tuple[Sequence[str], str]]
    decimals: int = 2


def lines_of(page: str) -> list[Line]:
    """Returns the rows that tables.toml has for a page."""
    lines = []
    for item in tomllib.loads((HERE / "tables.toml").read_text())["rows"]:
        if page in item["pages"]:
            names = [item.get(key, []) for key in ("forward", "both")]
            if "comparisons" in item:
                names = [[f"{name}, {task}" for name in item["comparisons"]] for task in TASKS]
            columns = zip(names, (item["figures"] * 2)[:2], strict=True)
            lines.append(Line(item["group"], item["text"], list(columns), item.get("decimals", 2)))
    return lines


def rows_of(record: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """Returns the comparisons of a section; none if it did not run."""
    rows: list[dict[str, Any]] = record["sections"].get(section, {"rows": []})["rows"]
    return rows


def figures(record: Mapping[str, Any], comparisons: Sequence[str], figure: str) -> Figures:
    """Returns the figures of this name of these comparisons."""
    return [
        value
        for section in record["sections"].values()
        for row in section["rows"]
        if any(fnmatchcase(row["comparison"], name) for name in comparisons)
        for name, value in row["figures"].items()
        if fnmatchcase(name, figure)
    ]


def number(figure: Mapping[str, Any], decimals: int = 2) -> str:
    """Returns the value, with more decimals where rounding would carry it over its bar."""
    value = figure["value"]
    if value is None:
        return NOTHING
    low, high = figure.get("at_least", float("-inf")), figure.get("at_most", float("inf"))
    for more in range(16):
        text = f"{value:,.{more + (0 if value >= 100 else decimals)}f}"
        if 0 < abs(value) < 0.01:
            text = f"{value:.{more + 1}e}"
        if (low <= float(text.replace(",", "")) <= high) == figure.get("met", True):
            return text
    return str(value)


def bar(figure: Mapping[str, Any]) -> str:
    signs = (("≥", "at_least"), ("≤", "at_most"))
    return " ".join(f"{sign} {figure[key]:g}" for sign, key in signs if key in figure)


def cells(values: Figures, decimals: int) -> tuple[str, str]:
    """Returns value and bar of some figures: the least and the largest, and how many miss it."""
    measured = [value for value in values if value["value"] is not None]
    measured.sort(key=lambda value: value["value"])
    if not measured:
        return NOTHING, " ".join(sorted({*map(bar, values)}))
    ends = dict.fromkeys(number(value, decimals) for value in (measured[0], measured[-1]))
    missed = sum(value.get("met") is False for value in measured)
    of_all = f"{missed} of {len(values)} " if len(values) > 1 else ""
    verdict = [f"**{of_all}missed**"] if missed else []
    gap = [f"{len(values) - len(measured)} {NOTHING}"] if len(measured) < len(values) else []
    bars = sorted({bar(value) for value in values} - {""})
    return " to ".join(ends), ", ".join([*bars, *verdict, *gap])


def table(record: Mapping[str, Any], lines: Sequence[Line]) -> str:
    rows, group = [], ""
    for line in lines:
        row = ["" if line.group == group else line.group, line.text]
        group = line.group
        for names, figure in line.columns:
            shown = cells(figures(record, names, figure), line.decimals)
            row += shown if names else ("", "")
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join((*HEAD, *rows))


def duration(timed: Mapping[str, Any] | None) -> str:
    if timed is None or "seconds" not in timed:
        return NOTHING
    scale, unit = (1, "s") if timed["seconds"] >= 1 else (1e3, "ms")
    value = timed["seconds"] * scale
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"


def run(record: Mapping[str, Any]) -> str:
    """Returns one paragraph: bars met, bars missed by section, time, machine, versions."""
    judged = [item for item in record["bars"] if "met" in item]
    missed = Counter(item["section"] for item in judged if not item["met"])
    minutes, seconds = divmod(round(record["seconds"]), 60)
    machine, settings = record["hardware"], record["settings"]
    versions = ", ".join(
        f"{name} {version or 'missing'}" for name, version in record["versions"].items()
    )
    words = [
        f"**{len(judged) - missed.total()} of {len(judged)} bars met**, in {minutes} min "
        f"{seconds} s, on {machine.get('gpu', machine['processor'])}, {machine['cores']} cores, "
        f"{machine['threads']} threads, {machine['memory_bytes'] / 1e9:.1f} GB; {versions}. In the "
        f"minute before, other programs kept {settings['load_average_before']:.1f} cores busy. "
        f"Images of `training`: {settings['data']}.",
    ]
    if missed:
        by_section = (f"{count} in `{name}`" for name, count in missed.items())
        words.append(f"Missed: {', '.join(by_section)}.")
    if len(judged) < len(record["bars"]):
        words.append(f"Not measured: {len(record['bars']) - len(judged)} more.")
    for name, section in record["sections"].items():
        if section["state"] != "complete":
            words.append(f"Section `{name}` ended: {section['state']}.")
    for row in rows_of(record, "purkinje"):
        if "conv3d" in row["times"]:
            ours, conv3d = (duration(row["times"].get(name)) for name in ("neuroconv", "conv3d"))
            words.append(f"{row['comparison']}: {ours} here, {conv3d} with `conv3d`.")
    return textwrap.fill(" ".join(words), 100, break_long_words=False, break_on_hyphens=False)


def missed(record: Mapping[str, Any]) -> str:
    """Returns a table of the bars that are missed, or not measured, by their names in the file."""
    lines = ["| comparison | figure | value | quartiles | bar |", "|---|---|---:|---|---|"]
    for item in record["bars"]:
        if not item.get("met"):
            (full,) = figures(record, [item["comparison"]], item["figure"])
            spread = [full[key] for key in ("lower_quartile", "upper_quartile") if key in full]
            between = " to ".join(number({"value": end}) for end in spread)
            name = f"`{item['figure']}`"
            row = (item["comparison"], name, number(full), between, bar(full))
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) if len(lines) > 2 else "None."


def layouts(record: Mapping[str, Any]) -> str:
    """Returns a table of times of granule dendrites by side and layout of memory."""
    times: list[dict[str, Any]] = [
        next((row["times"] for row in rows_of(record, "granule") if row["comparison"] == name), {})
        for name in (f"granule dendrites, {task}" for task in TASKS)
    ]
    lines = ["| side, layout of memory | forward | both ways |", "|---|---:|---:|"]
    for name in dict.fromkeys([*times[0], *times[1]]):
        lines.append(f"| {name} | {' | '.join(duration(column.get(name)) for column in times)} |")
    return "\n".join(lines)


def others(record: Mapping[str, Any]) -> str:
    """Returns a table of what has no bar: neurons beside CNNs, shares of the peaks, processes."""
    shown = {
        "neurons_over_plain_cnn_ratio": "times the CNN's time",
        "share_of_peak_flop_ratio": "of the peak FLOP/s",
        "share_of_peak_bytes_ratio": "of the peak bytes/s",
        "two_over_one_process_images_per_second_ratio": "times one process's images/s, measured",
        "images_per_second_over_one_process_ratio": "times one process's images/s, projected",
    }
    lines = ["| comparison | |", "|---|---|"]
    for row in (*rows_of(record, "cnn"), *rows_of(record, "scaling")):
        parts = [
            f"{_share(value) if 'share' in name else number(value)} {shown[name]}"
            for name, value in row["figures"].items()
            if name in shown
        ]
        lines.append(f"| {row['comparison']} | {', '.join(parts) or NOTHING} |")
    return "\n".join(lines)


def _share(figure: Mapping[str, Any]) -> str:
    return NOTHING if figure["value"] is None else f"{figure['value']:.1%}"


BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "run": run,
    "summary": lambda record: table(record, lines_of("summary")),
    "table": lambda record: table(record, lines_of("table")),
    "missed": missed,
    "layouts": layouts,
    "others": others,
}
PAGES: Mapping[Path, Sequence[str]] = {
    HERE.parents[1] / "README.md": ("run",),
    HERE / "README.md": ("run", "summary", "table", "missed", "layouts", "others"),
}


def filled(page: str, names: Sequence[str], record: Mapping[str, Any]) -> str:
    """Returns the page with its blocks filled, between <!-- bench: NAME --> and <!-- end -->.

    Raises:
        ValueError: the page's blocks are not those named, each once; a quick run's record.
    """
    present = [name for _, name, _ in BLOCK.findall(page)]
    if present != list(names):
        raise ValueError(
            f"the page has the blocks {present}; expected {list(names)}, in this order"
        )
    if record["settings"]["quick"]:
        raise ValueError("the record is of --quick, which judges nothing; expected a full run's")
    return BLOCK.sub(lambda mark: f"{mark[1]}\n{BLOCKS[mark[2]](record)}\n\n{mark[3]}", page)


def main() -> None:
    record = json.loads(RECORD.read_text())
    for page, names in PAGES.items():
        page.write_text(filled(page.read_text(), names, record))


if __name__ == "__main__":
    main()
