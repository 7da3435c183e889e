"""Profiles as rich tables."""

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.flops.metrics import SECTIONS, format_number, stage_rows
from neuroconv.flops.record import COUNTERS, Record, ratio

Convention = Literal["mac", "flop"]


def _factor(convention: Convention) -> int:
    if convention not in ("mac", "flop"):
        raise ValueError(f"convention={convention!r}; expected 'mac' or 'flop' (1 MAC is 2 FLOP)")
    return 1 if convention == "mac" else 2


def summary_table(
    records: Sequence[Record], convention: Convention = "mac", legend: bool = True
) -> Table:
    """Returns a table of one column for each record, one row for each number, units in the labels.

    Rows that no record fills are left out.

    Args:
        records: such as `profile` returns.
        convention: "mac" or "flop", for multiply-adds; 1 MAC is 2 FLOP.
        legend: whether a caption explains the rows.
    """
    factor = _factor(convention)
    table = Table(
        caption="1 MAC = 2 FLOP; FFT by the cost model 2.5 n log2 n FLOP. A sample is one element "
        "of the batch, a window of all its time steps. Executed: by the algorithm that runs, the "
        "products of sparse synapses and of spectra, which are no contractions, at two to a MAC. "
        "Moved: every operator reads and writes memory; compulsory: a cache holds all in between."
        " Partial: something ran for which there is no rule, or no closed form."
        if legend
        else None
    )
    table.add_column("")
    for record in records:
        table.add_column(record.name, justify="right", overflow="fold")
    words = {
        "unit": convention.upper(),
        "training_batch": " or ".join(map(str, sorted({r.training_batch for r in records}))),
        "dendrites": ", dendrites direct" * any(r.dendritic_neurons for r in records),
        **{f"{counter}_device": _devices(records, counter) for counter in COUNTERS},
    }
    for section in SECTIONS:
        table.add_section()
        for metric in section:
            cells = [metric.text(r, factor) for r in records] if metric.label else []
            if any(cell != "-" for cell in cells):
                table.add_row(str(metric.label).format_map(words), *cells)
    return table


def _devices(records: Sequence[Record], counter: str) -> str:
    devices = sorted({r.counts[counter].device for r in records if counter in r.counts})
    return "/".join(devices) or "no device"


def stage_table(record: Record, convention: Convention = "mac") -> Table:
    """Returns a table of one row for each stage that costs anything, per sample, by module.

    "other" is what is no multiply-add, and the share is of the FLOPs of all stages. Columns that no
    stage fills are left out.
    """
    factor, unit = _factor(convention), convention.upper()
    table = Table(
        title=f"{record.name}: {unit} a sample, stage by stage",
        caption="other: FLOP beside multiply-adds (norms, activations, sums); share: of the FLOP "
        "of all stages" + "; modules without a closed form are missing" * bool(record.hidden),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", overflow="fold")
    rows = stage_rows(record)
    columns = {
        name: (f"{name}_{kind}_per_sample", factor if kind == "mac" else 1)
        for name, kind in (
            ("essay", "mac"), ("direct", "mac"), ("executed", "mac"), ("other", "flop")
        )
        if any(row[f"{name}_{kind}_per_sample"] for row in rows)
    }  # fmt: skip
    for heading in (*columns, "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    modules = list(dict.fromkeys(row["module"] for row in rows))
    for module in modules:
        stages = [row for row in rows if row["module"] == module]
        if len(modules) > 1:
            neurons = sum(row["neurons_per_sample"] for row in stages)
            table.add_section()
            table.add_row(Text(f"{module or 'the model'}: {neurons:,} neurons", style="bold"))
        for row in stages:
            if row["share_of_flop"]:
                amounts = (format_number(row[key] or None, by) for key, by in columns.values())
                table.add_row(row["stage"], *amounts, f"{row['share_of_flop']:.1%}")
    rest = record.reference.flop - record.stages_flop
    if rest > 0:
        flop = format_number(ratio(rest, record.batch))
        table.caption = f"{table.caption}; in no stage: {flop} FLOP"
    return table
