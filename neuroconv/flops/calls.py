"""One call of an operator as torch's dispatcher sees it, and a rule that counts such calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

Amounts = Mapping[str, int]  # by operator family: MAC of contractions, FLOP of the others


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        operator: its name in aten, without overload and without the underscore of in-place work.
        given: its arguments by the names of its schema, defaults included.
        results: the tensors that came out.
    """

    operator: str
    given: Mapping[str, Any]
    results: list[Tensor]

    @classmethod
    def of(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> "Call":
        given = {}
        for place, argument in enumerate(func._schema.arguments):
            if place < len(args):
                given[argument.name] = args[place]
            elif argument.name in kwargs:
                given[argument.name] = kwargs[argument.name]
            else:
                given[argument.name] = argument.default_value
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        return cls(name_of(func), given, results)

    @property
    def operands(self) -> list[Tensor]:
        """The tensors that went in, those in lists included."""
        return [leaf for leaf in tree_leaves(dict(self.given)) if isinstance(leaf, Tensor)]

    def tensor(self, place: int) -> Tensor:
        """The argument at this place of the schema."""
        found = list(self.given.values())[place]
        assert isinstance(found, Tensor)
        return found

    @property
    def read(self) -> int:
        """Elements of the first operand."""
        return self.operands[0].numel()

    @property
    def written(self) -> int:
        """Elements of the first result."""
        return self.results[0].numel()


@dataclass(frozen=True)
class Rule:
    """How calls of an operator are counted.

    Attributes:
        family: what its work is, mainly; see `neuroconv.flops.rules`.
        how: the rule in a few words.
        amounts: the rule itself.
    """

    family: str
    how: str
    amounts: Callable[[Call], Amounts]

    def of(self, operators: str) -> dict[str, "Rule"]:
        """The rule for each of the operators that a text names."""
        return dict.fromkeys(operators.split(), self)


def name_of(func: Any) -> str:
    """An operator's name without overload and without the underscore of in-place work."""
    name = str(func._overloadpacket.__name__)
    return name if name.startswith("__") else name.rstrip("_")
