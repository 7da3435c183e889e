"""The cost of one model: counts, measurements, and the quantities that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from neuroconv.core.arguments import Rule
from neuroconv.flops.axons import Axons
from neuroconv.flops.closed_forms import StageRow
from neuroconv.flops.energy import DEFAULT_NODE, Energy, estimate_energy
from neuroconv.flops.fvcore_counter import StockCount
from neuroconv.flops.machine.roofline import Measured
from neuroconv.flops.machine.traffic import Traffic
from neuroconv.flops.rules import CONTRACTIONS, Counts

_SENT = ("axons", "wires", "input_wires")
COUNTERS = ("closed_form", "exact", "fvcore")
Counters = Annotated[
    Sequence[str], Rule(f"of {', '.join(COUNTERS)}", lambda names: set() < {*names} <= {*COUNTERS})
]


def ratio(amount: float, parts: int) -> float:
    """Returns amount / parts, an int wherever it is one: past 2**53 a float would lose digits."""
    return amount // parts if isinstance(amount, int) and amount % parts == 0 else amount / parts


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a model costs for one sample, in the currencies of a comparison.

    Attributes:
        parameters: trained numbers.
        mac_wired, mac_executed: multiply-adds without, and with, those with zeros off the wiring.
        axons, wires, input_wires: see `Axons`; None where they cannot be counted.
    """

    parameters: int
    mac_wired: float
    mac_executed: float
    axons: int | None = None
    wires: int | None = None
    input_wires: int | None = None


@dataclass(frozen=True)
class Record:
    """The cost of one run of a model in eval mode. Counts are for the whole batch.

    "A sample" is one element of the batch: one window of all its time steps, or one image.

    Attributes:
        time_steps: of the window (1 for still images).
        axons: that a population receives; None for other models.
        sent: what the model's units send one another; None if `skipped` says why.
        parameters, frozen_parameters, buffers: elements that are trained, or not.
        counts: of each counter that ran.
        stock_fvcore: fvcore's count with its own handles alone; None if fvcore did not run.
        skipped: why a counter, a training step or a time is missing, or was counted on meta.
        stages: the closed form's rows, in the order of execution.
        unstated: modules that ran and that no closed form covers.
        hidden: those that run contractions: if any, stages, neurons and synapses are undercounted.
        training: a training step by the exact counter; None if nothing is trained.
        training_batch: samples in that step: at least two, which batch norm needs.
        doubled: the exact counter's run of a batch twice as large; None if the model refused it.
        traffic, training_traffic: bytes that the run, and the training step, move and hold.
        measured: time, position under the roofs and firing on a real device; None without one.
    """

    name: str
    batch: int
    time_steps: int
    axons: int | None
    sent: Axons | None
    parameters: int
    frozen_parameters: int
    buffers: int
    counts: Mapping[str, Counts]
    stock_fvcore: StockCount | None
    skipped: Mapping[str, str]
    stages: tuple[StageRow, ...]
    unstated: tuple[str, ...]
    hidden: tuple[str, ...]
    training: Counts | None
    training_batch: int
    doubled: Counts | None
    traffic: Traffic
    training_traffic: Traffic | None
    measured: Measured | None

    # --- which counters agree, and on what

    @property
    def complete(self) -> Mapping[str, Counts]:
        """The counters that had a rule for all contractions that ran: these must agree."""
        return {name: c for name, c in self.counts.items() if name not in self.incomplete}

    @property
    def incomplete(self) -> Mapping[str, str]:
        """Why each of the other counters that were to run is not complete."""
        reasons = {c: f"skipped: {why}" for c, why in self.skipped.items() if c in COUNTERS}
        for name, counts in self.counts.items():
            if name == "closed_form" and self.hidden:  # its other modules run no contraction
                reasons[name] = f"no formula for the products of {', '.join(self.hidden)}"
            elif name != "closed_form" and counts.uncounted:
                reasons[name] = f"no rule for {', '.join(counts.uncounted)}"
        return reasons

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a rule of the exact counter, in the run or in a training step."""
        passes = [self.counts.get("exact"), self.training]
        passes += [step.backward for step in passes if step is not None]
        return tuple(sorted({op for step in passes if step is not None for op in step.uncounted}))

    @property
    def shared(self) -> tuple[str, ...]:
        """Contraction families that all complete counters have counted."""
        counts = self.complete.values()
        return tuple(f for f in CONTRACTIONS if counts and all(f in c.macs for c in counts))

    @property
    def disagreements(self) -> tuple[str, ...]:
        """A line for each family on which complete counters differ, or that only some counted."""
        lines = []
        for family in CONTRACTIONS:
            macs = {name: counts.macs.get(family, 0) for name, counts in self.complete.items()}
            if len(set(macs.values())) > 1:
                listed = ", ".join(f"{name} {mac:,} MAC" for name, mac in macs.items())
                lines.append(f"{family}: {listed}")
        return tuple(lines)

    @property
    def agree(self) -> bool | None:
        """All complete counters are equal to the last digit; None if there are fewer than two."""
        return None if len(self.complete) < 2 else not self.disagreements

    @property
    def agree_reason(self) -> str | None:
        """Why it is not known whether counters agree; None if it is."""
        if self.agree is not None:
            return None
        reasons = [f"{counter}: {reason}" for counter, reason in self.incomplete.items()]
        return "; ".join(reasons) or f"{', '.join(self.counts)} ran alone"

    @property
    def reference(self) -> Counts:
        """The counts that totals are taken from: the exact counter's, if it ran."""
        order = ("exact", "fvcore", "closed_form")
        return next(self.counts[name] for name in order if name in self.counts)

    @property
    def amounts(self) -> Amounts:
        """The currencies of a comparison."""
        sent = self.sent and {key: getattr(self.sent, key) for key in _SENT}
        return Amounts(
            parameters=self.parameters, mac_wired=self.wired_mac_per_sample,
            mac_executed=self.mac_per_sample, **(sent or {}),
        )  # fmt: skip

    # --- neurons, and their dendrites by three columns

    @property
    def neurons(self) -> int:
        """Neurons per sample, of the cells and of plain layers (a unit at a position)."""
        return sum(row.cost.neurons for row in self.stages)

    @property
    def synapses(self) -> int:
        """Synapses per sample, of the cells and of plain layers (connections)."""
        return sum(row.cost.synapses for row in self.stages)

    @property
    def _dendrites(self) -> list[StageRow]:
        return [row for row in self.stages if row.cost.essay is not None]

    @property
    def dendritic_neurons(self) -> int:
        """Neurons per sample that have dendrites."""
        return sum(row.cost.neurons for row in self._dendrites)

    def dendritic_mac(self, column: str) -> float | None:
        """Returns the dendrites' MAC by "essay", "direct", "executed" or "zeros"; see `Cost`."""
        if not self._dendrites:
            return None
        if column == "executed":
            return ratio(sum(row.cost.executed_flop for row in self._dendrites), 2)
        return sum(getattr(row.cost, column) or 0 for row in self._dendrites)

    def dendritic_mac_per_neuron(self, column: str) -> float | None:
        amount, parts = self.dendritic_mac(column), self.batch * self.dendritic_neurons
        return None if amount is None or not parts else ratio(amount, parts)

    @property
    def stages_flop(self) -> int:
        return sum(row.cost.flop for row in self.stages)

    @property
    def _mac_flop(self) -> int:
        products = sum(row.cost.pointwise for row in self.stages if row.cost.linear)
        return 2 * self.reference.mac + products

    @property
    def _zeros(self) -> int:
        return sum(row.cost.zeros for row in self.stages)

    @property
    def mac(self) -> float:
        """Multiply-adds of all that is linear: contractions, and at two FLOPs each the products of
        synapses and of an FFT's spectra. Norms and activations are in `flop_per_sample`."""
        return ratio(self._mac_flop, 2)

    @property
    def mac_per_sample(self) -> float:
        return ratio(self._mac_flop, 2 * self.batch)

    @property
    def flop_per_sample(self) -> float:
        """FLOPs of every operator, contractions or not, by sample."""
        return ratio(self.reference.flop, self.batch)

    def _mean(self, amount: int, parts: int) -> float | None:
        """Returns the amount by sample and part; None without parts, or with hidden ones."""
        return ratio(amount, self.batch * parts) if parts and not self.hidden else None

    @property
    def zeros_mac_per_sample(self) -> float:
        """The executed multiply-adds with weights that the wiring, or a filter, does not have."""
        return ratio(self._zeros, self.batch)

    @property
    def wired_mac_per_sample(self) -> float:
        """The executed multiply-adds but those with zeros off the wiring."""
        return ratio(self._mac_flop - 2 * self._zeros, 2 * self.batch)

    @property
    def mac_per_synapse(self) -> float | None:
        return self._mean(self._mac_flop, 2 * self.synapses)

    @property
    def mac_per_neuron(self) -> float | None:
        return self._mean(self._mac_flop, 2 * self.neurons)

    @property
    def mac_per_neuron_step(self) -> float | None:
        return self._mean(self._mac_flop, 2 * self.neurons * self.time_steps)

    @property
    def flop_per_neuron(self) -> float | None:
        return self._mean(self.reference.flop, self.neurons)

    @property
    def shared_flop(self) -> int | None:
        """FLOPs of a call whatever its batch, such as a filter's transform; None if unknown, or if
        samples interact, so that a batch twice as large costs more than twice as much."""
        once = self.counts.get("exact")
        if once is None or self.doubled is None or self.doubled.flop > 2 * once.flop:
            return None
        return 2 * once.flop - self.doubled.flop

    @property
    def marginal_flop_per_sample(self) -> float | None:
        """FLOPs that each further sample adds: all but the shared."""
        if self.shared_flop is None:
            return None
        return ratio(self.counts["exact"].flop - self.shared_flop, self.batch)

    @property
    def backward_flop_per_sample(self) -> float | None:
        if self.training is None or self.training.backward is None:
            return None
        return ratio(self.training.backward.flop, self.training_batch)

    @property
    def flop_per_byte(self) -> float:
        """Arithmetic intensity: FLOPs over the bytes that all operators move."""
        return self.reference.flop / max(1, self.traffic.moved_bytes)

    def energy(self, node: str = DEFAULT_NODE) -> Energy:
        """Estimates the energy of one sample, every multiply-add executed.

        The lowest estimate charges the compulsory bytes to main memory, the highest all moved ones.
        """
        return self._energy(node, self.mac)

    def energy_at_rate(self, node: str = DEFAULT_NODE) -> Energy | None:
        """Estimates the energy of one sample if silent axons cost nothing; None if not measured.

        The multiply-adds of synapses, dendrites and plain layers become additions for the active
        axons. Dendrites count by a direct convolution: a Fourier transform cannot use silence.
        """
        if self.measured is None:
            return None
        driven, active, replaced = 0.0, 0.0, 0.0  # MAC that axons drive, and dense MAC they replace
        for row in self.stages:
            shares = self.measured.firing.get(row.module)
            if shares is not None and row.cost.linear:
                executed = row.cost.executed_flop / 2
                mac = executed if row.cost.direct is None else row.cost.direct
                driven += mac
                active += mac * shares.inputs
                replaced += executed
        share = active / driven if driven else 0.0
        return self._energy(node, max(0, self.mac - replaced), driven, share)

    def _energy(self, node: str, mac: float, synaptic: float = 0, active: float = 0) -> Energy:
        moved, compulsory = self.traffic.moved_bytes, self.traffic.compulsory_bytes
        return estimate_energy(
            mac / self.batch,
            max(0, self.reference.flop - self._mac_flop) / self.batch,
            moved / self.batch,
            node,
            # Memory that is allocated and never written is compulsory as an output, and not moved.
            compulsory_bytes=min(compulsory, moved) / self.batch,
            synaptic_mac=synaptic / self.batch,
            active_share=active,
        )
