"""fvcore's counter: the model runs once, is traced, and every operator of the trace is counted.

Two counts come of one trace. The witness counts contractions, by the handles of
`neuroconv.flops.fvcore_handles`, and stands beside the exact counter and the closed form. fvcore as
it comes, with no handle but its own, shows what its user would read.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from neuroconv.flops.fvcore_handles import HANDLES, contracts_nothing
from neuroconv.flops.meta_copy import as_inputs, meta_copy
from neuroconv.flops.rules import Counts


@dataclass
class StockCount:
    """The count of fvcore's FlopCountAnalysis with its own handles alone, for the whole batch.

    Attributes:
        operators: what it calls a flop, by operator: a multiply-add of a contraction, an element of
            a norm times a weight of its own.
        unsupported: calls of operators that it has no handle for, and does not ignore.
        failures: operators whose handle raised, with the error: then it gives no count at all.
    """

    operators: Counter[str] = field(default_factory=Counter)
    unsupported: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """fvcore's total; None if one of its handles raised."""
        return None if self.failures else sum(self.operators.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, units in the keys."""
        return {
            "mac_per_batch": self.total,
            "mac_per_batch_by_operator": dict(self.operators),
            "unsupported_calls": dict(self.unsupported),
            "failures": dict(self.failures),
        }


Handle = Callable[[Any, Any], Any]


def _handle(operator: str, stock_handle: Handle | None, ignored: bool, stock: StockCount) -> Handle:
    """Returns a handle that counts contractions, and adds to `stock` what fvcore's own counts."""
    rule, name = HANDLES.get(operator), operator.removeprefix("aten::")

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        if stock_handle is not None:
            try:
                counted = stock_handle(inputs, outputs)
            except Exception as error:  # its assertions hold for fewer shapes than torch takes
                stock.failures[operator] = f"{type(error).__name__}: {error}"
            else:
                amounts = counted if isinstance(counted, Mapping) else {name: counted}
                stock.operators.update({key: int(amount) for key, amount in amounts.items()})
        elif not ignored:
            stock.unsupported[operator] += 1
        return Counter(
            {} if rule is None else {f"{rule.family}:{name}": rule.count(inputs, outputs)}
        )

    return count


def analyse_fvcore(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, device: str = "cpu"
) -> tuple[Counts, StockCount]:
    """Counts one run in eval mode by fvcore's FlopCountAnalysis.

    A trace keeps what the output depends on: work whose result is thrown away is in no count.

    Args:
        model: any module with real parameters; it is left untouched.
        inputs: what it is called with, the batch first; meta inputs become zeros.
        device: "cpu" or "cuda".

    Returns:
        The witness's contractions, and the count of fvcore as it comes.

    Raises:
        ValueError: the device is meta, the model holds meta or fake tensors, the model cannot be
            traced, or an autograd.Function or a script hides what it runs from the trace.
    """
    if torch.device(device).type == "meta":
        raise ValueError("fvcore runs the model and needs real tensors: use device='cpu' or 'cuda'")
    weights, items = (*model.parameters(), *model.buffers()), as_inputs(inputs)
    if any(t.is_meta for t in weights) or any(
        isinstance(t, FakeTensor) for t in (*weights, *items)
    ):
        raise ValueError("fvcore needs real tensors, not meta or fake ones: build them on the CPU")
    with warnings.catch_warnings():
        # fvcore decorates functions it never runs here with torch.jit.script.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

    stock = StockCount()
    with meta_copy(model, items, device) as placed, torch.no_grad():
        analysis = FlopCountAnalysis(model, placed)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        handles, ignored = dict(analysis._op_handles), set(analysis._ignored_ops)
        for operator in {*HANDLES, *handles}:
            handle = _handle(operator, handles.get(operator), operator in ignored, stock)
            analysis.set_op_handle(operator, handle)
        try:
            by_module = analysis.by_module_and_operator()
        except Exception as error:  # a trace fails in as many ways as there are models
            raise ValueError(
                f"fvcore could not trace the model ({type(error).__name__}: {error})"
            ) from error
        unsupported = dict(analysis.unsupported_ops())
    opaque = [op for op in unsupported if op.startswith(("prim::PythonOp", "prim::CallFunc"))]
    if opaque:
        raise ValueError(
            f"fvcore cannot see inside {', '.join(opaque)}: its cost is hidden. Call plain torch "
            "operators when no gradient is needed (torch.is_grad_enabled() is False while counting)"
        )
    stock.unsupported.update(unsupported)
    amounts, operators = Counter[str](), dict[str, int]()
    for label, mac in by_module[""].items():
        family, _, operator = label.partition(":")
        amounts[family] += mac
        if mac:
            operators[operator] = mac
    counts = Counts.of(
        "fvcore",
        torch.device(device).type,
        amounts,
        operators=operators,
        modules={path: sum(counted.values()) for path, counted in by_module.items()},
        uncounted={op: calls for op, calls in unsupported.items() if not contracts_nothing(op)},
    )
    return counts, stock


def count_fvcore(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, device: str = "cpu"
) -> Counts:
    """Counts the contractions of one run by fvcore; arguments and errors as `analyse_fvcore`."""
    return analyse_fvcore(model, inputs, device=device)[0]
