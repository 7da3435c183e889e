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
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.flop_counter import register_flop_formula

_LIBRARY = torch.library.Library("neuroconv", "FRAGMENT")
_PLAIN: dict[Any, Callable[..., Any]] = {}
_ENABLED: ContextVar[bool] = ContextVar("kernels", default=True)


@contextmanager
def kernels_off() -> Iterator[None]:
    """Inside, neurons run the stages of their definition one by one, as they are written."""
    token = _ENABLED.set(False)
    try:
        yield
    finally:
        _ENABLED.reset(token)


@torch.compiler.assume_constant_result
def kernels_enabled() -> bool:
    """Whether kernels may run in the place of the stages as they are defined."""
    return _ENABLED.get()


def needs_reference() -> bool:
    """Whether plain differentiable operators have to run in an operator's place."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


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


def plain_operators(func: Any) -> Callable[..., Any] | None:
    """The implementation in torch's operators of an operator of this package, for counters."""
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
        self._overload = packet.default
        if plain is not None:
            _PLAIN[self._overload] = plain
        formula = flops or _no_flops
        register_flop_formula(packet)(formula)

    def __call__(self, *args: Any) -> Any:
        return self._overload(*args)

    def register_gradient(
        self,
        gradient: Callable[[Tensor, Sequence[Any], Sequence[Tensor], Sequence[bool]], Any],
        reference: Callable[..., Any],
    ) -> None:
        """Makes the first result differentiable; the others are not.

        Args:
            gradient: of (gradient of the result, arguments, other results, which arguments need a
                gradient) -> a gradient or None for each argument.
            reference: of the same arguments; differentiated where a gradient of the gradient may be
                asked for.
        """

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            others = tree_leaves(output[1:] if isinstance(output, tuple) else ())
            leaves, ctx.structure = tree_flatten(list(inputs))
            ctx.is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
            ctx.values = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            ctx.save_for_backward(*tensors, *others)
            ctx.mark_non_differentiable(*others)

        def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
            saved = iter(ctx.saved_tensors)
            leaves = [
                next(saved) if is_tensor else value
                for is_tensor, value in zip(ctx.is_tensor, ctx.values, strict=True)
            ]
            arguments = tree_unflatten(leaves, ctx.structure)
            needs = list(ctx.needs_input_grad[: len(arguments)])
            if torch.is_grad_enabled():  # this gradient may be differentiated again
                return tuple(by_autograd(reference, grad, arguments, needs, create_graph=True))
            return tuple(gradient(grad, arguments, list(saved), needs))

        torch.library.register_autograd(
            self.name, backward, setup_context=setup_context, lib=_LIBRARY
        )


def by_autograd(
    reference: Callable[..., Any],
    grad: Tensor,
    arguments: Sequence[Any],
    needs: Sequence[Any],
    create_graph: bool = False,
) -> list[Any]:
    """Gradients of a reference's first result to its arguments, None for those that need none.

    Args:
        grad: of the result.
        arguments: of the reference; some may be lists of tensors, as their entry of `needs` is.
        create_graph: let the gradients be differentiated again.
    """
    leaves, structure = tree_flatten(list(arguments))
    flags = tree_leaves(
        [_as_flags(need, value) for need, value in zip(needs, arguments, strict=True)]
    )
    if not create_graph:
        leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for leaf, needed in zip(leaves, flags, strict=True):
            if needed:
                leaf.requires_grad_()
    with torch.enable_grad():
        result = reference(*tree_unflatten(leaves, structure))
    result = result[0] if isinstance(result, tuple) else result
    wanted = [leaf for leaf, needed in zip(leaves, flags, strict=True) if needed]
    grads = iter(
        torch.autograd.grad(result, wanted, grad, create_graph=create_graph, allow_unused=True)
    )
    results = [next(grads) if needed else None for needed in flags]
    return _unflattened(results, arguments)


def _as_flags(need: Any, value: Any) -> list[bool]:
    """Whether each tensor or value of an argument needs a gradient."""
    leaves = tree_leaves(value)
    flags = list(need) if isinstance(need, list | tuple) else [bool(need)] * len(leaves)
    return flags if flags else [False] * len(leaves)


def _unflattened(results: list[Any], arguments: Sequence[Any]) -> list[Any]:
    """One entry for each argument: a list for a list of tensors, else a gradient or None."""
    remaining, entries = iter(results), []
    for value in arguments:
        parts = [next(remaining) for _ in tree_leaves(value)]
        is_list = isinstance(value, list) and any(isinstance(leaf, Tensor) for leaf in value)
        entries.append(parts if is_list else (parts[0] if len(parts) == 1 else None))
    return entries


def _no_flops(*_: Any, **__: Any) -> int:
    return 0


def optional(grads: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients that an operator returned, None for those that nobody needs."""
    return [grad if needed else None for grad, needed in zip(grads, needs, strict=False)]
