"""The rules of all counters, read from `operators.toml`."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroconv.flops.rules import CONTRACTIONS

DATA: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("operators.toml").read_text())
# Names alone: whether an operator contracts, not what it costs.
CONTRACTION_OPERATORS = frozenset(
    name
    for entry in DATA["exact"]
    if entry["rule"].startswith(CONTRACTIONS)
    for name in entry["operators"].split()
)


@dataclass(frozen=True)
class Rule:
    """The rule by which an operator, or a module, is counted.

    Attributes:
        family: what its work is, mainly; see `neuroconv.flops.rules`.
        how: the rule in a few words.
        count: the rule itself, whose arguments and result each counter states.
    """

    family: str
    how: str
    count: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.family}: {self.how}"


def read_rules(section: str, functions: Mapping[str, Any]) -> dict[str, Rule]:
    """Returns the rules of a section by operator.

    Args:
        section: of `operators.toml`.
        functions: by the names that the section calls them.

    Raises:
        ValueError: an operator with two rules.
    """
    rules: dict[str, Rule] = {}
    for entry in DATA[section]:
        family, _, how = entry["rule"].partition(": ")
        function = functions[entry["count"]]
        rule = Rule(family, how, function(*entry["with"]) if "with" in entry else function)
        for name in entry["operators"].split():
            if name in rules:
                raise ValueError(f"operators.toml: {name!r} has two rules in {section!r}")
            rules[name] = rule
    return rules
