"""A number of the brain report: never without its unit and its source."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroconv.references import Source


@dataclass(frozen=True)
class Quantity:
    """A number with its unit and its source.

    Attributes:
        name: lower case, parts joined by dots: "purkinje.cells".
        value: an int stays an int, of any size.
        unit: "1" for a pure number.

    Raises:
        ValueError: no name, no unit, or a value that is not a finite number.
    """

    name: str
    value: float
    unit: str
    source: Source

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.unit.strip():
            raise ValueError(
                f"name={self.name!r}, unit={self.unit!r}; expected both, unit 1 if none"
            )
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not is_number or not math.isfinite(self.value):
            raise ValueError(f"{self.name}={self.value!r}; expected a finite number")

    @property
    def shown(self) -> str:
        """The value as tables have it: 1.075e21, 2e16, 400."""
        return scientific(self.value, trim=True)

    def to_dict(self) -> dict[str, Any]:
        """Returns name, value, unit, source and the addresses that the source leads to."""
        texts = {"source": str(self.source), "urls": list(self.source.urls)}
        return {"name": self.name, "value": self.value, "unit": self.unit, **texts}


def derived(name: str, value: float, unit: str, basis: str, note: str = "") -> Quantity:
    """Returns a number that follows from others, which `basis` names."""
    return Quantity(name, value, unit, Source("derived", basis, note))


def plain(data: Any) -> Any:
    """Returns data as JSON has it: quantities, sources, dataclasses and mappings as plain data."""
    if isinstance(data, Quantity):
        return data.to_dict()
    if isinstance(data, Source):
        return str(data)
    if dataclasses.is_dataclass(data):
        data = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    return [plain(value) for value in data] if isinstance(data, list | tuple) else data


def whole(value: float) -> float:
    """Returns an integral float as an int, which stays exact at any size."""
    return int(value) if float(value).is_integer() else value


def scientific(value: float, digits: int = 4, trim: bool = False) -> str:
    """Formats a number for a table: 1.075e21, 400, 2.4. Trimmed, 1.000e21 is 1e21."""
    if value == 0 or 1e-3 <= abs(value) < 10**6:
        return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if trim and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"
