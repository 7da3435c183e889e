"""The package's internals that the benchmark needs: everything else here uses public names."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from neuroconv.flops.calls import OperatorMode
from neuroconv.kernels import native
from neuroconv.kernels.conv import choice
from neuroconv.kernels.conv.costs import problem_macs
from neuroconv.kernels.conv.sizes import BACKENDS, ConvProblem
from neuroconv.kernels.cuda import fused_kernels
from neuroconv.kernels.cuda import state as triton_state
from neuroconv.kernels.cuda.launch import Kernel
from neuroconv.kernels.population import fuses, tree_spec
from neuroconv.training.glibc_malloc import keep_freed_memory

__all__ = [
    "FORCED",
    "OperatorMode",
    "choice",
    "chosen_backend",
    "conv_problem",
    "fused_kernels",
    "keep_freed_memory",
    "kernel_state",
    "launched",
    "mend_interpreter",
    "problem_macs",
    "torch_operators",
    "tree_problem",
    "triton_kernels",
    "triton_state",
    "with_backend",
]

FORCED = tuple(backend for backend in BACKENDS if backend != "auto")


def kernel_state() -> str:
    """Returns "on" if the C++ kernels run, else "off" and the reason."""
    return native.state()


def torch_operators() -> AbstractContextManager[None]:
    """Returns a context in which torch's operators run in place of the C++ kernels."""
    return native.native_kernels(False)


def chosen_backend(shape: Any, device: str, gradients: bool) -> str:
    """Returns the backend that "auto" runs for a `workloads.Shape`."""
    return choice.choose_backend(conv_problem(shape), gradients=gradients, device=device)


def conv_problem(shape: Any) -> ConvProblem:
    """Returns the convolution of a `workloads.Shape`."""
    return ConvProblem(shape.sheet, shape.taps, shape.mode, shape.batch, shape.neurons)


def with_backend(kind: Any, *sizes: int, backend: str, **keywords: Any) -> nn.Module:
    """Returns a population whose dendrites are forced to one backend."""
    population: nn.Module = kind(*sizes, taps={"backend": backend}, **keywords)
    return population


def tree_problem(cells: Any, batch: int, steps: int) -> tuple[Any, int, bool]:
    """Returns a population's convolution, the axons of a tree, and whether it runs as one stage."""
    fan_in, fused = tree_spec(cells).fan_in, fuses(cells, batch, steps)
    return cells.dendrites.problem(batch, steps), fan_in, fused


@contextmanager
def launched() -> Iterator[dict[str, int]]:
    """Counts the launches of Triton kernels in the context, by their names."""
    counts: dict[str, int] = {}
    launch = Kernel.launch

    def counted(kernel: Kernel, *arguments: Any, **constants: Any) -> None:
        name = ".".join(kernel)
        counts[name] = counts.get(name, 0) + 1
        launch(kernel, *arguments, **constants)

    Kernel.launch = counted  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Kernel.launch = launch  # type: ignore[method-assign]


def triton_kernels() -> set[str]:
    """Returns the names of the Triton kernels of all modules that are loaded."""
    modules = [module for name, module in sys.modules.items() if name.startswith("neuroconv.")]
    values = [value for module in modules for value in vars(module).values()]
    return {".".join(value) for value in values if isinstance(value, Kernel)}


def mend_interpreter() -> None:
    """Lets Triton 3.6's interpreter read a number from an array of one, which NumPy 2.4 refuses."""
    interpreter = importlib.import_module("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched
