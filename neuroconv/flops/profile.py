"""What a model costs: parameters, neurons, and one run counted by up to three counters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuroconv.flops.closed_forms import StageRow, count_closed_form
from neuroconv.flops.exact import count_exact
from neuroconv.flops.fvcore_adapter import count_fvcore
from neuroconv.flops.rules import CONTRACTIONS, Counts
from neuroconv.flops.stand_in import as_inputs

COUNTERS = ("closed_form", "exact", "fvcore")
# A model of more floats would not fit beside itself on most machines.
_FVCORE_PARAMETERS = 2_000_000_000


def ratio(amount: int, parts: int) -> float:
    """amount / parts, an int wherever it is one: past 2**53 a float would lose digits."""
    return amount // parts if amount % parts == 0 else amount / parts


@dataclass(frozen=True)
class Profile:
    """The cost of one run of a model in eval mode. Counts are for the whole batch.

    Attributes:
        name: what the tables call it.
        batch: samples in the run.
        time_steps: time steps in the window (1 for still images).
        parameters: trained floats. frozen_parameters: the others. buffers: elements of buffers.
        neurons: per sample, of the cells and of plain layers (a unit at a position).
        synapses: per sample, of the cells and of plain layers (connections).
        counts: what each counter that ran saw.
        skipped: for each that did not, why.
        stages: the closed form's rows, in the order of execution.
        unstated: modules that ran and that no closed form covers.
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
    def executed_mac(self) -> int | None:
        """Dendrites by the algorithm that runs, its spectral products included."""
        rows = self._dendrites
        return sum(row.cost.executed for row in rows) if rows else None

    @property
    def stages_flop(self) -> int:
        """FLOP of all rows of the closed form."""
        return sum(row.cost.flop for row in self.stages)

    @property
    def shared(self) -> tuple[str, ...]:
        """Contraction families that every counter that ran has seen."""
        counts = self.counts.values()
        return tuple(f for f in CONTRACTIONS if counts and all(f in c.macs for c in counts))

    @property
    def disagreements(self) -> tuple[str, ...]:
        """One line for each contraction family on which the counters differ.

        A family that one counter saw and another did not is a disagreement: every counter has a
        rule for each.
        """
        lines = []
        for family in CONTRACTIONS:
            seen = {name: counts.macs.get(family, 0) for name, counts in self.counts.items()}
            if len(set(seen.values())) > 1:
                lines.append(
                    f"{family}: " + ", ".join(f"{name} {mac:,} MAC" for name, mac in seen.items())
                )
        return tuple(lines)

    @property
    def agree(self) -> bool | None:
        """All counters that ran are equal to the last digit; None if fewer than two ran."""
        return None if len(self.counts) < 2 else not self.disagreements

    @property
    def reference(self) -> Counts:
        """The counts that totals are taken from: the exact counter's, if it ran."""
        order = ("exact", "fvcore", "closed_form")
        return next(self.counts[name] for name in order if name in self.counts)

    @property
    def mac(self) -> int:
        """Multiply-adds of all that is linear: contractions, and at two FLOPs each the products of
        synapses and of an FFT's spectra. Norms and activations are in `flop_per_sample`, as those
        of plain layers are."""
        products = sum(row.cost.pointwise // 2 for row in self.stages if row.cost.linear)
        return self.reference.mac + products

    @property
    def mac_per_sample(self) -> float:
        """`mac` by sample."""
        return ratio(self.mac, self.batch)

    @property
    def flop_per_sample(self) -> float:
        """2 x MAC of the contractions, and the FLOPs of every other operator, by sample."""
        return ratio(self.reference.flop, self.batch)

    @property
    def flop_per_neuron(self) -> float | None:
        """`flop_per_sample` by neuron, every operator counted; None without neurons."""
        return ratio(self.reference.flop, self.batch * self.neurons) if self.neurons else None

    @property
    def mac_per_neuron(self) -> float | None:
        """`mac` by sample and neuron; None for a model without neurons."""
        return ratio(self.mac, self.batch * self.neurons) if self.neurons else None

    @property
    def mac_per_neuron_step(self) -> float | None:
        """`mac` by sample, neuron and time step; None for a model without neurons."""
        steps = self.batch * self.neurons * self.time_steps
        return ratio(self.mac, steps) if steps else None

    def dendritic_mac_per_neuron(self, column: str) -> float | None:
        """Dendrites' MAC by dendritic neuron; column is "essay", "direct" or "executed"."""
        columns = {
            "essay": self.essay_mac, "direct": self.direct_mac, "executed": self.executed_mac
        }  # fmt: skip
        amount = columns[column]
        return None if amount is None else ratio(amount, self.batch * self.dendritic_neurons)

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
            "fft_cost_model": "1.25 n log2 n MAC for a real transform of n points",
            "counters": {
                name: {
                    "device": counts.device,
                    "mac_per_batch_by_family": dict(counts.macs),
                    "flop_per_batch_by_family": dict(counts.flops),
                    "mac_per_batch_by_operator": dict(counts.operators),
                    "uncounted_calls": dict(counts.uncounted),
                }
                for name, counts in self.counts.items()
            },
            "counters_skipped": dict(self.skipped),
            "counters_shared_families": list(self.shared),
            "counters_agree": self.agree,
            "counters_disagreements": list(self.disagreements),
            "modules_unstated": list(self.unstated),
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
            "executed_mac_per_sample": per_sample(cost.executed),
            "mac_per_sample_by_family": {f: per_sample(mac) for f, mac in cost.macs.items()},
            "other_flop_per_sample": per_sample(cost.other),
            "share_of_flop": ratio(cost.flop, self.stages_flop) if self.stages_flop else 0.0,
        }


def profile(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    name: str | None = None,
    counters: Sequence[str] = COUNTERS,
    device: str = "meta",
    fvcore_device: str = "cpu",
    fvcore_limit: int = 20_000_000_000,
    time_steps: int | None = None,
) -> Profile:
    """Count what one run of a model in eval mode costs, by counters independent of each other.

    Args:
        model: any module, on any device, meta included; it is left as it was.
        inputs: a tensor or a tuple of tensors to call it with, the batch first. Their device does
            not matter.
        name: for the tables; default the class's.
        counters: any of "closed_form", "exact", "fvcore".
        device: where the closed form and the exact counter run: "meta" (takes no memory and no
            arithmetic), "cpu" or "cuda".
        fvcore_device: "cpu" or "cuda": fvcore runs the model.
        fvcore_limit: MAC above which fvcore is skipped.
        time_steps: steps in the window; default the third axis of a first input of three or five
            axes, (batch, axons, steps) or (batch, channels, steps, height, width), if a module has
            a `time_steps`; for other inputs that attribute's value, else 1.

    Raises:
        TypeError: inputs that are not tensors.
        ValueError: an unknown counter, an empty batch, a device that is missing, or a model that
            does not run on meta tensors.
    """
    unknown = [counter for counter in counters if counter not in COUNTERS]
    if unknown or not counters:
        raise ValueError(f"counters={tuple(counters)!r}; expected some of {', '.join(COUNTERS)}")
    items = as_inputs(inputs)
    closed = count_closed_form(model, items, device=device)
    counts: dict[str, Counts] = {}
    skipped: dict[str, str] = {}
    if "closed_form" in counters:
        counts["closed_form"] = closed.counts
    if "exact" in counters:
        counts["exact"] = count_exact(model, items, device=device)
    if "fvcore" in counters:
        executed = sum(row.cost.executed for row in closed.rows)
        size = sum(parameter.numel() for parameter in model.parameters())
        if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
            skipped["fvcore"] = "the model is on meta, and fvcore needs real tensors"
        elif executed > fvcore_limit:
            skipped["fvcore"] = f"{executed:,} MAC is more than fvcore_limit={fvcore_limit:,}"
        elif size > _FVCORE_PARAMETERS:
            skipped["fvcore"] = f"{size:,} parameters are more than {_FVCORE_PARAMETERS:,}"
        else:
            try:
                counts["fvcore"] = count_fvcore(model, items, device=fvcore_device)
            except ValueError as error:  # it says what hides the cost from fvcore
                skipped["fvcore"] = str(error)
    if not counts:
        raise ValueError(f"no counter ran: {skipped}; add 'exact' or 'closed_form' to counters")

    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
    if time_steps is None:
        found = (getattr(module, "time_steps", None) for module in model.modules())
        time_steps = next((steps for steps in found if isinstance(steps, int)), None)
        if time_steps is None:
            time_steps = 1
        elif items[0].dim() in (3, 5):
            time_steps = items[0].shape[2]
    return Profile(
        name=type(model).__name__ if name is None else name,
        batch=items[0].shape[0],
        time_steps=time_steps,
        parameters=sum(trained),
        frozen_parameters=sum(frozen),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        neurons=sum(row.cost.neurons for row in closed.rows),
        synapses=sum(row.cost.synapses for row in closed.rows),
        counts=counts,
        skipped=skipped,
        stages=closed.rows,
        unstated=tuple(closed.counts.uncounted),
    )
