"""Tables of version 0.4.0's builders, whose keywords were flat, as today's."""

from collections.abc import Mapping
from typing import Any

from neuroconv.neurons.stages import merge

_CELLS = ("granule", "purkinje")  # both took most of the keywords
_CEREBELLUM = {
    "granule_cells": ("granule.cells",),
    "golgi_cells": ("golgi.cells",),
    "purkinje_cells": ("purkinje.cells",),
    "nuclei": ("nuclei.cells",),
    "patch": ("granule.wiring.patch",),
    "granule_mode": ("granule.tree.mode",),
    "purkinje_sheet": ("purkinje.tree.sheet",),
    "purkinje_filter": ("purkinje.tree.filter",),
    "purkinje_mode": ("purkinje.tree.mode",),
    "purkinje_wiring": ("purkinje.wiring.kind",),
    "purkinje_unit_taps": ("purkinje.taps.equalized_lr",),
    "freeze_purkinje_filters": ("purkinje.taps.trainable",),
    "checkpoint": ("purkinje.checkpoint",),
    "diffusion": tuple(f"{cells}.taps.cable" for cells in _CELLS),
    "excitatory": tuple(f"{cells}.synapse.excitatory" for cells in _CELLS),
    "vesicles": tuple(f"{cells}.synapse.factorized" for cells in _CELLS),
    "transmitters": tuple(f"{cells}.synapse.transmitters" for cells in _CELLS),
    "threshold": tuple(f"{cells}.threshold" for cells in _CELLS),
    "norm": tuple(f"{cells}.norm" for cells in _CELLS),
    "pull": tuple(f"{cells}.spike.strength" for cells in _CELLS),
    "spike_signal": tuple(f"{cells}.spike.signal" for cells in _CELLS),
    "linear_dendrites": tuple(f"{cells}.rate.linear" for cells in _CELLS),
    "law": tuple(f"{cells}.summation" for cells in _CELLS),
    "soma_time_steps": tuple(f"{cells}.soma.time_steps" for cells in _CELLS),
    "mean_wait": ("granule.output.mean_wait",),
    "dropout_mode": ("granule.output.mode",),
    "dropout_scope": ("granule.unit_dropout",),
    "output": ("granule.output.kind",),
}
_UNITS = {
    "wiring": ("unit.wiring",),
    "norm": ("unit.norm",),
    "threshold": ("unit.threshold",),
    "pull": ("unit.spike.strength",),
    "spike_threshold": ("unit.spike.threshold",),
    "spike_signal": ("unit.spike.signal",),
    "linear_dendrites": ("unit.linear_dendrites",),
    "law": ("unit.summation",),
    "soma_time_steps": ("unit.soma.time_steps",),
    "mean_wait": ("unit.output.mean_wait",),
    "dropout_mode": ("unit.output.mode",),
}
_PATHS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "cerebellum_tiny": _CEREBELLUM,
    "cerebellum_small": _CEREBELLUM,
    "cerebellum_base": _CEREBELLUM,
    "granule_convnet": _UNITS,
    "granule_convnet_conv3d": {"wiring": _UNITS["wiring"]},
    "resnet18_granule": {key: _UNITS[key] for key in ("wiring", "norm", "mean_wait")},
}
_WIRINGS = {"parallel": "in_order", "sparse": "random", "dense": "all_to_all"}


def new_keywords(name: str) -> dict[str, str]:
    """Returns the new forms of a builder's old keywords, for messages."""
    old = {key: paths for key, paths in _PATHS.get(name, {}).items() if key != "nuclei"}
    return {key: " and ".join(map(_nested, paths)) for key, paths in old.items()}


def translate(table: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a [model] or [[opponents]] table of version 0.4.0; today's come back as they are.

    Args:
        table: the keywords of `create_model`, `name` among them, and others that are left alone.
    """
    paths = _PATHS.get(table.get("name", ""), {})
    old = {key: value for key, value in table.items() if key in paths}
    if isinstance(old.get("nuclei"), Mapping):  # the one keyword whose name is the same today
        del old["nuclei"]
    new = {key: value for key, value in table.items() if key not in old}
    if paths is _CEREBELLUM:
        new = merge(new, _circuit(old))
    if not old.get("pull"):  # without a pull there was no spike
        old = {
            key: old[key] for key in old if key not in ("pull", "spike_signal", "spike_threshold")
        }
    for key, value in old.items():
        for path in paths[key]:
            for part in reversed(path.split(".")):
                value = {part: value}
            new = merge(new, value)
            value = old[key]
    return new


def _circuit(old: dict[str, Any]) -> dict[str, Any]:
    """Takes out of `old` what is more than a new name, and returns it in its new form."""
    new: dict[str, Any] = {}
    if (wiring := old.pop("purkinje_wiring", None)) is not None:
        new = merge(new, {"purkinje": {"wiring": {"kind": _WIRINGS.get(wiring, wiring)}}})
    if (diffusion := old.pop("diffusion", "learned")) != "learned":
        taps = {"cable": "purkinje", "trainable": diffusion != "held"}
        new = merge(new, {cells: {"taps": taps} for cells in _CELLS})
    if old.pop("freeze_purkinje_filters", False):
        new = merge(new, {"purkinje": {"taps": {"trainable": False}}})
    dropout = {"mean_wait": old.pop("mean_wait", None), "mode": old.pop("dropout_mode", None)}
    dropout = {key: value for key, value in dropout.items() if value is not None}
    output, scope = old.pop("output", "rate"), old.pop("dropout_scope", "neuron")
    if output == "spikes":
        new = merge(new, {"granule": {"output": {"kind": "poisson_spikes"}}})
    elif output == "release":
        dropout.pop("mode", None)
        new = merge(new, {"granule": {"output": {"kind": "release_or_wait", **dropout}}})
    elif dropout or scope == "unit":
        stage = "unit_dropout" if scope == "unit" else "output"
        new = merge(new, {"granule": {stage: dropout}})
    return new


def _nested(path: str) -> str:
    """ "a.b.c" as a=..., the keyword of a builder."""
    first, *rest = path.split(".")
    table = "..."
    for key in reversed(rest):
        table = f'{{"{key}": {table}}}'
    return f"{first}={table}"
