"""Profiles as rich tables."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from neuroconv.flops.energy import Energy
from neuroconv.flops.machine.measured import Measured
from neuroconv.flops.record import Profile, ratio

Convention = Literal["mac", "flop"]


def _factor(convention: Convention) -> int:
    if convention not in ("mac", "flop"):
        raise ValueError(f"convention={convention!r}; expected 'mac' or 'flop' (1 MAC is 2 FLOP)")
    return 1 if convention == "mac" else 2


def _number(value: float | None, factor: int = 1) -> str:
    if value is None:
        return "-"
    value = value * factor
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"


def _agreement(profile: Profile) -> str:
    if profile.agree is None:
        return "fewer than two complete counters"
    if not profile.agree:
        return "NO: " + "; ".join(profile.disagreements)
    partial = len(profile.complete) < len(profile.counts)
    who = f" of {' and '.join(profile.complete)}" if partial else ""
    return f"yes, on {', '.join(profile.shared)}{who}"


def summary_table(
    profiles: Sequence[Profile], convention: Convention = "mac", legend: bool = True
) -> Table:
    """One column for each profile, one row for each number, its unit in the row's name."""
    factor, unit = _factor(convention), convention.upper()
    table = Table(
        caption="1 MAC = 2 FLOP; FFT by the cost model 2.5 n log2 n FLOP. A sample is one element "
        "of the batch, a window of all its time steps. Executed: by the algorithm that runs, the "
        "products of sparse synapses and of spectra, which are no contractions, at two to a MAC. "
        "Moved: every operator reads and writes memory; compulsory: a cache holds all in between."
        + " Partial: something ran for which there is no rule, or no closed form."
        * any(p.hidden or len(p.complete) < len(p.counts) for p in profiles)
        if legend
        else None
    )
    table.add_column("")
    for profile in profiles:
        table.add_column(profile.name, justify="right", overflow="fold")
    measured = [p for p in profiles if p.measured is not None]
    sections = [
        _sizes(profiles),
        _multiply_adds(profiles, unit, factor),
        _flops(profiles),
        _memory(profiles),
        *([_time(profiles)] if measured else []),
        _energy(profiles),
        _counters(profiles, unit, factor),
    ]
    for rows in sections:
        table.add_section()
        for label, cells in rows:
            if any(cell != "-" for cell in cells):
                table.add_row(label, *cells)
    return table


Rows = list[tuple[str, list[str]]]


def _sizes(profiles: Sequence[Profile]) -> Rows:
    return [
        ("trained parameters", [_number(p.parameters) for p in profiles]),
        ("frozen parameters", [_number(p.frozen_parameters or None) for p in profiles]),
        ("neurons a sample", [_number(p.neurons) + _partly(p.hidden) for p in profiles]),
        ("synapses a sample", [_number(p.synapses) + _partly(p.hidden) for p in profiles]),
    ]


def _partly(missing: object) -> str:
    return " (partial)" if missing else ""


def _multiply_adds(profiles: Sequence[Profile], unit: str, factor: int) -> Rows:
    dendrites: Rows = [
        (
            f"dendrites, {column}: {unit} a neuron with dendrites",
            [_number(p.dendritic_mac_per_neuron(column), factor) for p in profiles],
        )
        for column in ("essay", "direct", "executed")
    ]
    return [
        *dendrites,
        (f"executed: {unit} a sample", [_number(p.mac_per_sample, factor) for p in profiles]),
        (f"executed: {unit} a neuron", [_number(p.mac_per_neuron, factor) for p in profiles]),
        (
            f"executed: {unit} a neuron and step",
            [_number(p.mac_per_neuron_step, factor) for p in profiles],
        ),
        (f"executed: {unit} a synapse", [_number(p.mac_per_synapse, factor) for p in profiles]),
    ]


def _flops(profiles: Sequence[Profile]) -> Rows:
    return [
        ("all operators: FLOP a sample", [_number(p.flop_per_sample) for p in profiles]),
        ("all operators: FLOP a neuron", [_number(p.flop_per_neuron) for p in profiles]),
        (
            "shared by its samples: FLOP a call",
            [_number(p.shared_flop) for p in profiles],
        ),
        (
            "backward pass in training: FLOP a sample",
            [_number(p.backward_flop_per_sample) for p in profiles],
        ),
    ]


def _memory(profiles: Sequence[Profile]) -> Rows:
    def batch(size: int | None) -> str:
        return "-" if size is None else in_units(size, "B")

    return [
        (
            "activations: elements made a sample",
            [_number(ratio(p.traffic.forward.new_elements, p.batch)) for p in profiles],
        ),
        ("moved: bytes a call", [batch(p.traffic.moved_bytes) for p in profiles]),
        ("compulsory: bytes a call", [batch(p.traffic.compulsory_bytes) for p in profiles]),
        ("peak memory of a call", [batch(p.traffic.peak_bytes) for p in profiles]),
        (
            f"peak memory of a training step, batch {_batches(profiles)}",
            [batch(None if (t := p.training_traffic) is None else t.peak_bytes) for p in profiles],
        ),
        ("intensity: FLOP a byte moved", [f"{p.flop_per_byte:.3g}" for p in profiles]),
    ]


def _time(profiles: Sequence[Profile]) -> Rows:
    def shown(measured: Measured | None, text: Callable[[Measured], str]) -> str:
        return "-" if measured is None else text(measured)

    return [
        (label, [shown(p.measured, text) for p in profiles])
        for label, text in (
            ("time of a call (median)", lambda m: in_units(m.timing.seconds, "s")),
            ("reached", lambda m: in_units(m.placement.flop_per_s, "FLOP/s")),
            ("share of the peak", lambda m: _percent(m.placement.share_of_peak_flop)),
            ("moved a second", lambda m: in_units(m.placement.byte_per_s, "B/s")),
            ("share of a copy's rate", lambda m: _percent(m.placement.share_of_peak_bytes)),
            ("bound by", lambda m: str(m.placement.bound)),
        )
    ]


def _batches(profiles: Sequence[Profile]) -> str:
    sizes = sorted({p.training_batch for p in profiles})
    return " or ".join(map(str, sizes))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _energy(profiles: Sequence[Profile]) -> Rows:
    def span(energy: Energy | None) -> str:
        if energy is None:
            return "-"
        low, high = energy.total_joules
        return f"{in_units(low, 'J')} to {in_units(high, 'J')}"

    return [
        ("energy a sample, dense (estimate)", [span(p.energy()) for p in profiles]),
        (
            "energy a sample, event-driven at the measured firing"
            + ", dendrites direct" * any(p.dendritic_neurons for p in profiles)
            + " (estimate)",
            [span(p.energy_at_rate()) for p in profiles],
        ),
    ]


def _counters(profiles: Sequence[Profile], unit: str, factor: int) -> Rows:
    rows: Rows = [
        (
            f"contractions, {counter} on {_devices(profiles, counter)}: {unit} a batch",
            [_witness(p, counter, factor) for p in profiles],
        )
        for counter in ("closed_form", "exact", "fvcore")
        if any(counter in p.counts or counter in p.skipped for p in profiles)
    ]
    return [*rows, ("counters agree to the last digit", [_agreement(p) for p in profiles])]


def _witness(profile: Profile, counter: str, factor: int) -> str:
    counts = profile.counts.get(counter)
    if counts is None:
        return "skipped" if counter in profile.skipped else "-"
    return _number(counts.mac, factor) + _partly(counter not in profile.complete)


def in_units(value: float, unit: str) -> str:
    """Three digits and a metric prefix: 1.23 GFLOP/s."""
    if not value:
        return f"0 {unit}"
    prefixes = {
        -12: "p",
        -9: "n",
        -6: "µ",
        -3: "m",
        0: "",
        3: "k",
        6: "M",
        9: "G",
        12: "T",
        15: "P",
    }
    power = min(15, max(-12, 3 * math.floor(math.log10(abs(value)) / 3 + 1e-12)))
    return f"{value / 10.0**power:.3g} {prefixes[power]}{unit}"


def _devices(profiles: Sequence[Profile], counter: str) -> str:
    devices = sorted({p.counts[counter].device for p in profiles if counter in p.counts})
    return "/".join(devices) or "no device"


def stage_table(profile: Profile, convention: Convention = "mac") -> Table:
    """One row for each stage that costs anything, per sample, by module.

    "other" is what is no multiply-add, and the share is of the FLOPs of all stages. Columns that no
    stage fills are left out.
    """
    factor, unit = _factor(convention), convention.upper()
    table = Table(
        title=f"{profile.name}: {unit} a sample, stage by stage",
        caption="other: FLOP beside multiply-adds (norms, activations, sums); share: of the FLOP "
        "of all stages" + ("; modules without a closed form are missing" * bool(profile.hidden)),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", overflow="fold")
    rows = profile.to_dict()["stages"]
    columns = {
        "essay": ("essay_mac_per_sample", factor),
        "direct": ("direct_mac_per_sample", factor),
        "executed": ("executed_mac_per_sample", factor),
        "other": ("other_flop_per_sample", 1),
    }
    columns = {name: held for name, held in columns.items() if any(row[held[0]] for row in rows)}
    for column in (*columns, "share"):
        table.add_column(column, justify="right", no_wrap=True)
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
                *(_number(row[key] or None, of) for key, of in columns.values()),
                f"{row['share_of_flop']:.1%}",
            )
    rest = profile.reference.flop - profile.stages_flop
    if rest > 0:
        table.caption = f"{table.caption}; in no stage: {_number(ratio(rest, profile.batch))} FLOP"
    return table
