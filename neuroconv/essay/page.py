"""essay.html: every claim in the essay's order, with its verdict, its numbers and its picture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

from neuroconv.core.files import write_text
from neuroconv.core.version import __version__
from neuroconv.essay.claim import Claim, Interval, Verdict, read_claim, verdict
from neuroconv.essay.experiment import (
    PICTURE,
    described,
    interval_text,
    range_text,
    read_record,
)
from neuroconv.report.page import TEMPLATES, svg_element


@dataclass(frozen=True)
class Row:
    """One quantity of a claim: what was fixed and what was measured, by a quick run too."""

    states: str
    unit: str
    expected: str
    measured: str
    outcome: str
    quick: str


@dataclass(frozen=True)
class Section:
    """One claim on the page."""

    name: str
    claim: Claim
    verdict: Verdict | None  # None: not recorded
    rows: Sequence[Row]
    picture: Markup | None
    described: str


def read_claims(experiments: Path) -> dict[Path, Claim]:
    """Returns the claims by their folders, in order; ValueError for two of one number."""
    claims = {path.parent: read_claim(path.parent) for path in experiments.glob("*/claim.toml")}
    folders = sorted(claims, key=lambda folder: claims[folder].number)
    for first, second in pairwise(folders):
        if claims[first].number == claims[second].number:
            number = claims[first].number
            raise ValueError(f"{first} and {second} both have number {number}")
    return {folder: claims[folder] for folder in folders}


def section(folder: Path, claim: Claim, quick: Path | None = None) -> Section:
    """Returns a claim as it is recorded, beside a quick run in the folder `quick`, if any.

    A quick run of another version is left out.
    """
    record, recorded = read_record(folder, claim)
    again, compared = read_record(quick, claim) if quick else ({}, {})
    if again.get("version") != __version__:
        again, compared = {}, {}
    rows = [
        Row(
            quantity.states, quantity.unit, range_text(quantity.expected),
            interval_text(recorded[key]) if key in recorded else "not yet",
            quantity.outcome(recorded[key]) if key in recorded else "",
            _quick(claim, key, compared, recorded),
        )
        for key, quantity in claim.quantities.items()
    ]  # fmt: skip
    source = record or again
    picture, drawn = None, (folder if record else quick or folder) / PICTURE
    if source and drawn.exists():
        picture = svg_element(drawn.read_text("utf-8"), alt=claim.picture, name=folder.name)
    return Section(
        folder.name, claim, verdict(claim, recorded) if record else None, rows, picture,
        described(source, claim) if source else "",
    )  # fmt: skip


def _quick(
    claim: Claim, key: str, compared: Mapping[str, Interval], recorded: Mapping[str, Interval]
) -> str:
    """Returns a quick run's value, and whether it agrees in sign with the record."""
    if key not in compared:
        return ""
    if key not in recorded:
        return interval_text(compared[key])
    agrees = claim.quantities[key].agrees(compared[key], recorded[key])
    return f"{interval_text(compared[key])}, {'agrees' if agrees else 'does not agree'}"


def read_sections(experiments: Path, quick: Path | None = None) -> list[Section]:
    """Returns all claims in their order.

    Args:
        experiments: the folder of the experiments.
        quick: the folder whose subfolders, named like the claims', hold quick runs.
    """
    return [
        section(folder, claim, quick and quick / folder.name)
        for folder, claim in read_claims(experiments).items()
    ]


def write_page(path: Path, sections: Sequence[Section]) -> None:
    """Writes the page of the claims."""
    html = TEMPLATES.get_template("essay.html").render(
        title="The essay, executed", sections=sections, version=__version__,
        quick=any(row.quick for entry in sections for row in entry.rows),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, re.sub(r"[ \t]+\n", "\n", html))
