"""Operators of this package: every fast implementation is registered with `torch.library`.

An operator has a plain implementation in torch's operators for any device, and may have faster ones
for the CPU and for CUDA. It also registers what torch requires of an operator: shapes without data
(`fake`, for meta tensors, compilers and exporters), a gradient, and a FLOP formula for torch's own
counter.

Its `reference` is the same computation written with differentiable operators. It replaces
the operator where a hand-written gradient is not enough: under the transforms of `torch.func`,
in forward-mode differentiation, when a gradient is itself differentiated, and while `torch.jit`
traces. Tests hold every implementation to its reference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import register_flop_formula

from neuroconv.core.counting import constant_when_compiled, is_exporting

Result = TypeVar("Result")
# (gradient of the first result, arguments, other results, which arguments need a gradient) -> the
# gradients of the first arguments; all others have none.
Gradient = Callable[[Tensor, Sequence[Any], Sequence[Tensor], Sequence[Any]], Any]
_LIBRARY = torch.library.Library("neuroconv", "FRAGMENT")
_PLAIN_TENSORS = (Tensor, nn.Parameter)
_PLAIN: dict[Any, Callable[..., Any]] = {}
_CUDA: dict[Any, Callable[..., Any]] = {}


class Switch:
    """A setting that a context changes: `with switch(False)`."""

    def __init__(self, name: str, default: bool = True) -> None:
        self._value = ContextVar(name, default=default)
        self.get = self._value.get

    @contextmanager
    def __call__(self, enabled: bool) -> Iterator[None]:
        token = self._value.set(enabled)
        try:
            yield
        finally:
            self._value.reset(token)


_kernels = Switch("kernels")


def kernels_off() -> AbstractContextManager[None]:
    """Makes neurons run the stages of their definition one by one inside the context."""
    return _kernels(False)


@constant_when_compiled
def kernels_enabled() -> bool:
    """Returns whether kernels may replace the stages of a neuron's definition."""
    return _kernels.get()


def needs_reference() -> bool:
    """Returns whether an operator's differentiable reference has to run in its place."""
    if torch.compiler.is_compiling():
        return is_exporting()  # whatever reads the program knows torch's alone
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def needs_grad(*tensors: Tensor | None) -> bool:
    """Returns whether a backward pass will follow."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


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
    return type(stage).__dict__.get("kernel_stage")


def plain_operators(func: Any) -> Callable[..., Any] | None:
    """Returns an operator's implementation in torch's operators, which counters see through."""
    return _PLAIN.get(func)


def cuda_implementation(func: Any) -> Callable[..., Any] | None:
    """Returns what an operator of this package runs on CUDA, which a trace looks into."""
    return _CUDA.get(func)


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
        flops: Callable[..., int] = lambda *_, **__: 0,
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
        register_flop_formula(packet)(flops)
        self._overload, self._cpu = packet.default, cpu
        self._rule: _Rule | None = None
        # Autograd functions look for tensors among their arguments, not inside a list.
        self._takes_list = schema.startswith(f"{name}(Tensor[]")
        if plain is not None:
            _PLAIN[self._overload] = plain
        if (on_cuda := cuda or plain) is not None:
            _CUDA[self._overload] = on_cuda

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._overload(*args)
        learns = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if self._rule is None or not learns:
            return self.run(*args)
        # As torch.library would do it, in a third of the time, which dominates small calls.
        return self._overload(*args) if self._takes_list else _Differentiable.apply(self, *args)

    def run(self, *args: Any) -> Any:
        """Computes the results without a gradient.

        Without modes, profilers or tensor subclasses the CPU's kernel is called past torch's
        dispatcher, which takes longer than a small kernel.
        """
        kernel: Callable[..., Any] = self._overload
        if self._cpu is not None and _are_plain(args):
            kernel = self._cpu
        with torch._C._AutoDispatchBelowAutograd():
            return kernel(*args)

    def register_gradient(self, gradient: Gradient, reference: Callable[..., Any]) -> None:
        """Makes the first result differentiable; the others are not.

        Args:
            gradient: see `Gradient`. Gradients that nobody needs may have any value.
            reference: takes the operator's arguments; it is differentiated where the gradient may
                itself be differentiated.
        """
        rule = self._rule = _Rule(gradient, reference)
        torch.library.register_autograd(
            self.name, rule.backward, setup_context=rule.setup_context, lib=_LIBRARY
        )


def _are_plain(args: Sequence[Any]) -> bool:
    """Returns whether all tensors are plain ones on the CPU, and no mode or profiler is active."""
    if torch._C._len_torch_dispatch_stack() or torch.autograd._profiler_enabled():
        return False
    for value in args:
        if type(value) in _PLAIN_TENSORS:
            if not value.is_cpu or value.is_neg():
                return False
        elif isinstance(value, Tensor):
            return False
    return True


class _Differentiable(torch.autograd.Function):
    """An operator and its gradient in eager mode, without the overhead of `torch.library`."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, *arguments: Any) -> Any:
        output = operator.run(*arguments)
        ctx.rule = operator._rule
        ctx.rule.setup_context(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        return None, *ctx.rule.differentiate(ctx, grad, ctx.needs_input_grad[1:])


class _Rule(NamedTuple):
    """The gradient of an operator; see `Operator.register_gradient`."""

    gradient: Gradient
    reference: Callable[..., Any]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves an operator's arguments, of which the first may be a list of tensors, and its other
        results."""
        others = output[1:] if isinstance(output, tuple) else ()
        ctx.context = copy_context()
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*others)
        listed, rest = (inputs[0], inputs[1:]) if _is_list(inputs[0]) else ((), inputs)
        tensors = [value if isinstance(value, Tensor) else None for value in rest]
        ctx.listed = len(listed)
        ctx.values = [None if isinstance(value, Tensor) else value for value in rest]
        ctx.save_for_backward(*listed, *tensors, *others)

    def backward(self, ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        return self.differentiate(ctx, grad, ctx.needs_input_grad)

    def differentiate(self, ctx: Any, grad: Tensor | None, needs: Sequence[Any]) -> tuple[Any, ...]:
        """Returns the gradients of an operator's arguments."""
        if grad is None:
            return tuple([None] * len(need) if _is_list(need) else None for need in needs)
        saved, listed = ctx.saved_tensors, ctx.listed
        rest = saved[listed:]
        arguments = [
            value if tensor is None else tensor
            for value, tensor in zip(ctx.values, rest, strict=False)
        ]
        others = rest[len(arguments) :]
        if listed:
            arguments.insert(0, list(saved[:listed]))
        if torch.is_grad_enabled():  # this gradient may be differentiated again
            return _differentiate(self.reference, grad, arguments, needs[: len(arguments)])
        gradient = self.gradient
        if grad.is_cuda:  # a thread of torch's runs this, without the caller's context variables
            gradient = partial(ctx.context.copy().run, gradient)
        grads = gradient(grad, arguments, others, needs)
        present = [value if needed else None for value, needed in zip(grads, needs, strict=False)]
        return (*present, *[None] * (len(arguments) - len(present)))


def _differentiate(
    reference: Callable[..., Any], grad: Tensor, arguments: Sequence[Any], needs: Sequence[Any]
) -> tuple[Any, ...]:
    """Differentiates a reference's first result and records the graph of its gradients."""
    result = reference(*arguments)
    result = result[0] if isinstance(result, tuple) else result
    inputs = [
        item
        for value, need in zip(arguments, needs, strict=True)
        for item, needed in (zip(value, need, strict=True) if _is_list(need) else [(value, need)])
        if needed
    ]
    grads = iter(torch.autograd.grad(result, inputs, grad, create_graph=True, allow_unused=True))
    return tuple(
        [next(grads) if needed else None for needed in need]
        if _is_list(need)
        else (next(grads) if need else None)
        for need in needs
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))  # a union would be built at each call


def or_empty(like: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Replaces None by an empty tensor: an operator's results are tensors."""
    return tuple(like.new_empty(0) if tensor is None else tensor for tensor in tensors)


def empty_grads(
    like: Tensor, tensors: Sequence[Tensor | None], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Allocates contiguous gradients of tensors, empty where not needed."""
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed and tensor is not None
        else like.new_empty(0)
        for tensor, needed in zip(tensors, needs, strict=True)
    )
