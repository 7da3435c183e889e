"""fvcore's counter: the model runs once, is traced, and every operator of the trace is counted.

The handles are in `neuroconv.flops.fvcore_handles`; fvcore's own tables are overruled where they
count wrongly, or pass over in silence what costs something.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from neuroconv.flops.fvcore_handles import HANDLES, fvcore_rules
from neuroconv.flops.meta_copy import as_inputs, meta_copy
from neuroconv.flops.rules import CONTRACTIONS, OTHERS, Counts

__all__ = ["count_fvcore", "fvcore_rules"]


def _recording(operator: str, zero: dict[str, str]) -> Callable[[Any, Any], Counter[str]]:
    """The handle of an operator as fvcore wants it; reasons for costing nothing go to `zero`.

    What it counts is named "family:operator".
    """
    handle = HANDLES[operator]

    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        amounts = handle.amounts(inputs, outputs)
        if isinstance(amounts, str):
            zero[operator] = amounts
            return Counter()
        name = operator.removeprefix("aten::")
        return Counter({f"{family}:{name}": amount for family, amount in amounts.items()})

    return count


def count_fvcore(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, device: str = "cpu"
) -> Counts:
    """Count one run in eval mode by fvcore's FlopCountAnalysis.

    A trace keeps what the output depends on: work whose result is thrown away is in no count.

    Args:
        model: any module with real parameters; it is left untouched.
        inputs: what it is called with, the batch first; meta inputs become zeros.
        device: "cpu" or "cuda".

    Raises:
        ValueError: the device is meta, the model holds meta or fake tensors, the model cannot be
            traced, or an autograd.Function or a script hides what it runs from the trace.
    """
    if torch.device(device).type == "meta":
        raise ValueError("fvcore runs the model and needs real tensors: use device='cpu' or 'cuda'")
    held, items = (*model.parameters(), *model.buffers()), as_inputs(inputs)
    if any(t.is_meta for t in held) or any(isinstance(t, FakeTensor) for t in (*held, *items)):
        raise ValueError("fvcore needs real tensors, not meta or fake ones: build them on the CPU")
    with warnings.catch_warnings():
        # fvcore decorates functions it never runs here with torch.jit.script.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", FutureWarning)
        warnings.filterwarnings("ignore", r"`torch\.jit\.script", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

    zero: dict[str, str] = {}
    with meta_copy(model, items, device) as placed, torch.no_grad():
        analysis = FlopCountAnalysis(model, placed)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle(**{operator: _recording(operator, zero) for operator in HANDLES})
        try:
            totals = analysis.by_operator()
        except Exception as error:  # a trace fails in as many ways as there are models
            raise ValueError(
                f"fvcore could not trace the model ({type(error).__name__}: {error})"
            ) from error
        uncounted = dict(analysis.unsupported_ops())
        by_module = analysis.by_module_and_operator()
    hidden = [name for name in uncounted if name.startswith(("prim::PythonOp", "prim::CallFunc"))]
    if hidden:
        raise ValueError(
            f"fvcore cannot see inside {', '.join(hidden)}: its cost is hidden. Call plain torch "
            "operators when no gradient is needed (torch.is_grad_enabled() is False while counting)"
        )

    def contractions(counts: Counter[str]) -> dict[str, int]:
        found = ((name.partition(":"), amount) for name, amount in counts.items())
        return {op: n for (family, _, op), n in found if n and family in CONTRACTIONS}

    amounts: Counter[str] = Counter()
    for name, amount in totals.items():
        amounts[name.partition(":")[0]] += amount
    return Counts(
        counter="fvcore",
        device=torch.device(device).type,
        macs={family: amounts[family] for family in CONTRACTIONS if amounts[family]},
        flops={family: amounts[family] for family in OTHERS if amounts[family]},
        operators=contractions(totals),
        modules={path: sum(contractions(counts).values()) for path, counts in by_module.items()},
        zero=zero,
        uncounted=uncounted,
    )
