"""Numbers of the brain report, never without unit and source, and formulas over them."""

import ast
import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuroconv.references import Source

_NAME = re.compile(r"`([\w.]+)`")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[[float], float]] = {"log2": math.log2, "ln": math.log}
_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit and its source.

    Raises:
        ValueError: no name, no unit, or a value that is not a finite number.
    """

    name: str  # lower case, parts joined by dots: "purkinje.cells"
    value: float  # an int stays an int, of any size
    unit: str  # "1" for a pure number
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
        """The value as tables show it: 1.075e21, 2e16, 400."""
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
    """Returns an integral number as an int, which stays exact at any size, another as a float."""
    return int(value) if float(value).is_integer() else float(value)


def scientific(value: float, digits: int = 4, trim: bool = False) -> str:
    """Formats a number for a table: 1.075e21, 400, 2.4. Trimmed, 1.000e21 is 1e21."""
    if value == 0 or 1e-3 <= abs(value) < 10**6:
        return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if trim and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


class Worksheet(dict[str, Quantity]):
    """Quantities by name, to which formulas add further ones.

    A formula has `names`, numbers, + - x / ^, parentheses, log2() and ln(). It is evaluated, and is
    the source of its result. Anything else raises ValueError.
    """

    def __init__(self, quantities: Iterable[Quantity] = ()) -> None:
        super().__init__()
        self.add(*quantities)

    def add(self, *quantities: Quantity) -> None:
        """Adds quantities; raises ValueError for a name that is in use."""
        for quantity in quantities:
            if quantity.name in self:
                raise ValueError(f"{quantity.name!r} is defined twice; expected one definition")
            self[quantity.name] = quantity

    def derive(
        self, name: str, unit: str, formula: str, basis: str = "", note: str = ""
    ) -> Quantity:
        """Evaluates a formula, adds the result and returns it.

        The formula must name a quantity unless `basis`, which the source adds to it, cites one.
        """
        source = f"{formula}: {basis}" if basis else formula
        quantity = derived(name, self.evaluate(formula), unit, source, note)
        self.add(quantity)
        return quantity

    def evaluate(self, formula: float | str) -> float:
        """Returns the value of a formula; integers give an exact integer unless divided."""
        if not isinstance(formula, str):
            return formula
        names = _NAME.findall(formula)
        unknown = [name for name in names if name not in self]
        if unknown:
            raise ValueError(f"{formula!r} names {unknown[0]!r}, which is not defined above it")
        text = _NAME.sub(lambda match: f" _{names.index(match[1])} ", formula)
        text = re.sub(r"\sx\s", " * ", text).replace("^", "**").strip()
        try:
            return _value(ast.parse(text, mode="eval").body, [self[name].value for name in names])
        except (SyntaxError, TypeError, ZeroDivisionError) as error:
            raise ValueError(
                f"{formula!r}: {error}; expected `names`, numbers, + - x / ^, log2() and ln()"
            ) from None

    def fill(self, text: str) -> str:
        """Fills in a text: "{`name`}" becomes its value, "{FORMULA:.1f}" a formatted one.

        Without a format, or with a number of digits instead, it is formatted as in a table.
        """

        def filled(match: re.Match[str]) -> str:
            value, form = self.evaluate(match[1]), match[2] or "4"
            return scientific(value, int(form), trim=True) if form.isdigit() else f"{value:{form}}"

        return _FIELD.sub(filled, text)


def _value(node: ast.expr, values: list[float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name[:1] == "_" and name[1:].isdigit():
            return values[int(name[1:])]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(argument, values))
    raise TypeError(f"{ast.unparse(node)!r} is not part of a formula")
