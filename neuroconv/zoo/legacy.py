"""Translation of the tables of version 0.4.0, whose keywords were flat."""

import tomllib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from neuroconv.neurons.stages import merge

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_CELLS = ("granule", "purkinje")
_WIRINGS = {"parallel": "in_order", "sparse": "random", "dense": "all_to_all"}


def translate(table: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a [model] or [[opponents]] table of version 0.4.0; returns today's as they are."""
    name = str(table.get("name", ""))
    old = {key: value for key, value in table.items() if key in _renamed(name)}
    if isinstance(old.get("nuclei"), Mapping):  # the one keyword whose name is the same today
        del old["nuclei"]
    new = {key: value for key, value in table.items() if key not in old}
    if name.startswith("cerebellum"):
        new = merge(new, _pop_circuit(old))
    if not old.get("pull"):  # without a pull there was no spike
        for key in ("pull", "spike_signal", "spike_threshold"):
            old.pop(key, None)
    for key, value in old.items():
        for path in _paths(name, key):
            new = merge(new, reduce(lambda inner, part: {part: inner}, reversed(path), value))
    return new


def _renamed(name: str) -> Mapping[str, str]:
    return _TABLES.get("cerebellum" if name.startswith("cereb") else name, {})


def _paths(name: str, key: str) -> list[list[str]]:
    """Returns the paths of an old keyword in today's nested tables."""
    path = _renamed(name)[key]
    cells = _CELLS if path.startswith("*") else ("",)
    return [path.replace("*", cell).split(".") for cell in cells]


def _pop_circuit(old: dict[str, Any]) -> dict[str, Any]:
    """Pops the keywords whose values changed too from `old`, and returns their new tables."""
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
