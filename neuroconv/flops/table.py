"""Profiles, and the operators that each counter knows, as rich tables."""

import fnmatch
from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.core.text import printable
from neuroconv.flops.metrics import SECTIONS, format_number, stage_rows
from neuroconv.flops.record import COUNTERS, Record, ratio
from neuroconv.flops.rules import DATA

Convention = Literal["mac", "flop"]


def _factor(convention: Convention) -> int:
    if convention not in ("mac", "flop"):
        raise ValueError(f"convention={convention!r}; expected 'mac' or 'flop' (1 MAC is 2 FLOP)")
    return 1 if convention == "mac" else 2


def summary_table(
    records: Sequence[Record], convention: Convention = "mac", legend: bool = True
) -> Table:
    """Returns a table of one column for each record, one row for each number that any of them has.

    Args:
        convention: "mac" or "flop", for multiply-adds; 1 MAC is 2 FLOP.
        legend: whether a caption explains the rows.
    """
    factor = _factor(convention)
    table = Table(
        caption="1 MAC = 2 FLOP; FFT by the cost model 2.5 n log2 n FLOP. A sample is one element "
        "of the batch, a window of all its time steps. Executed: by the algorithm that runs, the "
        "products of sparse synapses and of spectra, which are no contractions, at two to a MAC. "
        "Zeros: weights off the wiring or the filter, in dense products that are faster with them. "
        "Moved: every operator reads and writes memory; compulsory: a cache holds all in between."
        " Energy: from compulsory bytes at the lowest to moved bytes at the highest energy of DRAM."
        " Partial: something ran for which there is no rule, or no closed form."
        if legend
        else None
    )
    table.add_column("")
    for record in records:
        table.add_column(Text(printable(record.name)), justify="right", overflow="fold")
    words = {
        "unit": convention.upper(),
        "training_batch": " or ".join(map(str, sorted({r.training_batch for r in records}))),
        "dendrites": ", dendrites direct" * any(r.dendritic_neurons for r in records),
    }
    for counter in COUNTERS:
        devices = sorted({r.counts[counter].device for r in records if counter in r.counts})
        words[f"{counter}_device"] = "/".join(devices) or "no device"
    for section in SECTIONS:
        table.add_section()
        for metric in section:
            cells = [metric.text(r, factor) for r in records] if metric.label else []
            if any(cell != "-" for cell in cells):
                table.add_row(str(metric.label).format_map(words), *cells)
    return table


def stage_table(record: Record, convention: Convention = "mac") -> Table:
    """Returns a table of one row for each stage that costs anything, per sample, by module."""
    factor, unit = _factor(convention), convention.upper()
    caption = "other: FLOP beside multiply-adds (norms, activations, sums); share: of the FLOP of "
    caption += "all stages"
    if record.zeros_mac_per_sample:
        caption += "; zeros: executed with weights that the wiring does not have"
    caption += "; modules without a closed form are missing" * bool(record.hidden)
    if (rest := record.reference.flop - record.stages_flop) > 0:
        caption += f"; in no stage: {format_number(ratio(rest, record.batch))} FLOP"
    table = Table(
        title=Text(f"{printable(record.name)}: {unit} a sample, stage by stage", "table.title"),
        caption=caption,
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    rows = stage_rows(record)
    factors = {
        "essay_mac": factor, "direct_mac": factor, "executed_mac": factor, "zeros_mac": factor,
        "other_flop": 1,
    }  # fmt: skip
    columns = {
        f"{amount}_per_sample": by
        for amount, by in factors.items()
        if any(row[f"{amount}_per_sample"] for row in rows)
    }
    table.add_column("stage", overflow="fold")
    for heading in (*(key.partition("_")[0] for key in columns), "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    modules = list(dict.fromkeys(row["module"] for row in rows))
    for module in modules:
        stages = [row for row in rows if row["module"] == module]
        if len(modules) > 1:
            neurons = sum(row["neurons_per_sample"] for row in stages)
            table.add_section()
            table.add_row(Text(f"{printable(module) or 'the model'}: {neurons:,} neurons", "bold"))
        for row in stages:
            if row["share_of_flop"]:
                amounts = (format_number(row[key] or None, by) for key, by in columns.items())
                table.add_row(
                    Text(printable(row["stage"])), *amounts, f"{row['share_of_flop']:.1%}"
                )
    return table


_COUNTERS = {"exact": "exact", "fvcore": "fvcore", "closed_form": "closed form"}


def operator_rules() -> list[dict[str, str | None]]:
    """Returns one record for each operator, or module: its name, and what each counter does.

    None: the counter never sees it, or lists it as uncounted. The exact counter also counts what
    torch itself tags as pointwise, one FLOP per element; "uncounted" says why there is no rule.
    """
    entries = [
        (counter, entry["operators"], entry["rule"])
        for counter in _COUNTERS
        for entry in DATA[counter]
    ]
    for kind in ("zero", "uncounted"):
        entries += [("exact", names, f"{kind}: {reason}") for reason, names in DATA[kind].items()]
    rules: dict[str, dict[str, str | None]] = {}
    for counter, names, rule in entries:
        for name in names.split():
            empty: dict[str, str | None] = {"operator": name, **dict.fromkeys(_COUNTERS)}
            rules.setdefault(name, empty)[counter] = rule
    return sorted(rules.values(), key=lambda row: str(row["operator"]).strip("_").lower())


def operators_table(pattern: str = "*") -> Table:
    """Returns `operator_rules` of the names that match a wildcard; a ValueError if none does."""
    rows = [row for row in operator_rules() if fnmatch.fnmatch(str(row["operator"]), pattern)]
    if not rows:
        raise ValueError(f"no operator matches {pattern!r}; try '*conv*'")
    table = Table(
        box=SIMPLE_HEAD,
        caption="-: never met by this counter, or listed as uncounted. The closed form counts "
        "modules; neuroconv's own state theirs in a method `closed_form`.",
    )
    for column in ("operator", *_COUNTERS.values()):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[key] or "-") for key in ("operator", *_COUNTERS)))
    return table
