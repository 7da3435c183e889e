"""The quantities of a profile: one list, from which the tables and the JSON are built."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from textwrap import shorten
from typing import Any, Literal

from neuroconv.flops.record import COUNTERS, Record, ratio

Unit = Literal["", "mac", "%", "J", "B", "s", "FLOP/s", "B/s", "3g"]


@dataclass(frozen=True)
class Metric:
    """One quantity of a `Record`.

    Attributes:
        key: in the JSON; None for a part of a quantity that has a key.
        source: the path of attributes that leads to it, or a function of the record.
        label: of its row in the table; None for a quantity of the JSON alone.
        unit: "mac" follows the table's convention, "" has none, others get a metric prefix.
        partial_if: whether something is missing from the quantity.
    """

    key: str | None
    source: str | Callable[[Record], Any]
    label: str | None = None
    unit: Unit = ""
    partial_if: Callable[[Record], object] | None = None

    def value(self, record: Record) -> Any:
        if callable(self.source):
            return self.source(record)
        value: Any = record
        for attribute in self.source.split("."):
            value = None if value is None else getattr(value, attribute)
        return value

    def text(self, record: Record, factor: int) -> str:
        """Returns the cell of the table; factor: 1 for MAC, 2 for FLOP."""
        value = self.value(record)
        if value is None or isinstance(value, str):
            return value or "-"
        match self.unit:
            case "" | "mac":
                text = format_number(value, factor if self.unit == "mac" else 1)
            case "3g":
                text = f"{value:.3g}"
            case "%":
                text = f"{100 * value:.2g} %"
            case "J":
                text = " to ".join(in_units(joules, "J") for joules in value.total_joules)
            case _:
                text = in_units(value, self.unit)
        is_partial = self.partial_if is not None and self.partial_if(record)
        return text + " (partial)" * bool(is_partial)


def format_number(value: float | None, factor: int = 1) -> str:
    """Returns a number with separators: whole numbers whole, others with three digits or more."""
    if value is None:
        return "-"
    value = value * factor
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"


def in_units(value: float, unit: str) -> str:
    """Returns three digits and a metric prefix: 1.23 GFLOP/s."""
    if not value:
        return f"0 {unit}"
    power = min(15, max(-12, 3 * math.floor(math.log10(abs(value)) / 3 + 1e-12)))
    return f"{value / 10.0**power:.3g} {'pnµm kMGTP'[power // 3 + 4].strip()}{unit}"


def stage_rows(record: Record) -> list[dict[str, Any]]:
    """Returns the stages as plain data, by sample, units in the keys."""

    def per_sample(amount: int | None) -> float | None:
        return None if amount is None else ratio(amount, record.batch)

    total = record.stages_flop
    return [
        {
            "stage": (cost := row.cost).stage,
            "module": row.module,
            "neurons_per_sample": cost.neurons,
            "synapses_per_sample": cost.synapses,
            "essay_mac_per_sample": per_sample(cost.essay),
            "direct_mac_per_sample": per_sample(cost.direct),
            "zeros_mac_per_sample": per_sample(cost.zeros),
            "executed_mac_per_sample": ratio(cost.executed_flop, 2 * record.batch),
            "mac_per_sample_by_family": {f: per_sample(mac) for f, mac in cost.macs.items()},
            "other_flop_per_sample": per_sample(cost.other),
            "share_of_flop": ratio(cost.flop, total) if total else 0.0,
        }
        for row in record.stages
    ]


def _dendrites(column: str) -> Metric:
    return Metric(
        f"dendrites_{column}_mac_per_neuron",
        lambda r: r.dendritic_mac_per_neuron(column),
        f"dendrites, {column}: {{unit}} a neuron with dendrites",
        "mac",
    )


def _counter(name: str) -> Metric:
    def mac(record: Record) -> int | str | None:
        if name in record.counts:
            return record.counts[name].mac
        return "skipped" if name in record.skipped else None

    label = f"contractions, {name} on {{{name}_device}}: {{unit}} a batch"
    return Metric(None, mac, label, "mac", lambda r: name not in r.complete)


def _agreement(record: Record) -> str:
    if record.agree is None:
        return f"unknown: {shorten(record.agree_reason or '', 120)}"
    if not record.agree:
        return "NO: " + "; ".join(record.disagreements)
    partial = len(record.complete) < len(record.counts)
    counters = f" of {' and '.join(record.complete)}" if partial else ""
    return f"yes, on {', '.join(record.shared) or 'no contraction'}{counters}"


_hidden = attrgetter("hidden")

SECTIONS: tuple[tuple[Metric, ...], ...] = (
    (
        Metric("name", "name"),
        Metric("batch_samples", "batch"),
        Metric("time_steps", "time_steps"),
        Metric("axons", "axons", "axons into the population"),
        Metric("parameters_trained", "parameters", "trained parameters"),
        Metric("parameters_frozen", "frozen_parameters"),
        Metric(None, lambda r: r.frozen_parameters or None, "frozen parameters"),
        Metric("buffer_elements", "buffers"),
        Metric("neurons_per_sample", "neurons", "neurons a sample", partial_if=_hidden),
        Metric("synapses_per_sample", "synapses", "synapses a sample", partial_if=_hidden),
        Metric("axons_per_sample", "sent.axons", "axons from unit to unit: values a sample"),
        Metric("wires_per_sample", "sent.wires", "wires: values x readers a sample"),
        Metric("input_wires_per_sample", "sent.input_wires",
               "wires from the input: values x readers"),
        Metric("inputs_per_sample", "sent.inputs"),
        Metric("neurons_and_synapses_complete", lambda r: not r.hidden),
        Metric("dendritic_neurons_per_sample", "dendritic_neurons"),
    ),
    (
        *map(_dendrites, ("essay", "direct", "executed")),
        Metric("dendrites_zeros_mac_per_neuron", lambda r: r.dendritic_mac_per_neuron("zeros")),
        Metric(None, lambda r: r.dendritic_mac_per_neuron("zeros") or None,
               "dendrites, executed with zeros: {unit} a neuron with dendrites", "mac"),
        Metric("mac_per_sample", "mac_per_sample", "executed: {unit} a sample", "mac"),
        Metric("zeros_mac_per_sample", "zeros_mac_per_sample"),
        Metric("wired_mac_per_sample", "wired_mac_per_sample"),
        Metric(None, lambda r: r.wired_mac_per_sample if r.zeros_mac_per_sample else None,
               "wired, executed without zeros: {unit} a sample", "mac", _hidden),
        Metric("mac_per_neuron", "mac_per_neuron", "executed: {unit} a neuron", "mac"),
        Metric("mac_per_neuron_and_step", "mac_per_neuron_step",
               "executed: {unit} a neuron and step", "mac"),
        Metric("mac_per_synapse", "mac_per_synapse", "executed: {unit} a synapse", "mac"),
    ),
    (
        Metric("flop_per_sample", "flop_per_sample", "all operators: FLOP a sample"),
        Metric("flop_per_neuron", "flop_per_neuron", "all operators: FLOP a neuron"),
        Metric("flop_per_neuron_and_step",
               lambda r: r.flop_per_neuron and r.flop_per_neuron / r.time_steps),
        Metric("flop_shared_by_the_batch", "shared_flop", "shared by its samples: FLOP a call"),
        Metric("flop_of_each_further_sample", "marginal_flop_per_sample"),
        Metric("training_forward_flop_per_sample",
               lambda r: r.training and ratio(r.training.flop, r.training_batch)),
        Metric("training_backward_flop_per_sample", "backward_flop_per_sample",
               "backward pass in training: FLOP a sample"),
    ),
    (
        Metric(None, lambda r: ratio(r.traffic.forward.new_elements, r.batch),
               "activations: elements made a sample"),
        Metric(None, "traffic.moved_bytes", "moved: bytes a call", "B"),
        Metric(None, "traffic.compulsory_bytes", "compulsory: bytes a call", "B"),
        Metric(None, "traffic.peak_bytes", "peak memory of a call", "B"),
        Metric(None, "training_traffic.peak_bytes",
               "peak memory of a training step, batch {training_batch}", "B"),
        Metric("flop_per_byte_moved", "flop_per_byte", "intensity: FLOP a byte moved", "3g"),
        Metric("flop_per_byte_compulsory",
               lambda r: r.reference.flop / max(1, r.traffic.compulsory_bytes)),
        Metric("traffic_per_batch", "traffic"),
        Metric("training_batch_samples", "training_batch"),
        Metric("training_traffic_per_training_batch", "training_traffic"),
    ),
    (
        Metric("measured", "measured"),
        Metric(None, "measured.timing.seconds", "time of a call (median)", "s"),
        Metric(None, "measured.placement.flop_per_s", "reached", "FLOP/s"),
        Metric(None, "measured.placement.share_of_peak_flop", "share of the peak", "%"),
        Metric(None, "measured.placement.byte_per_s", "moved a second", "B/s"),
        Metric(None, "measured.placement.share_of_peak_bytes", "share of a copy's rate", "%"),
        Metric(None, "measured.placement.bound", "bound by"),
    ),
    (
        Metric("energy_per_sample", Record.energy, "energy a sample, dense (estimate)", "J"),
        Metric("energy_per_sample_at_measured_firing", Record.energy_at_rate,
               "energy a sample, event-driven at the measured firing{dendrites} (estimate)", "J"),
        Metric("fft_cost_model", lambda _: "1.25 n log2 n MAC for a real transform of n points"),
    ),
    (
        *map(_counter, COUNTERS),
        Metric(None, lambda r: "fails" if r.stock_fvcore and r.stock_fvcore.failures
               else r.stock_fvcore and r.stock_fvcore.total,
               "fvcore as it comes: {unit} a batch", "mac",
               lambda r: r.stock_fvcore and r.stock_fvcore.unsupported),
        Metric(None, _agreement, "counters agree to the last digit"),
        Metric("counters", "counts"),
        Metric("fvcore_as_it_comes", "stock_fvcore"),
        Metric("counters_skipped", "skipped"),
        Metric("counters_shared_families", "shared"),
        Metric("counters_agree", "agree"),
        Metric("counters_agree_unknown_because", "agree_reason"),
        Metric("counters_incomplete", "incomplete"),
        Metric("counters_disagreements", "disagreements"),
        Metric("modules_unstated", "unstated"),
        Metric("modules_with_hidden_contractions", "hidden"),
        Metric("stages", stage_rows),
    ),
)  # fmt: skip
METRICS = tuple(metric for section in SECTIONS for metric in section)


def to_dict(record: Record) -> dict[str, Any]:
    return {m.key: _plain(m.value(record)) for m in METRICS if m.key is not None}


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
