"""essay.html: every claim in the essay's order, with its verdict, its numbers and its picture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from neuroconv.core.files import write_text
from neuroconv.core.version import __version__
from neuroconv.essay.claim import Claim, Interval, Verdict, read_claim, verdict
from neuroconv.essay.experiment import (
    PICTURE,
    RECORD,
    described,
    interval_text,
    measured_in,
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


def claim_folders(experiments: Path) -> list[Path]:
    """Returns the folders that hold a claim, in the claims' order.

    Raises:
        ValueError: two claims of one number.
    """
    claims = {path.parent: read_claim(path.parent) for path in experiments.glob("*/claim.toml")}
    by_number: dict[int, Path] = {}
    for folder, claim in claims.items():
        if other := by_number.get(claim.number):
            raise ValueError(f"{folder} and {other} both have number {claim.number}")
        by_number[claim.number] = folder
    return [by_number[number] for number in sorted(by_number)]


def section(folder: Path, quick: Path | None = None) -> Section:
    """Returns a claim as it is recorded, beside a quick run in the folder `quick`, if any."""
    claim, recorded, compared = read_claim(folder), {}, {}
    record: Mapping[str, Any] | None = None
    if (folder / RECORD).exists():
        record = read_record(folder)
        recorded = measured_in(record)
    if quick is not None and (quick / RECORD).exists():
        compared = measured_in(read_record(quick))
    rows = [
        Row(
            quantity.states, quantity.unit, range_text(quantity.expected),
            interval_text(recorded[key]) if key in recorded else "not yet",
            quantity.outcome(recorded[key]) if key in recorded else "",
            _quick(claim, key, compared, recorded),
        )
        for key, quantity in claim.quantities.items()
    ]  # fmt: skip
    drawn = next((p for p in (folder / PICTURE, (quick or folder) / PICTURE) if p.exists()), None)
    picture = None
    if drawn is not None:
        picture = svg_element(drawn.read_text("utf-8"), alt=claim.picture, name=folder.name)
    source = record or (read_record(quick) if quick and compared else None)
    return Section(
        folder.name, claim, verdict(claim, recorded) if record else None, rows, picture,
        described(source) if source else "",
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
    return [section(folder, quick and quick / folder.name) for folder in claim_folders(experiments)]


def write_page(path: Path, sections: Sequence[Section]) -> None:
    """Writes the page of the claims."""
    html = TEMPLATES.get_template("essay.html").render(
        title="The essay, executed", sections=sections, version=__version__,
        quick=any(row.quick for entry in sections for row in entry.rows),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, re.sub(r"[ \t]+\n", "\n", html))
