"""The exact counter's table: an operator's rule, or why it costs nothing or cannot be counted."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from neuroconv.flops import amounts, contractions
from neuroconv.flops.calls import Call, name_of
from neuroconv.flops.rules import CONTRACTIONS, DATA, Rule, read_rules

RULES: Mapping[str, Rule] = read_rules("exact", {**vars(amounts), **vars(contractions)})
ZERO: Mapping[str, str] = {
    name: reason for reason, names in DATA["zero"].items() for name in names.split()
}
_UNCOUNTED: Mapping[str, str] = {
    name: reason for reason, names in DATA["uncounted"].items() for name in names.split()
}


def look_up(func: Any, call: Call) -> Rule | str | None:
    """Returns the rule of a call, or why it costs nothing; None if neither is known."""
    operator, tensors = name_of(func), call.operands + call.results
    if "::" in operator:  # of another library: its name says nothing
        return RULES.get(operator) if tensors else "works on no tensor"
    if func.is_view or torch.Tag.inplace_view in func.tags:
        return "a view: no element moves"
    if operator in ZERO:
        return ZERO[operator]
    if any(t.layout is not torch.strided for t in tensors):
        return None
    rule = RULES.get(operator)
    if call.is_integral and (rule is None or rule.family not in (*CONTRACTIONS, "integer")):
        return "integers or Booleans alone"
    if rule is not None:
        return rule
    # All that torch tags as pointwise is counted alike.
    return RULES["abs"] if is_pointwise(func) and call.results else None


def explain_uncounted(operators: Iterable[str]) -> str:
    """Returns the operators, such as "aten._linalg_eigh.default", and why each is not counted."""
    reasons = []
    for operator in sorted(operators):
        namespace, packet, overload = operator.split(".")
        func = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
        name = name_of(func)
        reason = _UNCOUNTED.get(name, _UNCOUNTED.get(f"{namespace}::", "it has no rule"))
        if name in RULES or name in ZERO or ("::" not in name and is_pointwise(func)):
            reason = _UNCOUNTED["_sparse_mm"]  # else it would be counted
        reasons.append(f"{operator} ({reason})")
    return ", ".join(reasons)


def is_pointwise(func: Any) -> bool:
    """Returns whether torch tags an operator, or the aten operator of a prim, as pointwise."""
    if func.namespace != "prims":
        return torch.Tag.pointwise in func.tags
    aten = getattr(torch.ops.aten, name_of(func), None)
    overloads = () if aten is None else (getattr(aten, name) for name in aten.overloads())
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)
