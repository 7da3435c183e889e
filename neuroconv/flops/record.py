"""What is known of one model's cost: the record that `profile` makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console

from neuroconv.flops.closed_forms import StageRow
from neuroconv.flops.energy import DEFAULT_NODE, Energy, at_rate, estimate_energy
from neuroconv.flops.machine.measured import Measured
from neuroconv.flops.machine.traffic import Traffic
from neuroconv.flops.rules import CONTRACTIONS, Counts


def ratio(amount: float, parts: int) -> float:
    """amount / parts, an int wherever it is one: past 2**53 a float would lose digits."""
    return amount // parts if isinstance(amount, int) and amount % parts == 0 else amount / parts


@dataclass(frozen=True)
class Profile:
    """The cost of one run of a model in eval mode. Counts are for the whole batch.

    "A sample" is one element of the batch: one window of all its time steps, or one image.

    Attributes:
        name: what the tables call it.
        batch: samples in the run.
        time_steps: time steps in the window (1 for still images).
        parameters: trained floats. frozen_parameters: the others. buffers: elements of buffers.
        neurons: per sample, of the cells and of plain layers (a unit at a position).
        synapses: per sample, of the cells and of plain layers (connections).
        counts: what each counter that ran saw.
        skipped: for each that did not, and for a training step or a time that could not be taken,
            why.
        stages: the closed form's rows, in the order of execution.
        unstated: modules that ran and that no closed form covers.
        hidden: those of them that run contractions, which are in no stage: with them neurons and
            synapses are too few.
        training: a training step by the exact counter, its backward pass in `training.backward`;
            None if nothing is trained, or `skipped` says why.
        training_batch: samples in that step: the batch, but at least two, since one sample has no
            statistics for a batch norm.
        doubled: the exact counter's run of a batch twice as large; None if the model refused it.
        traffic: bytes that the run moves and holds.
        training_traffic: those of a training step; None if nothing is trained.
        measured: time, place under the roofs and firing on a real device; None without one.
    """

    name: str
    batch: int
    time_steps: int
    parameters: int
    frozen_parameters: int
    buffers: int
    neurons: int
    synapses: int
    counts: Mapping[str, Counts]
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

    @property
    def _dendrites(self) -> list[StageRow]:
        return [row for row in self.stages if row.cost.essay is not None]

    @property
    def dendritic_neurons(self) -> int:
        """Neurons per sample that have dendrites."""
        return sum(row.cost.neurons for row in self._dendrites)

    @property
    def essay_mac(self) -> int | None:
        """Dendrites by the essay's rule, synapses x time steps x taps; None without dendrites."""
        rows = self._dendrites
        return sum(row.cost.essay or 0 for row in rows) if rows else None

    @property
    def direct_mac(self) -> int | None:
        """Dendrites by a direct convolution, padding zeros counted; None without dendrites."""
        rows = self._dendrites
        return sum(row.cost.direct or 0 for row in rows) if rows else None

    @property
    def executed_mac(self) -> float | None:
        """Dendrites by the algorithm that runs, its spectral products included."""
        rows = self._dendrites
        return ratio(sum(row.cost.executed_flop for row in rows), 2) if rows else None

    @property
    def stages_flop(self) -> int:
        """FLOP of all rows of the closed form."""
        return sum(row.cost.flop for row in self.stages)

    @property
    def complete(self) -> Mapping[str, Counts]:
        """The counters that had a rule for all contractions that ran: these must agree."""
        missing: dict[str, object] = {name: c.uncounted for name, c in self.counts.items()}
        missing["closed_form"] = self.hidden  # it knows what its other modules run
        return {name: counts for name, counts in self.counts.items() if not missing[name]}

    @property
    def shared(self) -> tuple[str, ...]:
        """Contraction families that all complete counters have seen."""
        counts = self.complete.values()
        return tuple(f for f in CONTRACTIONS if counts and all(f in c.macs for c in counts))

    @property
    def disagreements(self) -> tuple[str, ...]:
        """One line for each contraction family on which complete counters differ.

        A family that one counter saw and another did not is a disagreement: every counter has a
        rule for each.
        """
        lines = []
        for family in CONTRACTIONS:
            seen = {name: counts.macs.get(family, 0) for name, counts in self.complete.items()}
            if len(set(seen.values())) > 1:
                lines.append(
                    f"{family}: " + ", ".join(f"{name} {mac:,} MAC" for name, mac in seen.items())
                )
        return tuple(lines)

    @property
    def agree(self) -> bool | None:
        """All complete counters are equal to the last digit; None if fewer than two are."""
        return None if len(self.complete) < 2 else not self.disagreements

    @property
    def reference(self) -> Counts:
        """The counts that totals are taken from: the exact counter's, if it ran."""
        order = ("exact", "fvcore", "closed_form")
        return next(self.counts[name] for name in order if name in self.counts)

    @property
    def _mac_flop(self) -> int:
        """Two for each of `mac`, as a whole number."""
        products = sum(row.cost.pointwise for row in self.stages if row.cost.linear)
        return 2 * self.reference.mac + products

    @property
    def mac(self) -> float:
        """Multiply-adds of all that is linear: contractions, and at two FLOPs each the products of
        synapses and of an FFT's spectra. Norms and activations are in `flop_per_sample`, as those
        of plain layers are."""
        return ratio(self._mac_flop, 2)

    @property
    def mac_per_sample(self) -> float:
        """`mac` by sample."""
        return ratio(self._mac_flop, 2 * self.batch)

    @property
    def flop_per_sample(self) -> float:
        """2 x MAC of the contractions, and the FLOPs of every other operator, by sample."""
        return ratio(self.reference.flop, self.batch)

    @property
    def shared_flop(self) -> int | None:
        """FLOPs of a call whatever its batch, such as a filter's transform; None if unknown, or if
        samples meet each other, so that a batch twice as large costs more than twice as much."""
        once = self.counts.get("exact")
        if once is None or self.doubled is None or self.doubled.flop > 2 * once.flop:
            return None
        return 2 * once.flop - self.doubled.flop

    @property
    def own_flop_per_sample(self) -> float | None:
        """FLOPs that each further sample adds: all but the shared; None if that is None."""
        if self.shared_flop is None:
            return None
        return ratio(self.counts["exact"].flop - self.shared_flop, self.batch)

    @property
    def backward_flop_per_sample(self) -> float | None:
        """FLOPs of a training step's backward pass, by sample; None if nothing is trained."""
        if self.training is None or self.training.backward is None:
            return None
        return ratio(self.training.backward.flop, self.training_batch)

    @property
    def mac_per_synapse(self) -> float | None:
        """`mac` by sample and synapse; None for a model without synapses, or with hidden ones."""
        return self._by(2 * self.synapses, self._mac_flop)

    @property
    def flop_per_byte(self) -> float:
        """Arithmetic intensity: FLOPs over the bytes that all operators move."""
        return self.reference.flop / max(1, self.traffic.moved_bytes)

    @property
    def _other_flop(self) -> int:
        return max(0, self.reference.flop - self._mac_flop)

    def energy(self, node: str = DEFAULT_NODE) -> Energy:
        """The estimated energy of one sample, every multiply-add executed.

        Raises:
            ValueError: an unknown node.
        """
        return estimate_energy(
            self.mac / self.batch,
            self._other_flop / self.batch,
            self.traffic.moved_bytes / self.batch,
            node,
        )

    def energy_at_rate(self, node: str = DEFAULT_NODE) -> Energy | None:
        """The estimated energy of one sample if silent axons cost nothing.

        The multiply-adds of synapses, dendrites and plain layers become additions for the axons
        that the measured run found active. Dendrites count by a direct convolution: a Fourier
        transform has no use for silence. None without a measured run.

        Raises:
            ValueError: an unknown node.
        """
        if self.measured is None:
            return None
        driven, heard, replaced = 0.0, 0.0, 0.0
        for row in self.stages:
            shares = self.measured.firing.get(row.module)
            if shares is not None and row.cost.linear:
                executed = row.cost.executed_flop / 2
                mac = executed if row.cost.direct is None else row.cost.direct
                driven += mac
                heard += mac * shares.heard
                replaced += executed
        return at_rate(
            driven / self.batch,
            heard / driven if driven else 0.0,
            mac=max(0, self.mac - replaced) / self.batch,
            other_flop=self._other_flop / self.batch,
            moved_bytes=self.traffic.moved_bytes / self.batch,
            node=node,
        )

    @property
    def flop_per_neuron(self) -> float | None:
        """`flop_per_sample` by neuron, every operator counted; None as for `mac_per_synapse`."""
        return self._by(self.neurons, self.reference.flop)

    @property
    def mac_per_neuron(self) -> float | None:
        """`mac` by sample and neuron; None as for `mac_per_synapse`."""
        return self._by(2 * self.neurons, self._mac_flop)

    @property
    def mac_per_neuron_step(self) -> float | None:
        """`mac` by sample, neuron and time step; None as for `mac_per_synapse`."""
        return self._by(2 * self.neurons * self.time_steps, self._mac_flop)

    def _by(self, parts: int, amount: int) -> float | None:
        return ratio(amount, self.batch * parts) if parts and not self.hidden else None

    def dendritic_mac_per_neuron(self, column: str) -> float | None:
        """Dendrites' MAC by dendritic neuron; column is "essay", "direct" or "executed"."""
        columns = {
            "essay": self.essay_mac, "direct": self.direct_mac, "executed": self.executed_mac
        }  # fmt: skip
        amount, parts = columns[column], self.batch * self.dendritic_neurons
        return None if amount is None else ratio(amount, parts) if parts else None

    def __str__(self) -> str:
        """The summary, as `neuroconv profile` prints it."""
        from neuroconv.flops.table import summary_table  # it shows this class

        console = Console(file=StringIO(), width=100)
        console.print(summary_table([self]))
        assert isinstance(console.file, StringIO)
        return console.file.getvalue().rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the units in the keys; integers stay integers of any size."""
        per_neuron = self.dendritic_mac_per_neuron
        return {
            "name": self.name,
            "batch_samples": self.batch,
            "time_steps": self.time_steps,
            "parameters_trained": self.parameters,
            "parameters_frozen": self.frozen_parameters,
            "buffer_elements": self.buffers,
            "neurons_per_sample": self.neurons,
            "synapses_per_sample": self.synapses,
            "neurons_and_synapses_complete": not self.hidden,
            "dendritic_neurons_per_sample": self.dendritic_neurons,
            "dendrites_essay_mac_per_neuron": per_neuron("essay"),
            "dendrites_direct_mac_per_neuron": per_neuron("direct"),
            "dendrites_executed_mac_per_neuron": per_neuron("executed"),
            "mac_per_sample": self.mac_per_sample,
            "flop_per_sample": self.flop_per_sample,
            "flop_per_neuron": self.flop_per_neuron,
            "flop_per_neuron_and_step": (
                None if self.flop_per_neuron is None else self.flop_per_neuron / self.time_steps
            ),
            "mac_per_neuron": self.mac_per_neuron,
            "mac_per_neuron_and_step": self.mac_per_neuron_step,
            "mac_per_synapse": self.mac_per_synapse,
            "flop_shared_by_the_batch": self.shared_flop,
            "flop_of_each_further_sample": self.own_flop_per_sample,
            "training_forward_flop_per_sample": (
                None if self.training is None else ratio(self.training.flop, self.training_batch)
            ),
            "training_backward_flop_per_sample": self.backward_flop_per_sample,
            "flop_per_byte_moved": self.flop_per_byte,
            "flop_per_byte_compulsory": self.reference.flop / max(1, self.traffic.compulsory_bytes),
            "traffic_per_batch": self.traffic.to_dict(),
            "training_batch_samples": self.training_batch,
            "training_traffic_per_training_batch": (
                None if self.training_traffic is None else self.training_traffic.to_dict()
            ),
            "measured": None if self.measured is None else self.measured.to_dict(),
            "energy_per_sample": self.energy().to_dict(),
            "energy_per_sample_at_measured_firing": (
                None if (at := self.energy_at_rate()) is None else at.to_dict()
            ),
            "fft_cost_model": "1.25 n log2 n MAC for a real transform of n points",
            "counters": {
                name: {
                    "device": counts.device,
                    "mac_per_batch_by_family": dict(counts.macs),
                    "flop_per_batch_by_family": dict(counts.flops),
                    "mac_per_batch_by_operator": dict(counts.operators),
                    "zero_because": dict(counts.zero),
                    "uncounted_calls": dict(counts.uncounted),
                }
                for name, counts in self.counts.items()
            },
            "counters_skipped": dict(self.skipped),
            "counters_shared_families": list(self.shared),
            "counters_agree": self.agree,
            "counters_disagreements": list(self.disagreements),
            "modules_unstated": list(self.unstated),
            "modules_with_hidden_contractions": list(self.hidden),
            "stages": [self._stage(row) for row in self.stages],
        }

    def _stage(self, row: StageRow) -> dict[str, Any]:
        cost = row.cost

        def per_sample(amount: int | None) -> float | None:
            return None if amount is None else ratio(amount, self.batch)

        return {
            "stage": cost.stage,
            "module": row.module,
            "neurons_per_sample": cost.neurons,
            "synapses_per_sample": cost.synapses,
            "essay_mac_per_sample": per_sample(cost.essay),
            "direct_mac_per_sample": per_sample(cost.direct),
            "executed_mac_per_sample": ratio(cost.executed_flop, 2 * self.batch),
            "mac_per_sample_by_family": {f: per_sample(mac) for f, mac in cost.macs.items()},
            "other_flop_per_sample": per_sample(cost.other),
            "share_of_flop": ratio(cost.flop, self.stages_flop) if self.stages_flop else 0.0,
        }
