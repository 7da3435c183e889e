"""Control flow in a counted run: operators that take functions run as the Python they stand for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._higher_order_ops.scan import generic_scan
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode

from neuroconv.flops.origins import remember
from neuroconv.flops.rules import DATA

_SEEN_THROUGH = DATA["control_flow"]["operators"].split()


class _ControlFlow(TorchFunctionMode):
    """A mode that sees operators that take functions before autograd does, which would trace them.

    It also sees literals, which on meta no operator makes.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            with self:
                return _run(func, args, kwargs or {})
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            remember([out])
        return out


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    name = func.name()
    if name not in _SEEN_THROUGH:
        raise ValueError(
            f"{name} runs what no counter sees; write it with operators of torch, or with one of "
            f"{', '.join(_SEEN_THROUGH)}"
        )
    try:
        if name == "cond":  # torch's own cond and scan run under no mode
            pred, true_fn, false_fn, operands = args
            return true_fn(*operands) if pred else false_fn(*operands)
        if name == "scan":
            combine_fn, init, xs, additional_inputs = args[:4]
            return generic_scan(combine_fn, init, xs, additional_inputs=additional_inputs)
        return func.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd](*args, **kwargs)
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {error}") from error


@contextmanager
def eagerly() -> Iterator[None]:
    """Runs compiled models and control flow operator by operator: fused, none could be counted."""
    # Unless dynamo is loaded nothing is compiled, and the import takes seconds.
    loaded = "torch._dynamo" in sys.modules
    with torch.compiler.set_stance("force_eager") if loaded else nullcontext(), _ControlFlow():
        yield
