"""Prints the brain README's table of the analyst's example, from the two recorded reports."""

import json
from pathlib import Path
from typing import Any

from neuroconv.brain.quantity import scientific

HERE = Path(__file__).parent
READINGS = {
    "essay": "the essay's reading",
    "one_step": "one new step at each spike",
    "one_step_per_frame": "one new step at each frame",
    "executed": "the essay's output by the algorithm that runs",
    "cached": "the same, filters' transforms cached",
    "linear_collapse": "linear dendrites",
}


def reading(report: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = (row for row in report["readings"] if row["reading"] == name)
    return row


def value(report: dict[str, Any], name: str) -> str:
    return scientific(reading(report, name)["value"]["value"], 2)


def interval(report: dict[str, Any]) -> str:
    ends = {
        level["name"]: level["value"]
        for level in reading(report, "essay")["quantiles"]
        if level["name"] in ("quantile 5%", "quantile 95%")
    }
    return " to ".join(scientific(end, 2) for end in ends.values())


def year(report: dict[str, Any]) -> str:
    (reach,) = (
        row
        for row in report["forecast"]
        if (row["section"], row.get("reading"), row.get("trend"))
        == ("reach", "essay", "essay, 1.8 years")
    )
    return f"{reach['year']['value']:.0f}"


def table() -> str:
    """Returns Markdown: the essay's inputs beside the analyst's."""
    essay, analyst = (
        json.loads((HERE / f"{name}.json").read_text()) for name in ("brain", "analyst")
    )
    rows = [
        (f"{title}, FLOP/s", value(essay, name), value(analyst, name))
        for name, title in READINGS.items()
    ]
    rows.insert(
        1, ("its 90 % interval over the inputs' ranges", interval(essay), interval(analyst))
    )
    rows += [
        (
            f"{ratio['name']}, Purkinje cells alone",
            f"x {ratio['value']:,.0f}",
            f"x {other['value']:,.0f}",
        )
        for ratio, other in zip(essay["headline"], analyst["headline"], strict=True)
    ]
    rows.append(("the essay's reading reached at 1.8 years a doubling", year(essay), year(analyst)))
    lines = ["| | the essay's inputs | the analyst's |", "|---|---:|---:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


if __name__ == "__main__":
    print(table())
