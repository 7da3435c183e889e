"""Writes what `neuroconv bench` recorded into README.md, here and at the project's root.

python experiments/bench/table.py
"""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from claims import SUMMARY, TASKS, Line, every_line, rows_of

HERE = Path(__file__).parent
RECORD = HERE / "result.json"
BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("| | | forward | bar | both ways | bar |", "|---|---|---:|---|---:|---|")
NOTHING = "not measured"
Figures = list[dict[str, Any]]


def figures(record: Mapping[str, Any], comparisons: Sequence[str], figure: str) -> Figures:
    """The figures of that name of these comparisons."""
    return [
        found
        for section in record["sections"].values()
        for row in section["rows"]
        if any(fnmatchcase(row["comparison"], name) for name in comparisons)
        for name, found in row["figures"].items()
        if fnmatchcase(name, figure)
    ]


def number(figure: Mapping[str, Any], decimals: int = 2) -> str:
    """The value, with more decimals where rounding would carry it over its bar."""
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


def cells(found: Figures, decimals: int) -> tuple[str, str]:
    """Value and bar of some figures: from the least to the largest, and how many miss it."""
    measured = sorted((each for each in found if each["value"] is not None), key=_value)
    if not measured:
        return NOTHING, " ".join(sorted({*map(bar, found)}))
    ends = dict.fromkeys(number(each, decimals) for each in (measured[0], measured[-1]))
    missed = sum(each.get("met") is False for each in measured)
    of_all = f"{missed} of {len(found)} " if len(found) > 1 else ""
    verdict = [f"**{of_all}missed**"] if missed else []
    gap = [f"{len(found) - len(measured)} {NOTHING}"] if len(measured) < len(found) else []
    bars = sorted({bar(each) for each in found} - {""})
    return " to ".join(ends), ", ".join([*bars, *verdict, *gap])


def _value(figure: Mapping[str, Any]) -> float:
    value: float = figure["value"]
    return value


def table(record: Mapping[str, Any], lines: Sequence[Line]) -> str:
    rows = []
    for before, line in zip((None, *lines), lines, strict=False):
        again = before is not None and before.group == line.group
        row = ["" if again else line.group, line.what]
        for names, figure in zip((line.forward, line.both), line.figures, strict=True):
            found = cells(figures(record, names, figure), line.decimals)
            row += found if names else ("", "")
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join((*HEAD, *rows))


def duration(timed: Mapping[str, Any] | None) -> str:
    if timed is None or "seconds" not in timed:
        return NOTHING
    scale, unit = (1, "s") if timed["seconds"] >= 1 else (1e3, "ms")
    value = timed["seconds"] * scale
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"


def run(record: Mapping[str, Any]) -> str:
    """One paragraph: bars met, bars missed by section, time, machine, versions."""
    judged = [each for each in record["bars"] if "met" in each]
    missed = Counter(each["section"] for each in judged if not each["met"])
    minutes, seconds = divmod(round(record["seconds"]), 60)
    machine, settings = record["hardware"], record["settings"]
    versions = ", ".join(f"{name} {it or 'missing'}" for name, it in record["versions"].items())
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
    """Every bar that is missed, or not measured, by its names in the file."""
    lines = ["| comparison | figure | value | quartiles | bar |", "|---|---|---:|---|---|"]
    for each in record["bars"]:
        if not each.get("met"):
            (full,) = figures(record, [each["comparison"]], each["figure"])
            spread = [full[key] for key in ("lower_quartile", "upper_quartile") if key in full]
            between = " to ".join(number({"value": end}) for end in spread)
            name = f"`{each['figure']}`"
            row = (each["comparison"], name, number(full), between, bar(full))
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) if len(lines) > 2 else "None."


def layouts(record: Mapping[str, Any]) -> str:
    """Times of granule dendrites by side and layout of memory."""
    times: list[dict[str, Any]] = [
        next((row["times"] for row in rows_of(record, "granule") if row["comparison"] == name), {})
        for name in (f"granule dendrites, {task}" for task in TASKS)
    ]
    lines = ["| side, layout of memory | forward | both ways |", "|---|---:|---:|"]
    for name in dict.fromkeys([*times[0], *times[1]]):
        lines.append(f"| {name} | {' | '.join(duration(each.get(name)) for each in times)} |")
    return "\n".join(lines)


def others(record: Mapping[str, Any]) -> str:
    """What is held to no bar: neurons beside CNNs, shares of the peaks, processes."""
    shown = {
        "neurons_over_plain_cnn_ratio": "times the CNN's time",
        "share_of_peak_flop_ratio": "of the peak FLOP/s",
        "share_of_peak_bytes_ratio": "of the peak bytes/s",
        "two_over_one_process_images_per_second_ratio": "times one process's images/s, measured",
        "images_per_second_over_one_process_ratio": "times one process's images/s, projected",
    }
    lines = ["| comparison | |", "|---|---|"]
    for row in (*rows_of(record, "cnn"), *rows_of(record, "scaling")):
        said = [
            f"{_share(found) if 'share' in name else number(found)} {shown[name]}"
            for name, found in row["figures"].items()
            if name in shown
        ]
        lines.append(f"| {row['comparison']} | {', '.join(said) or NOTHING} |")
    return "\n".join(lines)


def _share(figure: Mapping[str, Any]) -> str:
    return NOTHING if figure["value"] is None else f"{figure['value']:.1%}"


BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "run": run,
    "summary": lambda record: table(record, SUMMARY),
    "table": lambda record: table(record, every_line(record)),
    "missed": missed,
    "layouts": layouts,
    "others": others,
}
PAGES: Mapping[Path, Sequence[str]] = {
    HERE.parents[1] / "README.md": ("run",),
    HERE / "README.md": ("run", "summary", "table", "missed", "layouts", "others"),
}


def filled(page: str, names: Sequence[str], record: Mapping[str, Any]) -> str:
    """The page with each of its blocks between its marks, <!-- bench: NAME --> and <!-- end -->.

    Raises:
        ValueError: the page's blocks are not those named, each once; a quick run's record.
    """
    found = [name for _, name, _ in BLOCK.findall(page)]
    if found != list(names):
        raise ValueError(f"the page has the blocks {found}; expected {list(names)}, in this order")
    if record["settings"]["quick"]:
        raise ValueError("the record is of --quick, which judges nothing; expected a full run's")
    return BLOCK.sub(lambda mark: f"{mark[1]}\n{BLOCKS[mark[2]](record)}\n\n{mark[3]}", page)


def main() -> None:
    record = json.loads(RECORD.read_text())
    for page, names in PAGES.items():
        page.write_text(filled(page.read_text(), names, record))


if __name__ == "__main__":
    main()
