"""One convention for every counter, and its rules, read from `operators.toml`.

One multiply-add (MAC) is two FLOPs. Work is counted by operator family, the first three in MAC:

    convolution    weights x output positions x batch, padding zeros counted; transposed: x input
                   positions
    matmul         m n k for each matrix product; attention is two, and a mask saves nothing
    fft            cost model 1.25 n log2 n for one real transform of n points (the product of the
                   padded lengths), 2.5 n log2 n for a complex one, rounded, x transforms
    pointwise      one per output element; complex: add 2, multiply 6 (by a real 2), other 2;
                   addcmul, addcdiv, and a sum with a factor (alpha): 2, complex 8
    reduction      one per input element (sum, mean, maximum, norm ...)
    normalisation  running statistics 2 per element; batch statistics 4, or 5 with a weight; RMS
                   norm 3 or 4; softmax 5
    pooling        window size per output element; adaptive: one per input element; linear or cubic
                   interpolation: one per neighbour of an output element
    scatter        one per element that is added where an index says
    random         one per number drawn, whatever the generator does for it
    sorting        n ceil(log2 n) comparisons along the axis; a binary search ceil(log2 n)

The first three are *contractions*: all counters must agree on them to the last digit. The others
are not compared; fvcore does not count them.

A contraction's bias is not counted; the bias's gradient is a reduction. Complex products are four
real ones, a complex convolution the three that torch makes of it. The backward pass of a
contraction is one of its size for each gradient that is needed, that of a norm twice its forward
pass. Views, copies, allocation, indexing, and integer or Boolean arithmetic cost nothing; products
of integers are listed apart. An operator of another namespace than aten costs what a rule of its
own says, whatever its name, or is listed as uncounted.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTRACTIONS = ("convolution", "matmul", "fft")
OTHERS = ("pointwise", "reduction", "normalisation", "pooling", "scatter", "random", "sorting")

DATA: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("operators.toml").read_text())


@dataclass(frozen=True)
class Rule:
    """The main family of an operator, or a module, and the function that counts it."""

    family: str
    count: Callable[..., Any]


def read_rules(section: str, functions: Mapping[str, Any]) -> dict[str, Rule]:
    """Returns the rules of a section of `operators.toml`, which names `functions`, by operator."""
    rules: dict[str, Rule] = {}
    for entry in DATA[section]:
        function = functions[entry["count"]]
        count = function(*entry["with"]) if "with" in entry else function
        for name in entry["operators"].split():
            if name in rules:
                raise ValueError(f"operators.toml: {name!r} has two rules in {section!r}")
            rules[name] = Rule(entry["rule"].partition(":")[0], count)
    return rules


@dataclass(frozen=True)
class Counts:
    """The count of one run of a model by one counter, for the whole batch.

    Attributes:
        macs: MAC by contraction family; a family that did not run is absent.
        flops: FLOP by the other families.
        operators: MAC by operator, contractions only.
        modules: MAC by module path ("" is the model), contractions only, children included.
        zero: operators that ran and cost nothing, with the reason.
        uncounted: calls of what has no rule: modules for the closed form, operators for the others.
        integers: MAC by operator of products of integers, which are in no total.
        backward: the backward pass, if it was counted; all else is the forward pass alone.
    """

    counter: str
    device: str
    macs: Mapping[str, int]
    flops: Mapping[str, int]
    operators: Mapping[str, int] = field(default_factory=dict)
    modules: Mapping[str, int] = field(default_factory=dict)
    zero: Mapping[str, str] = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    integers: Mapping[str, int] = field(default_factory=dict)
    backward: "Counts | None" = None

    @classmethod
    def of(cls, counter: str, device: str, amounts: Mapping[str, int], **details: Any) -> "Counts":
        """Returns the counts of these amounts by family; families of nothing are left out."""
        macs = {family: amounts[family] for family in CONTRACTIONS if amounts.get(family)}
        flops = {family: amounts[family] for family in OTHERS if amounts.get(family)}
        return cls(counter, device, macs, flops, **details)

    @property
    def mac(self) -> int:
        return sum(self.macs.values())

    @property
    def flop(self) -> int:
        return 2 * self.mac + sum(self.flops.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, units in the keys; without modules and the backward pass."""
        return {
            "device": self.device,
            "mac_per_batch_by_family": dict(self.macs),
            "flop_per_batch_by_family": dict(self.flops),
            "mac_per_batch_by_operator": dict(self.operators),
            "zero_because": dict(self.zero),
            "uncounted_calls": dict(self.uncounted),
            "integer_mac_per_batch_by_operator": dict(self.integers),
        }
