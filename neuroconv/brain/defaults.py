"""The inputs' defaults, read from `inputs.toml`."""

import tomllib
from pathlib import Path
from typing import Any

from neuroconv.brain.evidence.facts import facts
from neuroconv.brain.inputs import Input, Inputs
from neuroconv.brain.quantity import Quantity, whole
from neuroconv.references import Source

_FILE = Path(__file__).with_name("inputs.toml")


def default_inputs() -> Inputs:
    """Returns the essay's inputs, in ranges that span the literature; a new object each time.

    Raises:
        ValueError: an entry of the file that is not an input.
    """
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return Inputs(_input(name, **table) for name, table in tables.items())


def _input(name: str, unit: str, distribution: Any = "fixed", **numbers: Any) -> Input:
    quantities = {}
    for part, entry in numbers.items():
        title = name if part == "value" else f"{name}.{part}"
        if isinstance(entry, str):
            value, source = facts()[entry].value, facts()[entry].source
        else:
            value, source = entry["value"], Source.parse(entry["source"])
            value = facts().evaluate(value) if isinstance(value, str) else value
        quantities[part] = Quantity(name=title, value=whole(value), unit=unit, source=source)
    return Input(quantity=quantities.pop("value"), distribution=distribution, **quantities)
