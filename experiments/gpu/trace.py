"""Traces what workloads launch and move on a CUDA device, without one.

    python experiments/gpu/trace.py [NAME ...]     the beginnings of names, by default all
    python experiments/gpu/trace.py --record       into trace.json, by version of neuroconv
    python experiments/gpu/trace.py --table        the recorded versions side by side

Tensors say that they are on CUDA and hold no data (torch's FakeTensorMode), so that the code for
CUDA runs, kernels in Triton are recorded in place of being run, and every operator is seen. Of two
calls the second is traced: the first makes the constants that later ones read.

    launches  calls of operators that are neither views nor allocations, and of Triton kernels. An
              operator may run several kernels, such as a transform or a large sum
    bytes     of every tensor that a launch reads or writes, each once; a broadcast one once only
    copies    calls that move numbers between host and device or make the host wait
"""

import argparse
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import compress, product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import neuroconv
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.kernels.cuda.launch import Kernel, recorded
from neuroconv.kernels.operator import cuda_implementation
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.training import TrainConfig
from neuroconv.training.distributed import Ranks
from neuroconv.training.optimizer import make_optimizer
from neuroconv.training.state import State
from neuroconv.training.step import Step
from neuroconv.training.task import Task

DEVICE = torch.device("cuda:0")
BYTES_PER_SECOND = 4.3e12  # of an H200's memory, read and written; data sheet 4.8e12
RECORD = Path(__file__).with_name("trace.json")
# Operators that launch nothing, beside views.
_NO_LAUNCH = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view",
    "detach", "alias", "lift_fresh", "_reshape_alias", "set_", "resize_",
}  # fmt: skip
# Operators whose mutated argument is not read.
_OVERWRITES = {"copy_", "zero_", "fill_", "uniform_", "normal_", "random_", "bernoulli_"}
# Operators by which the host waits for numbers of the device.
_WAITS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2"}


@dataclass(eq=False)
class Trace(TorchDispatchMode):
    """What runs in its context on fake CUDA tensors."""

    launches: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    copies: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if (implementation := cuda_implementation(func)) is not None:
            with self:  # and see what it runs
                return implementation(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        result = func(*args, **kwargs)
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        results = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        places = {x.device.type for x in results} | {x.device.type for x in operands if x.dim()}
        crosses = name in ("copy_", "_to_copy", "index_put_", "index_put") and (
            len({x.device.type for x in (*operands, *results)}) > 1
        )
        if (name in _WAITS and "cuda" in places) or crosses:
            self.copies.append(f"{name} at {_place()}")
        is_kernel = func.namespace != "prim" and name not in _NO_LAUNCH and not func.is_view
        if "cuda" in places and is_kernel:
            unread = operands if name.endswith("_like") or name.startswith("new_") else []
            if name in _OVERWRITES:
                unread = [operands[0]]
            read = {id(x): x for x in operands if not any(x is y for y in unread)}
            self._add(name, [*read.values(), *results])
        return result

    def launch(self, kernel: Kernel, grid: Any, arguments: Sequence[Any], constants: Any) -> None:
        tensors = {id(x): x for x in arguments if isinstance(x, Tensor)}
        self._add(kernel.name, [*tensors.values()])

    def _add(self, name: str, tensors: Sequence[Tensor]) -> None:
        self.launches[name] += 1
        self.bytes[name] += sum(_bytes(x) for x in tensors if x.device.type == "cuda")

    @property
    def total_launches(self) -> int:
        return self.launches.total()

    @property
    def total_bytes(self) -> int:
        return self.bytes.total()

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.total_bytes / BYTES_PER_SECOND


def _bytes(tensor: Tensor) -> int:
    numbers = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= size if stride or not size else 1
    return numbers * tensor.element_size()


def _place() -> str:
    """Returns the line of this package that called the operator."""
    root = str(Path(neuroconv.__file__).parent)
    calls = [call for call in traceback.extract_stack() if call.filename.startswith(root)]
    if not calls:
        return "a line outside neuroconv"
    return f"{Path(calls[-1].filename).relative_to(root)}:{calls[-1].lineno}"


@contextmanager
def traced() -> Iterator[Trace]:
    """Traces the context; to be used within `FakeTensorMode`."""
    trace = Trace()

    def watched(function: Any, *args: Any) -> Any:
        result = super(torch.autograd.Function, function).apply(*args)
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.grad_fn is not None:
                # Edges of its node are those of tensors alone.
                x.grad_fn.takes_tensors = [isinstance(value, Tensor) for value in args]
                break
        return result

    select: Any = torch._C._select_conv_backend

    def by_float32(*operands: Tensor, **options: Any) -> Any:
        """Without a device torch takes it that cuDNN has no bfloat16, and copies channels-last
        maps."""
        options = dict(zip(("input", "weight"), operands, strict=False)) | options
        for name in ("input", "weight"):
            options[name] = torch.empty_like(options[name], dtype=torch.float32)
        return select(**options)

    with (
        recorded(trace.launch),
        trace,
        mock.patch.object(torch.autograd.Function, "apply", classmethod(watched)),
        mock.patch.object(torch._C, "_select_conv_backend", by_float32),
    ):
        yield trace


def on_fake_cuda(module: nn.Module) -> nn.Module:
    """Replaces a module's tensors by ones of the same shape without data on CUDA, in place; call it
    within `FakeTensorMode`."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, x in tensors.items():
                if x is not None:
                    fake = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=DEVICE)
                    is_parameter = isinstance(x, nn.Parameter)
                    tensors[name] = nn.Parameter(fake, x.requires_grad) if is_parameter else fake
    return module


@contextmanager
def autocast(precision: torch.dtype | None) -> Iterator[None]:
    """Switches autocast on for CUDA; `torch.autocast` does not without a device."""
    if precision is None:
        yield
        return
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", precision)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def backward(result: Tensor) -> None:
    """Runs the backward pass of the sum of a result, node by node.

    Torch's engine asks CUDA for its streams, and fails without a device.
    """
    assert result.grad_fn is not None
    nodes, readers = [result.grad_fn], Counter[Any]()
    for node in nodes:  # which grows
        for child, _ in node.next_functions:
            if child is not None:
                if child not in readers:
                    nodes.append(child)
                readers[child] += 1
    grads: dict[Any, dict[int, Tensor]] = {result.grad_fn: {0: torch.ones_like(result)}}
    ready = [result.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            grad = grads.pop(node, {})
            if (leaf := getattr(node, "variable", None)) is not None:
                if grad:
                    leaf.grad = grad[0] if leaf.grad is None else leaf.grad + grad[0]
                continue
            run = getattr(node, "apply", node)  # an autograd.Function, or a node of torch's own
            back = run(*[grad.get(i) for i in range(len(node._input_metadata))]) if grad else ()
            back = back if isinstance(back, tuple) else (back,)
            if (tensors := getattr(node, "takes_tensors", None)) is not None:
                back = tuple(compress(back, tensors))
            for i, (child, index) in enumerate(node.next_functions):
                if child is None:
                    continue
                if i < len(back) and back[i] is not None:
                    entry = grads.setdefault(child, {})
                    shape = child._input_metadata[index].shape
                    grad = back[i] if back[i].shape == shape else back[i].sum_to_size(shape)
                    entry[index] = entry[index] + grad if index in entry else grad
                readers[child] -= 1
                if not readers[child]:
                    ready.append(child)


def _module(build: Callable[[], nn.Module], *shape: int, precision: Any = None, learns: bool = True,
            inputs_grad: bool = True) -> Trace:  # fmt: skip
    """Traces a module's forward pass, in training followed by a backward pass."""
    module = build().train(learns)
    with FakeTensorMode():
        on_fake_cuda(module)
        inputs = torch.empty(shape, device=DEVICE, requires_grad=inputs_grad and learns)
        for _ in range(2):  # the first call makes the constants that later ones read
            module.zero_grad()
            inputs.grad = None
            with traced() as trace, torch.set_grad_enabled(learns):
                with autocast(precision):
                    result = module(inputs)
                if learns:
                    backward(result)
    return trace


def _purkinje(both: bool) -> Trace:
    """Traces the dendritic convolution of 32 samples of 64 cells with the full filter."""
    with FakeTensorMode():
        sheet = torch.empty(32, 64, 5, 100, 1000, device=DEVICE, requires_grad=both)
        filters = torch.empty(64, 5, 10, 1000, device=DEVICE, requires_grad=both)
        for _ in range(2):
            sheet.grad = filters.grad = None
            with traced() as trace, torch.set_grad_enabled(both):
                result = dendritic_conv(sheet, filters)
                if both:
                    backward(result)
    return trace


def _task(name: str) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of an entry's images, and the number of its classes."""
    large = name.startswith(("resnet", "alexnet", "mobilenet", "vit"))
    return ((3, 224, 224), 1000) if large else ((1, 28, 28), 10)


def _zoo(name: str, learns: bool) -> Trace:
    image, classes = _task(name)
    return _module(
        lambda: neuroconv.create_model(name, image_shape=image, num_classes=classes), 32, *image,
        learns=learns, inputs_grad=False,
    )  # fmt: skip


# Shapes of the optimisers' kernels with the learning rate in memory, which torch does not define.
_META = torch.library.Library("aten", "IMPL", "Meta")
for _name in ("_fused_adamw_", "_fused_sgd_"):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}.tensor_lr", "Meta"):
        _META.impl(f"{_name}.tensor_lr", lambda *_, **__: None)  # once in a process


def training_step(name: str, **settings: Any) -> Trace:
    """Traces a whole step as the trainer records it: pass, loss, clipped gradient and update."""
    image, classes = _task(name)
    model = neuroconv.create_model(name, image_shape=image, num_classes=classes).train()
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "precision": "float32"}
    config = TrainConfig(**{**options, "cuda_graph": True, **settings})
    recording = mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True)
    with FakeTensorMode(), recording, mock.patch.object(Tensor, "backward", backward):
        optimizer = make_optimizer(on_fake_cuda(model), config)
        step = Step(model, State(model, optimizer, Ranks(), DEVICE, Ranks()), config, Task(), 32)
        labels = torch.empty(32, dtype=torch.int64, device=DEVICE)
        batch = torch.empty(32, *image, device=DEVICE), labels
        with traced():
            step([batch])  # makes the optimiser's state
        with traced() as trace:
            step([batch])
    return trace


def compiled(name: str) -> tuple[set[str], set[str]]:
    """Compiles the forward pass of an entry in training; returns the devices of its tensors, and
    the names of the parameters and buffers that it changes.

    Raises an error if it is more than one program, of which torch.compile would keep a CUDA graph
    each.
    """
    from functorch.compile import make_boxed_func  # slow to import
    from torch._dynamo.backends.common import aot_autograd

    programs: list[Any] = []

    def keep(program: Any, inputs: Any) -> Any:
        programs.append(program)
        return make_boxed_func(program.forward)

    torch.compiler.reset()
    image, classes = _task(name)
    model = neuroconv.create_model(name, image_shape=image, num_classes=classes).train()
    backend = aot_autograd(fw_compiler=keep, inference_compiler=keep)
    with FakeTensorMode(), torch.no_grad():  # torch's engine fails without a device
        state = on_fake_cuda(model).state_dict(keep_vars=True)
        before = {key: x._version for key, x in state.items()}
        inputs = torch.empty(8, *image, device=DEVICE)
        torch.compile(model, backend=backend, fullgraph=True)(inputs)
    (program,) = programs
    values = tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    devices = {x.device.type for x in values if isinstance(x, Tensor)}
    return devices, {key for key, x in state.items() if x._version != before[key]}


def workloads() -> dict[str, Callable[[], Trace]]:
    """Returns by name what can be traced."""
    half = torch.bfloat16
    named: dict[str, Callable[[], Trace]] = {}
    for learns in (False, True):
        way = "both ways" if learns else "forward"
        named[f"Purkinje convolution, {way}"] = partial(_purkinje, learns)
        named[f"Purkinje cells, {way}"] = partial(
            _module, partial(Purkinje, 10_000, 64), 32, 10_000, 5, learns=learns
        )
    cells = partial(Granule, 4096, 4096, norm="soma")
    named["granule cells, training"] = partial(_module, cells, 32, 4096, 5)
    named["granule cells, training, bf16"] = partial(
        _module, cells, 32, 4096, 5, precision=half
    )  # fmt: skip
    for norm, wiring, precision, learns in product(
        ("none", "both"), ("dense", "claw"), (None, half), (False, True)
    ):
        kind = f"image layer, norm {norm}, {wiring}, {'both ways' if learns else 'forward'}"
        named[kind + ("" if precision is None else ", bf16")] = partial(
            _module, partial(GranuleConv2d, 16, 16, padding="same", norm=norm, wiring=wiring),
            128, 16, 5, 112, 112, precision=precision, learns=learns,
        )  # fmt: skip
    for name in traceable():
        named[f"{name}, training"] = partial(_zoo, name, True)
        named[f"{name}, evaluation"] = partial(_zoo, name, False)
        named[f"{name}, whole training step"] = partial(training_step, name)
    return named


def traceable() -> list[str]:
    """Returns the zoo's entries but those on cuDNN's recurrent layers, which need a real device."""
    return [name for name in neuroconv.list_models(installed=True) if name not in ("gru", "lstm")]


def markdown(record: dict[str, Any]) -> str:
    """Returns the table of the recorded versions, first and last, of workloads in both."""
    first, last = next(iter(record)), list(record)[-1]
    lines = [
        f"| workload | launches, {first} | {last} | ms of bytes, {first} | {last} |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, now in record[last]["workloads"].items():
        if name not in record[first]["workloads"] or name.endswith(
            (", evaluation", ", whole training step")
        ):
            continue
        rows = record[first]["workloads"][name], now
        launches = [f"{row['launches']:,}" for row in rows]
        times = [f"{1e3 * row['bytes'] / BYTES_PER_SECOND:.3g}" for row in rows]
        lines.append(f"| {name} | {' | '.join((*launches, *times))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; by default all")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--operators", action="store_true", help="print each operator's launches")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--table", action="store_true", help=f"print {RECORD.name} and end")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if options.table:
        print(markdown(record))
        return
    chosen = {
        name: run
        for name, run in workloads().items()
        if not options.names or name.startswith(tuple(options.names))
    }
    if not chosen:
        parser.error(f"no workload begins with {options.names}; --list prints their names")
    if options.list:
        print("\n".join(chosen))
        return
    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table("workload", "launches", "GB", "ms at 4.3 TB/s", "host copies")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = {}
    for name, run in track(chosen.items(), "tracing", console=Console(stderr=True)):
        trace = run()
        copies = len(trace.copies)
        rows[name] = {
            "launches": trace.total_launches, "bytes": trace.total_bytes, "host_copies": copies,
        }  # fmt: skip
        table.add_row(
            name, f"{trace.total_launches:,}", f"{trace.total_bytes / 1e9:.3f}",
            f"{trace.milliseconds:.3f}", str(copies),
        )  # fmt: skip
        if options.operators:
            for operator, number in trace.launches.most_common():
                console.print(f"{number:6} {trace.bytes[operator] / 1e9:9.3f} GB  {operator}")
            console.print(*sorted(Counter(trace.copies).items()), sep="\n")
    console.print(table)
    if options.record:
        version = {"torch": torch.__version__, "workloads": rows}
        RECORD.write_text(json.dumps({**record, neuroconv.__version__: version}, indent=1) + "\n")


if __name__ == "__main__":
    main()
