"""Operators of this package: every fast way to compute is registered with `torch.library`.

An operator has a plain implementation in torch's operators for any device, and may have faster ones
for the CPU and for CUDA. With them come what torch asks of an operator: shapes without data
(`fake`, for meta tensors, compilers and exporters), a gradient, and a FLOP formula for torch's own
counter.

Its `reference` is the same computation written with differentiable operators. It runs in the
operator's place where a hand-written gradient is not enough: under the transforms of `torch.func`,
in forward-mode differentiation, when a gradient is itself differentiated, and while `torch.jit`
traces. Tests hold every implementation to its reference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import register_flop_formula

Result = TypeVar("Result")
# (gradient of the first result, arguments, other results, which arguments need a gradient) -> the
# gradients of the first arguments; all others have none.
Gradient = Callable[[Tensor, Sequence[Any], Sequence[Tensor], Sequence[Any]], Any]
_LIBRARY = torch.library.Library("neuroconv", "FRAGMENT")
_PLAIN_TENSORS = (Tensor, nn.Parameter)
_PLAIN: dict[Any, Callable[..., Any]] = {}
_ENABLED: ContextVar[bool] = ContextVar("kernels", default=True)


def constant_when_compiled(function: Callable[[], Result]) -> Callable[[], Result]:
    """Does the work of `torch.compiler.assume_constant_result` without loading the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@contextmanager
def kernels_off() -> Iterator[None]:
    """Makes neurons run the stages of their definition one by one inside the context."""
    token = _ENABLED.set(False)
    try:
        yield
    finally:
        _ENABLED.reset(token)


@constant_when_compiled
def kernels_enabled() -> bool:
    """Returns whether kernels may replace the stages of a neuron's definition."""
    return _ENABLED.get()


def needs_reference() -> bool:
    """Returns whether an operator's differentiable reference has to run in its place."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_traced() -> bool:
    """Returns whether a compiler, a tracer or a transform of `torch.func` reads the operators."""
    return torch.compiler.is_compiling() or needs_reference()


def refuse_batch_statistics(module: nn.Module) -> None:
    """Raises RuntimeError under a transform of `torch.func` for a batch norm in training: it would
    move running statistics inside the transform, and couple the samples that `vmap` separates."""
    if not torch._C._are_functorch_transforms_active():
        return
    for name, norm in module.named_modules():
        if isinstance(norm, _BatchNorm) and norm.training and norm.running_mean is not None:
            raise RuntimeError(
                f"{type(module).__name__}: {name or 'the norm'} takes batch statistics in "
                "training, which torch.func transforms cannot: call eval(), leave the norm out, "
                "or let torch.func.replace_all_batch_norm_modules_(model) drop its running ones"
            )


def kernel_stage(stage: nn.Module) -> str | None:
    """Returns a class's `kernel_stage`, not inherited: a subclass may compute something else."""
    name: str | None = type(stage).__dict__.get("kernel_stage")
    return name


def plain_operators(func: Any) -> Callable[..., Any] | None:
    """Returns an operator's implementation in torch's operators, which counters see through."""
    return _PLAIN.get(func)


class Operator:
    """One operator of the namespace `neuroconv`, callable as a function.

    Args:
        schema: name, arguments and results, as `torch.library` reads them.
        plain: implementation in torch's operators, for tensors of any device; None for an operator
            that is called where its kernel runs and nowhere else.
        fake: returns empty results of the right shapes, dtypes and strides.
        cpu, cuda: faster implementations; `plain` by default.
        flops: formula for torch's FLOP counter, from the shapes of the arguments; 0 by default.
    """

    def __init__(
        self,
        schema: str,
        plain: Callable[..., Any] | None,
        *,
        fake: Callable[..., Any],
        cpu: Callable[..., Any] | None = None,
        cuda: Callable[..., Any] | None = None,
        flops: Callable[..., int] | None = None,
    ) -> None:
        name = schema.partition("(")[0]
        self.name = f"neuroconv::{name}"
        _LIBRARY.define(schema)
        implementations = ((plain, "CompositeExplicitAutograd"), (cpu, "CPU"), (cuda, "CUDA"))
        for kernel, key in implementations:
            if kernel is not None:
                _LIBRARY.impl(name, kernel, key)
        torch.library.register_fake(self.name, fake, lib=_LIBRARY)
        packet = getattr(torch.ops.neuroconv, name)
        self._overload, self._cpu = packet.default, cpu
        self._rule: tuple[Gradient, Callable[..., Any]] | None = None
        inputs, _, outputs = schema.partition("->")
        self._takes_list = inputs.startswith(f"{name}(Tensor[]")
        self._returns_list = "Tensor[]" in outputs
        if plain is not None:
            _PLAIN[self._overload] = plain
        formula = flops or _no_flops
        register_flop_formula(packet)(formula)

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._overload(*args)
        learns = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if self._rule is None or not learns:
            return self.run(*args)
        # As torch.library would do it, in a third of the time: small calls are made of it.
        if self._takes_list:  # autograd looks for tensors among the arguments alone
            results = _Differentiable.apply(self, len(args[0]), *args[0], *args[1:])
        else:
            results = _Differentiable.apply(self, None, *args)
        singles = len(self._overload._schema.returns) - self._returns_list
        if not isinstance(results, tuple):
            return results
        return (*results[:singles], list(results[singles:])) if self._returns_list else results

    def run(self, *args: Any) -> Any:
        """Computes the results without a gradient.

        Without modes, profilers or tensor subclasses the CPU's kernel is called past torch's
        dispatcher, which takes longer than a small kernel.
        """
        direct = (
            self._cpu is not None
            and not torch._C._len_torch_dispatch_stack()
            and not torch.autograd._profiler_enabled()
            and all(
                type(value) in _PLAIN_TENSORS and value.is_cpu and not value.is_neg()
                for value in args
                if isinstance(value, Tensor)
            )
        )
        with torch._C._AutoDispatchBelowAutograd():
            return self._cpu(*args) if direct and self._cpu is not None else self._overload(*args)

    def register_gradient(self, gradient: Gradient, reference: Callable[..., Any]) -> None:
        """Makes the first result differentiable; the others are not.

        Args:
            gradient: see `Gradient`. Gradients that nobody needs may have any value.
            reference: takes the operator's arguments; it is differentiated where the gradient may
                itself be differentiated.
        """
        self._rule = (gradient, reference)

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            others = tree_leaves(output[1:] if isinstance(output, tuple) else ())
            _save(ctx, inputs, others)

        def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
            needs = ctx.needs_input_grad[: len(ctx.values)]
            return _differentiate(ctx, gradient, reference, grad, list(needs))

        torch.library.register_autograd(
            self.name, backward, setup_context=setup_context, lib=_LIBRARY
        )


class _Differentiable(torch.autograd.Function):
    """An operator and its gradient in eager mode, without the overhead of `torch.library`."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, listed: int | None, *arguments: Any) -> Any:
        ctx.listed = listed
        if listed is not None:
            arguments = (list(arguments[:listed]), *arguments[listed:])
        output = operator.run(*arguments)
        ctx.rule = operator._rule
        if not isinstance(output, tuple):
            _save(ctx, arguments, ())
            return output
        first, *others = output
        if operator._returns_list:
            others = [*others[:-1], *others[-1]]
        _save(ctx, arguments, others)
        return first, *others

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        gradient, reference = ctx.rule
        needs = list(ctx.needs_input_grad[2:])
        if ctx.listed is None:
            return None, None, *_differentiate(ctx, gradient, reference, grad, needs)
        needs = [needs[: ctx.listed], *needs[ctx.listed :]]
        listed, *rest = _differentiate(ctx, gradient, reference, grad, needs)
        return None, None, *(listed or [None] * ctx.listed), *rest


def _save(ctx: Any, arguments: Sequence[Any], others: Sequence[Tensor]) -> None:
    """Saves an operator's arguments, including lists of tensors, and its other results."""
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*others)
    tensors: list[Tensor] = []
    ctx.values = [_replaced(value, tensors) for value in arguments]
    ctx.save_for_backward(*tensors, *others)


class _Saved(NamedTuple):
    """The position of an argument's tensors among the saved ones."""

    first: int
    size: int | None  # None for a tensor, else the tensors of a list


def _replaced(value: Any, tensors: list[Tensor]) -> Any:
    first = len(tensors)
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Saved(first, None)
    if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
        tensors.extend(value)
        return _Saved(first, len(value))
    return value


def _differentiate(
    ctx: Any,
    gradient: Gradient,
    reference: Callable[..., Any],
    grad: Tensor | None,
    needs: list[Any],
) -> tuple[Any, ...]:
    """Returns the gradients of an operator's arguments."""
    if grad is None:
        return tuple(None for _ in needs)
    saved, arguments, used = ctx.saved_tensors, [], 0
    for value in ctx.values:
        if isinstance(value, _Saved):
            used = value.first + (1 if value.size is None else value.size)
            value = saved[value.first] if value.size is None else list(saved[value.first : used])
        arguments.append(value)
    if torch.is_grad_enabled():  # this gradient may be differentiated again
        return tuple(_through(reference, grad, arguments, needs))
    grads = gradient(grad, arguments, saved[used:], needs)
    present = [value if needed else None for value, needed in zip(grads, needs, strict=False)]
    return (*present, *(None for _ in needs[len(present) :]))


def _through(
    reference: Callable[..., Any], grad: Tensor, arguments: list[Any], needs: list[Any]
) -> list[Any]:
    """Differentiates a reference's first result and records the graph of its gradients."""
    result = reference(*arguments)
    result = result[0] if isinstance(result, tuple) else result
    flags = [list(need) if isinstance(need, list | tuple) else [need] for need in needs]
    values = [
        value if isinstance(need, list | tuple) else [value]
        for value, need in zip(arguments, needs, strict=True)
    ]
    differentiated = [
        value
        for items, row in zip(values, flags, strict=True)
        for value, needed in zip(items, row, strict=False)
        if needed
    ]
    grads = iter(
        torch.autograd.grad(result, differentiated, grad, create_graph=True, allow_unused=True)
    )
    rows = [[next(grads) if needed else None for needed in row] for row in flags]
    return [
        row if isinstance(need, list | tuple) else row[0]
        for row, need in zip(rows, needs, strict=True)
    ]


def _no_flops(*_: Any, **__: Any) -> int:
    return 0


def or_empty(like: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Replaces None by an empty tensor: an operator's results are tensors."""
    return tuple(like.new_empty(0) if tensor is None else tensor for tensor in tensors)
