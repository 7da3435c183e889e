"""Profiles as rich tables."""

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.flops.profile import Profile

Convention = Literal["mac", "flop"]


def _factor(convention: Convention) -> int:
    if convention not in ("mac", "flop"):
        raise ValueError(f"convention={convention!r}; expected 'mac' or 'flop' (1 MAC is 2 FLOP)")
    return 1 if convention == "mac" else 2


def _number(value: float | None, factor: int = 1) -> str:
    if value is None:
        return "-"
    value = value * factor
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _agreement(profile: Profile) -> str:
    if profile.agree is None:
        return "one counter only"
    if not profile.agree:
        return "NO: " + "; ".join(profile.disagreements)
    return f"yes, on {', '.join(profile.shared)}"


def summary_table(profiles: Sequence[Profile], convention: Convention = "mac") -> Table:
    """One column for each profile; dendrites by dendritic neuron, all stages by neuron."""
    factor, unit = _factor(convention), convention.upper()
    table = Table(
        caption=f"{unit} is 1 MAC = 2 FLOP; FFT by the cost model 2.5 n log2 n FLOP"
        if factor == 2
        else "1 MAC = 2 FLOP; FFT by the cost model 2.5 n log2 n FLOP"
    )
    table.add_column("")
    for profile in profiles:
        table.add_column(profile.name, justify="right", overflow="fold")
    rows: list[tuple[str, list[str]]] = [
        ("trained parameters", [_number(p.parameters) for p in profiles]),
        ("neurons", [_number(p.neurons) for p in profiles]),
        ("synapses", [_number(p.synapses) for p in profiles]),
        *(
            (
                f"dendrites, {column}: {unit} a dendritic neuron",
                [_number(p.dendritic_mac_per_neuron(column), factor) for p in profiles],
            )
            for column in ("essay", "direct", "executed")
        ),
        (f"all stages: {unit} a neuron", [_number(p.mac_per_neuron, factor) for p in profiles]),
        (
            f"all stages: {unit} a neuron and step",
            [_number(p.mac_per_neuron_step, factor) for p in profiles],
        ),
        ("all operators: FLOP a neuron", [_number(p.flop_per_neuron) for p in profiles]),
        ("all operators: MFLOP a sample", [f"{p.flop_per_sample / 1e6:,.3f}" for p in profiles]),
        *(
            (
                f"{counter} on {_devices(profiles, counter)}: {unit} a batch",
                [
                    _number(p.counts[counter].mac, factor) if counter in p.counts else "skipped"
                    for p in profiles
                ],
            )
            for counter in ("closed_form", "exact", "fvcore")
            if any(counter in p.counts or counter in p.skipped for p in profiles)
        ),
        ("counters agree to the last digit", [_agreement(p) for p in profiles]),
    ]
    for label, cells in rows:
        table.add_row(label, *cells)
    return table


def _devices(profiles: Sequence[Profile], counter: str) -> str:
    devices = sorted({p.counts[counter].device for p in profiles if counter in p.counts})
    return "/".join(devices) or "no device"


def stage_table(profile: Profile, convention: Convention = "mac") -> Table:
    """One row for each stage that costs anything, per sample, by module.

    "other" is what is no multiply-add, and the share is of the FLOPs of all stages.
    """
    factor, unit = _factor(convention), convention.upper()
    table = Table(
        title=f"{profile.name}: {unit} a sample, stage by stage",
        caption="other: FLOP beside multiply-adds (norms, activations, sums); share: of all FLOP",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", overflow="fold")
    for column in ("essay", "direct", "executed", "other", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = profile.to_dict()["stages"]
    modules = list(dict.fromkeys(row["module"] for row in rows))
    for module in modules:
        own = [row for row in rows if row["module"] == module]
        if len(modules) > 1:
            neurons = sum(row["neurons_per_sample"] for row in own)
            table.add_section()
            table.add_row(Text(f"{module or 'the model'}: {neurons:,} neurons", style="bold"))
        for row in own:
            if not row["share_of_flop"]:
                continue
            table.add_row(
                row["stage"],
                _number(row["essay_mac_per_sample"], factor),
                _number(row["direct_mac_per_sample"], factor),
                _number(row["executed_mac_per_sample"] or None, factor),
                _number(row["other_flop_per_sample"] or None),
                f"{row['share_of_flop']:.1%}",
            )
    return table
