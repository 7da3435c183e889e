"""Stages of a neuron, built from objects, names or plain tables, as TOML has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import nn

from neuroconv.core.arguments import argument as named
from neuroconv.core.checks import NormOver, expected_one_of
from neuroconv.core.cost import Cost
from neuroconv.core.shares import NeuronShare
from neuroconv.layers.cable import Cable
from neuroconv.layers.dendrite import DendriticRate, Taps
from neuroconv.layers.poisson import PoissonDropout, PoissonSpikes
from neuroconv.layers.release import ReleaseOrWait
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.step_norm import StepBatchNorm
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses, Synapse
from neuroconv.layers.threshold import ThresholdNorm
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import (
    AllToAll,
    DendriticFields,
    InOrder,
    ParallelFibres,
    Random,
    ReceptiveField,
    Wiring,
)
from neuroconv.neurons.presets import Physiology, preset

Table = Mapping[str, Any]
Output = PoissonDropout | PoissonSpikes | ReleaseOrWait
Kinds = Mapping[str, type]
Stage = TypeVar("Stage")

WIRINGS: Kinds = {
    "random": Random,
    "parallel_fibres": ParallelFibres,
    "receptive_field": ReceptiveField,
    "dendritic_fields": DendriticFields,
    "in_order": InOrder,
    "all_to_all": AllToAll,
}
OUTPUTS: Kinds = {
    "poisson_dropout": PoissonDropout,
    "poisson_spikes": PoissonSpikes,
    "release_or_wait": ReleaseOrWait,
}


_parameters = cache(lambda kind: signature(kind).parameters)


def build(argument: str, value: Any, kinds: Kinds, **defaults: Any) -> Any:
    """Builds a stage from the name of its kind or a table; returns an object as it is.

    Args:
        argument: its name, for messages.
        value: an object of one of the kinds, or any nn.Module; a kind's name; or a table of one
            kind's arguments, with the name of the kind under "kind".
        kinds: classes by name. The first is the kind of a table that names none.
        **defaults: arguments that a table may leave out, for the kinds that take them.

    Raises:
        TypeError: something else, an unknown key, or a key that is missing.
        ValueError: an unknown kind, or a value that the class refuses.
    """
    classes, several = tuple(kinds.values()), len(kinds) > 1
    if isinstance(value, (nn.Module, *classes)):
        return value
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        other = f"a name of {', '.join(kinds)}" if several else f"a {classes[0].__name__}"
        raise TypeError(f"{argument}={value!r}; expected a table, or {other}")
    table, kind = dict(table), next(iter(kinds))
    kind = table.pop("kind", kind) if several else kind
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{argument}={kind!r} is unknown; {expected_one_of(kind, kinds)}")
    table = {key: v for key, v in defaults.items() if key in _parameters(kinds[kind])} | table
    with named(argument):
        return kinds[kind](**table)


def build_single(argument: str, value: Any, kind: type[Stage], **defaults: Any) -> Stage:
    """Builds a stage that has a single kind; None takes its defaults."""
    return build(argument, {} if value is None else value, {argument: kind}, **defaults)


def merge(*tables: Table | None, **keywords: Any) -> dict[str, Any]:
    """Merges tables into one, the later over the earlier, and tables within them likewise.

    A table of another "kind" than the one below it replaces it whole.
    """
    merged: dict[str, Any] = {}
    for table in (*tables, keywords):
        for key, value in (table or {}).items():
            below = merged.get(key)
            if isinstance(value, Mapping):
                kind = below.get("kind") if isinstance(below, Mapping) else None
                same = isinstance(below, Mapping) and kind == value.get("kind", kind)
                value = merge(below if same else None, value)
            merged[key] = value
    return merged


def is_absent(stage: nn.Module) -> bool:
    """Returns whether an nn.Identity stands in for a stage that the neuron does not have."""
    return type(stage) is nn.Identity


def stage_costs(stage: Any, shape: Sequence[int]) -> tuple[Cost, ...]:
    """Returns the closed form of a stage that may be absent."""
    return () if is_absent(stage) else stage.closed_form(torch.Size(shape))


def build_tree(tree: TreeShape | Table | None, numbers: Physiology) -> TreeShape:
    """Completes a tree by the preset's sizes; a sheet of the caller's is filled with synapses."""
    if isinstance(tree, TreeShape):
        return tree if tree.filter else replace(tree, filter=numbers.filter_shape)
    sizes: dict[str, Any] = {"sheet": numbers.sheet_shape, "filter": numbers.filter_shape}
    if tree is None or (isinstance(tree, Mapping) and "sheet" not in tree):
        sizes["synapses"] = numbers.synapses
    return build_single("tree", tree, TreeShape, **sizes)


def build_wiring(wiring: Wiring | Table | str | None, claw: bool) -> Wiring:
    """Completes a wiring by the preset's `claw`, where the wiring has one and leaves it open."""
    result: Wiring = build("wiring", Random() if wiring is None else wiring, WIRINGS)
    if isinstance(result, Random | ReceptiveField) and result.claw is None:
        return replace(result, claw=claw)
    return result


def build_synapses(
    synapse: Synapse | Table | None, wiring: Wiring, in_features: int, share: NeuronShare,
    tree: TreeShape,
) -> SparseSynapses | DenseSynapses:  # fmt: skip
    weights = build_single("synapse", synapse, Synapse)
    axons = wiring.axons(in_features, share.neurons, tree, share.rows)
    options: Any = {"factorized": weights.factorized, "transmitters": weights.transmitters}
    options["signs"] = weights.signs(in_features)
    if axons is None:
        return DenseSynapses(in_features, share.local, tree, **options)
    claw = bool(getattr(wiring, "claw", False))
    return SparseSynapses(axons, in_features, tree.sheet, claw=claw, **options)


def build_taps(taps: Taps | Table | None) -> Taps:
    """Completes taps, whose `cable` may be a table, or the name of a cell whose cable is used."""
    if isinstance(taps, Mapping) and not isinstance(cable := taps.get("cable"), Cable | None):
        if isinstance(cable, str):
            with named("taps.cable"):
                cable = preset(cable, "literature").cable()
        taps = {**taps, "cable": build_single("taps.cable", cable, Cable)}
    return build_single("taps", taps, Taps)


def build_norm(
    present: bool, kind: Callable[[int], nn.Module], features: int, over: NormOver
) -> nn.Module:
    """Builds torch's batch norm of a kind, `StepBatchNorm` for "step", or the absent one."""
    if not present:
        return nn.Identity()
    return kind(features) if over == "window" else StepBatchNorm(features)


def build_threshold(
    threshold: float | None, features: int, empty: int = 0, over: NormOver = "window"
) -> nn.Module:
    if threshold is None:
        return nn.Identity()
    return ThresholdNorm(features, threshold, empty_positions=empty, norm_over=over)


def build_spike(spike: nn.Module | Table | None) -> nn.Module:
    return nn.Identity() if spike is None else build_single("spike", spike, DendriticSpike)


def build_rate(rate: nn.Module | Table | None, law: str) -> DendriticRate:
    """Builds a rate with the given law within a dendrite, unless it names one or is linear."""
    if isinstance(rate, Mapping) and rate.get("linear"):
        law = "linear"
    return build_single("rate", rate, DendriticRate, law=law)


def build_summation(summation: nn.Module | Table | str, scale: float = 1.0) -> DendriticSummation:
    """Builds a summation from its law's name too; `scale` is for a table that leaves it out."""
    table = {"law": summation} if isinstance(summation, str) else summation
    return build_single("summation", table, DendriticSummation, scale=scale)


def build_output(output: nn.Module | Table | str | None, mean_wait: float, **scope: str) -> Output:
    """Builds Poisson dropout of the given mean wait, unless an output stage says otherwise."""
    return build("output", {} if output is None else output, OUTPUTS, mean_wait=mean_wait, **scope)


def build_unit_dropout(dropout: nn.Module | Table | None, mean_wait: float) -> nn.Module:
    """Builds dropout on the sheet, where each position draws for itself."""
    if dropout is None:
        return nn.Identity()
    stage = build_single("unit_dropout", dropout, PoissonDropout, mean_wait=mean_wait, scope="unit")
    if isinstance(stage, PoissonDropout) and stage.scope != "unit":
        raise ValueError(f"unit_dropout={stage}; expected scope='unit'")
    return stage
