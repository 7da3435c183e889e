"""A number of the brain report: never without its unit and its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from neuroconv.references import Source


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with what is needed to check it.

    Attributes:
        name: lower case, parts joined by dots: "purkinje.cells".
        value: an int stays an int, of any size.
        unit: of the value; "1" for a pure number.
        source: where it comes from.

    Raises:
        ValueError: no name, no unit, or a value that is no finite number.
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
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise ValueError(f"{self.name}={self.value!r}; expected a number")
        if not math.isfinite(self.value):
            raise ValueError(f"{self.name}={self.value!r}; expected a finite number")

    @property
    def shown(self) -> str:
        """The value as tables have it: 1.075e21, 2e16, 400."""
        return scientific(self.value, trim=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: name, value, unit, source and the addresses that the source leads to."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "source": str(self.source),
            "urls": list(self.source.urls),
        }


def whole(value: float) -> float:
    """An integral float as an int, which stays exact at any size."""
    return int(value) if float(value).is_integer() else value


def derived(name: str, value: float, unit: str, how: str, note: str = "") -> Quantity:
    """A number that follows from others, which `how` names."""
    return Quantity(name=name, value=value, unit=unit, source=Source("derived", how, note))


# Units that a key may end in instead: "measured_s", "year".
_KEY_UNITS = (
    *("year", "hz", "s", "ms", "j", "pj", "w", "flop", "mac", "bytes", "share"),
    *("flop_per_s", "mac_per_s"),
)


def bare_numbers(data: Any, place: str = "") -> list[str]:
    """Places of the numbers in plain data that lack a unit or a source; of a good report, none.

    A number is dressed as the `value` of a record that also has a name, a unit and a source, or
    under a key that is or ends in a unit ("latency_s", "year") beside a key "source".
    """
    if isinstance(data, Mapping):
        record = all(_text(data.get(key)) for key in ("name", "unit", "source"))
        bare = []
        for key, each in data.items():
            dressed = (record and key == "value") or (
                _text(data.get("source")) and _names_unit(str(key))
            )
            if not (dressed and _is_number(each)):
                bare += bare_numbers(each, f"{place}.{key}" if place else str(key))
        return bare
    if isinstance(data, list | tuple):
        return [bare for i, each in enumerate(data) for bare in bare_numbers(each, f"{place}[{i}]")]
    return [f"{place} = {data!r}"] if _is_number(data) else []


def _is_number(data: Any) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)


def _text(data: Any) -> bool:
    return isinstance(data, str) and bool(data.strip())


def _names_unit(key: str) -> bool:
    return any(key == unit or key.endswith(f"_{unit}") for unit in _KEY_UNITS)


def scientific(value: float, digits: int = 4, trim: bool = False) -> str:
    """A number as tables show it: 1.075e21, 400, 2.4. Trimmed, 1.000e21 is 1e21."""
    if value == 0 or 1e-3 <= abs(value) < 10**6:
        return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if trim and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def plain_table(title: str, caption: str | None = None, apart: bool = False) -> Table:
    """A table as the brain report has them, without columns; `apart` puts lines between rows."""
    return Table(
        title=title,
        caption=caption,
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption_justify="left",
        title_justify="left",
        leading=1 if apart else 0,
    )
