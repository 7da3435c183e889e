"""fvcore's counter: the model runs once, is traced, and every operator of the trace is counted.

One trace gives two counts: that of contractions, by the handles of `fvcore_handles`, to check the
other counters; and that of fvcore as installed, as its user would read it.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from neuroconv.core.arguments import checked
from neuroconv.flops.calls import tensors_of
from neuroconv.flops.exact import count_exact
from neuroconv.flops.fvcore_handles import HANDLES, contracts_nothing
from neuroconv.flops.inputs import Inputs, Keywords, as_inputs
from neuroconv.flops.meta_copy import Device, find_device, meta_copy
from neuroconv.flops.rules import Counts


@dataclass
class StockCount:
    """The count of fvcore's FlopCountAnalysis with its own handles alone, for the whole batch.

    Attributes:
        operators: flops by operator: multiply-adds of contractions, weighted elements of norms.
        unsupported: calls of operators that it has no handle for, and does not ignore.
        failures: operators whose handle raised, with the error.
    """

    operators: Counter[str] = field(default_factory=Counter)
    unsupported: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """None if a handle raised: then fvcore gives no count at all."""
        return None if self.failures else sum(self.operators.values())

    def to_dict(self) -> dict[str, Any]:
        return {
            "mac_per_batch": self.total,
            "mac_per_batch_by_operator": dict(self.operators),
            "unsupported_calls": dict(self.unsupported),
            "failures": dict(self.failures),
        }


Handle = Callable[[Any, Any], Any]


def _handle(
    operator: str, stock_handle: Handle | None, ignored: bool, stock: StockCount, macs: Counter[str]
) -> Handle:
    """Returns a handle that counts contractions, and adds what fvcore's own counts to `stock`."""
    rule = HANDLES.get(operator)

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        if stock_handle is not None:
            try:
                counted = stock_handle(inputs, outputs)
            except Exception as error:  # its assertions hold for fewer shapes than torch takes
                stock.failures[operator] = f"{type(error).__name__}: {error}"
            else:
                name = operator.removeprefix("aten::")
                amounts = counted if isinstance(counted, Mapping) else {name: counted}
                stock.operators.update({key: int(amount) for key, amount in amounts.items()})
        elif not ignored:
            stock.unsupported[operator] += 1
        if rule is None:
            return 0
        mac = int(rule.count(inputs, outputs))
        macs[rule.family] += mac
        return mac

    return count


class _Traced(nn.Module):
    """A call of a model with tensors alone, in and out, which is all that a trace can follow."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        self._inputs = inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        outputs = tensors_of(self._inputs.map(lambda _: next(remaining)).call(self.model))
        if not outputs:
            raise ValueError("it returns no tensor, in no tuple, list or dictionary either")
        return tuple(outputs)


@checked
def analyse_fvcore(
    model: nn.Module, inputs: Any, *, kwargs: Keywords = None, device: Device = "cpu"
) -> tuple[Counts, StockCount]:
    """Returns the contractions of one run in eval mode by our handles, and fvcore's own count.

    A trace keeps what the output depends on: work whose result is thrown away is in no count.

    Args:
        model: any module with real parameters; it is left untouched.
        inputs, kwargs: its arguments; see `as_inputs`. Meta tensors become zeros.
        device: "cpu" or "cuda".

    Raises:
        ValueError: meta or fake tensors, or a model that cannot be traced or hides what it runs.
        ImportError: fvcore is not installed.
    """
    if find_device(device).type == "meta":
        raise ValueError("fvcore runs the model and needs real tensors: use device='cpu' or 'cuda'")
    weights, items = (*model.parameters(), *model.buffers()), as_inputs(inputs, kwargs)
    fake = [t for t in (*weights, *items.tensors) if isinstance(t, FakeTensor)]
    if fake or any(tensor.is_meta for tensor in weights):
        raise ValueError("fvcore needs real tensors, not meta or fake ones: build them on the CPU")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit.script, which nothing here runs
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError as error:
            raise ImportError(f"fvcore is not installed ({error}); pip install fvcore") from error

    stock, macs = StockCount(), Counter[str]()
    with meta_copy(model, items, device) as (copied, arguments):
        analysis = FlopCountAnalysis(_Traced(copied, arguments), tuple(arguments.tensors))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        handles, ignored = dict(analysis._op_handles), set(analysis._ignored_ops)
        for operator in {*HANDLES, *handles}:
            handle = _handle(operator, handles.get(operator), operator in ignored, stock, macs)
            analysis.set_op_handle(operator, handle)
        modules, operators = analysis.by_module(), analysis.by_operator()
        unsupported = dict(analysis.unsupported_ops())
    opaque = [op for op in unsupported if op.startswith(("prim::PythonOp", "prim::CallFunc"))]
    if opaque:
        raise ValueError(
            f"fvcore cannot see inside {', '.join(opaque)}: its cost is hidden. Call plain torch "
            "operators when no gradient is needed (torch.is_grad_enabled() is False while counting)"
        )
    stock.unsupported.update(unsupported)
    counts = Counts.of(
        "fvcore",
        torch.device(device).type,
        macs,
        operators={operator: mac for operator, mac in operators.items() if mac},
        modules={  # without the wrapper
            path.partition(".")[2]: mac for path, mac in modules.items() if path
        },
        uncounted={op: calls for op, calls in unsupported.items() if not contracts_nothing(op)},
    )
    return counts, stock


@checked
def count_fvcore(
    model: nn.Module, inputs: Any, *, kwargs: Keywords = None, device: Device = "cpu"
) -> Counts:
    """Counts the contractions of one run by fvcore; arguments and errors as `analyse_fvcore`.

    A trace does not show the work of other threads: the exact counter looks for it, and refuses it.
    """
    counts = analyse_fvcore(model, inputs, kwargs=kwargs, device=device)[0]
    count_exact(model, inputs, kwargs=kwargs, device=device)
    return counts
