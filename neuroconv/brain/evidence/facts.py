"""The facts that the report rests on, read from the TOML files beside this module.

Each has its source; what follows from other facts is a formula.
"""

import tomllib
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from neuroconv.brain.quantity import Quantity, Worksheet, derived, whole
from neuroconv.brain.readings import READINGS
from neuroconv.brain.updates import update_of
from neuroconv.core.arguments import as_argument
from neuroconv.neurons.presets import PRESETS, UNITS
from neuroconv.references import Source

_CELLS = ("granule", "purkinje", "pyramidal")
_FACTS = ("essay.toml", "published.toml", "machines.toml")
RowType = TypeVar("RowType")


@cache
def facts() -> Worksheet:
    """Returns all facts by name; they are cached and must not be changed.

    Names are those of the TOML files; `purkinje.rate_hz` is a number of the essay's preset,
    `purkinje.literature.rate_hz` one of the literature's; `purkinje.essay_mac` are the
    multiply-adds of one update of the essay's cell under a reading, from modules' closed forms.
    """
    sheet = Worksheet()
    for (cell, variant), numbers in PRESETS.items():
        prefix = cell if variant == "dettmers2015" else f"{cell}.{variant}"
        for field, source in numbers.sources.items():
            value = getattr(numbers, field)
            if isinstance(value, int | float) and not isinstance(value, bool):
                sheet.add(Quantity(f"{prefix}.{field}", whole(value), UNITS[field], source))
    for cell in _CELLS:
        essay = PRESETS[cell, "dettmers2015"]
        source, (branches, _, time_steps) = essay.sources["filter_shape"], essay.filter_shape
        sheet.add(Quantity(f"{cell}.branches", branches, "branches", source))
        sheet.add(Quantity(f"{cell}.time_steps", time_steps, "steps", source))
    values = {name: fact.value for name, fact in sheet.items()}
    values["time_steps"] = values["purkinje.time_steps"]
    for cell in _CELLS:
        for reading in ("essay", "executed", "cached", "linear_collapse"):
            mac = update_of(READINGS[reading], cell, values).mac
            basis = f"closed form of the modules of [dettmers2015]'s cell, read as `{reading}`"
            sheet.add(derived(f"{cell}.{reading}_mac", mac, "MAC", basis))
    mac = update_of(READINGS["published"], "granule", values).mac
    basis = "granule synapses of [dettmers2015] through its Purkinje cell's filter, closed form"
    sheet.add(derived("granule.crossed_mac", mac, "MAC", basis))
    for name in _FACTS:
        for key, entry in read_toml(name)["facts"].items():
            try:
                add_fact(sheet, key, entry)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {key}: {error}") from None
    return sheet


def add_fact(sheet: Worksheet, name: str, entry: Mapping[str, Any]) -> None:
    """Adds a fact to the sheet; raises ValueError for an entry that is none.

    An entry is {value, unit, source}, the value a number or a formula without names; or {formula,
    unit} and perhaps {basis, note}.
    """
    if set(entry) == {"value", "unit", "source"}:
        value, source = sheet.evaluate(entry["value"]), Source.parse(entry["source"])
        sheet.add(Quantity(name, value, entry["unit"], source))
    elif {"formula", "unit"} <= set(entry) <= {"formula", "unit", "basis", "note"}:
        sheet.derive(name, **entry)
    else:
        raise ValueError(
            f"has {', '.join(entry)}; expected value, unit and source, or formula and unit "
            "(with basis and note, if any)"
        )


def read_toml(name: str) -> dict[str, Any]:
    """Reads a TOML file of this folder."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def read_rows(name: str, key: str, row_type: type[RowType]) -> tuple[RowType, ...]:
    """Reads the tables [[key]] of a TOML file of this folder as dataclasses.

    A field's type says what its value is: a `Source` is parsed, a `Quantity` is the name of a fact,
    texts are filled in with facts; a number may be a formula. Raises ValueError for anything else.
    """
    hints = get_type_hints(row_type)
    rows = []
    for number, table in enumerate(read_toml(name)[key], 1):
        values = {}
        for field, value in table.items():
            position = f"{name}: [[{key}]] {number}: {field}={value!r}"
            if field not in hints:
                raise ValueError(f"{position} is unknown; expected one of {', '.join(hints)}")
            try:
                values[field] = as_argument("value", _converted(value, hints[field]), hints[field])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{position}: {error}") from None
        try:
            rows.append(row_type(**values))
        except TypeError as error:  # a missing key
            raise ValueError(f"{name}: [[{key}]] {number}: {error}") from None
    return tuple(rows)


def _converted(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(_converted(item, get_args(hint)[0]) for item in value)
    if not isinstance(value, str):
        return value
    choices = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if Source in choices:
        return Source.parse(value)
    if Quantity in choices:
        if value not in facts():
            raise ValueError(f"{value!r} is not the name of a fact")
        return facts()[value]
    return facts().evaluate(value) if float in choices else facts().fill(value)
