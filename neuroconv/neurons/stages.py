"""Stages of a neuron, built from objects, names or plain tables, as TOML has them."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from torch import nn

from neuroconv.core.checks import did_you_mean
from neuroconv.core.renamed import SPIKE
from neuroconv.layers.cable import Cable
from neuroconv.layers.dendrite import DendriticRate, Taps
from neuroconv.layers.poisson import PoissonDropout, PoissonSpikes, ReleaseOrWait
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.spike import DendriticSpike
from neuroconv.layers.summation import DendriticSummation
from neuroconv.layers.synapse import Synapse
from neuroconv.layers.tree_shape import TreeShape
from neuroconv.layers.wiring import (
    AllToAll,
    InOrder,
    ParallelFibres,
    Random,
    ReceptiveField,
    Wiring,
)
from neuroconv.neurons.presets import Physiology, preset

Table = Mapping[str, Any]
Output = PoissonDropout | PoissonSpikes | ReleaseOrWait
Kinds = Mapping[str, Callable[..., Any]]
Stage = TypeVar("Stage")

WIRINGS: Kinds = MappingProxyType(
    {
        "random": Random,
        "parallel_fibres": ParallelFibres,
        "receptive_field": ReceptiveField,
        "in_order": InOrder,
        "all_to_all": AllToAll,
    }
)
OUTPUTS: Kinds = MappingProxyType(
    {
        "poisson_dropout": PoissonDropout,
        "poisson_spikes": PoissonSpikes,
        "release_or_wait": ReleaseOrWait,
    }
)


def build(argument: str, value: Any, kinds: Kinds, **defaults: Any) -> Any:
    """Builds a stage from the name of its kind or a table; returns an object as it is.

    Args:
        argument: its name, for messages.
        value: an object of one of the kinds or any nn.Module, returned as it is; a kind's name; or
            a table of one kind's arguments, with the name of the kind under "kind".
        kinds: constructors by name. The first is the kind of a table that names none.
        **defaults: arguments that a table may leave out, for the kinds that take them.

    Raises:
        TypeError: something else, an unknown key, or a key that is missing.
        ValueError: an unknown kind, or a value that the constructor refuses.
    """
    classes = tuple(kind for kind in kinds.values() if isinstance(kind, type))
    if isinstance(value, (nn.Module, *classes)):
        return value
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise TypeError(
            f"{argument}={value!r}; expected a table, or "
            + (f"a name of {', '.join(kinds)}" if len(kinds) > 1 else f"a {classes[0].__name__}")
        )
    table = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
    kind = table.pop("kind", next(iter(kinds))) if len(kinds) > 1 else next(iter(kinds))
    if kind not in kinds:
        raise ValueError(f"{argument}={kind!r} is unknown; {_nearest(str(kind), kinds)}")
    parameters = inspect.signature(kinds[kind]).parameters
    for key in table:
        if key not in parameters:
            now = f"it is now {SPIKE[key]!r}; " if key in SPIKE else ""
            raise TypeError(f"{argument} has no {key!r}; {now}{_nearest(key, parameters)}")
    table = {key: v for key, v in defaults.items() if key in parameters} | table
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in table:
            raise TypeError(
                f"{argument} of the kind {kind!r} needs {key!r}; it takes {[*parameters]}"
            )
    try:
        return kinds[kind](**table)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def merge(*tables: Table | None, **keywords: Any) -> dict[str, Any]:
    """Merges tables into one, the later over the earlier, and tables within them likewise.

    A table of another "kind" than the one below it replaces it whole.
    """
    merged: dict[str, Any] = {}
    for table in (*tables, keywords):
        for key, value in (table or {}).items():
            if isinstance(value, Mapping):
                below = merged.get(key)
                same = isinstance(below, Mapping) and below.get("kind") == value.get(
                    "kind", below.get("kind")
                )
                value = merge(below if same else None, value)
            merged[key] = value
    return merged


def is_absent(stage: nn.Module) -> bool:
    """Whether an nn.Identity stands in for a stage that the neuron does not have."""
    return type(stage) is nn.Identity


def build_tree(tree: TreeShape | Table | None, numbers: Physiology) -> TreeShape:
    """Completes a tree by the preset's sizes; a sheet of the caller's is filled with synapses."""
    if isinstance(tree, TreeShape):
        return tree if tree.filter else replace(tree, filter=numbers.filter_shape)
    table = {} if tree is None else tree
    sizes: dict[str, Any] = {"sheet": numbers.sheet_shape, "filter": numbers.filter_shape}
    if isinstance(table, Mapping) and "sheet" not in table:
        sizes["synapses"] = numbers.synapses
    return _build_one("tree", table, TreeShape, **sizes)


def build_wiring(wiring: Wiring | Table | str | None, claw: bool) -> Wiring:
    """Completes a wiring by the preset's `claw`, where the wiring has one and leaves it open."""
    result: Wiring = build("wiring", wiring or Random(), WIRINGS)
    if isinstance(result, Random | ReceptiveField) and result.claw is None:
        return replace(result, claw=claw)
    return result


def build_synapse(synapse: Synapse | Table | None) -> Synapse:
    return _build_one("synapse", synapse, Synapse)


def build_taps(taps: Taps | Table | None) -> Taps:
    """Completes taps, whose `cable` may be a table, or the name of a cell whose cable is taken."""
    if isinstance(taps, Mapping) and not isinstance(cable := taps.get("cable"), Cable | None):
        if isinstance(cable, str):
            cable = preset(cable, "literature").cable()
        taps = {**taps, "cable": _build_one("taps.cable", cable, Cable)}
    return _build_one("taps", taps, Taps)


def build_spike(spike: DendriticSpike | Table | None) -> nn.Module:
    return nn.Identity() if spike is None else _build_one("spike", spike, DendriticSpike)


def build_rate(rate: DendriticRate | Table | None) -> DendriticRate:
    return _build_one("rate", rate, DendriticRate)


def build_summation(
    summation: DendriticSummation | Table | str, scale: float = 1.0
) -> DendriticSummation:
    """Builds a summation from its law's name too; `scale` is for a table that leaves it out."""
    table = {"law": summation} if isinstance(summation, str) else summation
    return _build_one("summation", table, DendriticSummation, scale=scale)


def build_soma(soma: SomaFilter | Table | None, time_steps: int) -> SomaFilter:
    return _build_one("soma", soma, SomaFilter, time_steps=time_steps)


def build_output(output: Output | Table | str | None, mean_wait: float, **scope: str) -> Output:
    """Builds Poisson dropout of the given mean wait, unless an output stage says otherwise."""
    table = {} if output is None else output
    stage: Output = build("output", table, OUTPUTS, mean_wait=mean_wait, **scope)
    return stage


def build_unit_dropout(dropout: PoissonDropout | Table | None, mean_wait: float) -> nn.Module:
    """Builds dropout on the sheet, where each position draws for itself.

    Raises:
        ValueError: a dropout whose scope is another.
    """
    if dropout is None:
        return nn.Identity()
    stage = _build_one("unit_dropout", dropout, PoissonDropout, mean_wait=mean_wait, scope="unit")
    if isinstance(stage, PoissonDropout) and stage.scope != "unit":
        raise ValueError(f"unit_dropout={stage}; expected scope='unit'")
    return stage


def _build_one(argument: str, value: Any, kind: Callable[..., Stage], **defaults: Any) -> Stage:
    """Builds a stage of which there is one kind; None takes its defaults."""
    stage: Stage = build(argument, {} if value is None else value, {argument: kind}, **defaults)
    return stage


def _nearest(word: str, options: Iterable[str]) -> str:
    return f"{did_you_mean(word, options)}expected one of {', '.join(options) or 'none'}"
