"""Compiles Triton kernels for GPUs that are not there, from launches that a trace records."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from neuroconv.kernels.cuda.launch import Kernel, recorded
from neuroconv.kernels.operator import cuda_implementation

CAPABILITIES = (80, 86, 89, 90, 120)
_TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8",
    torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip


class Launch(NamedTuple):
    kernel: Kernel
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


class Compiled(NamedTuple):
    """A kernel for one GPU: its stages by name ("ttir", "ptx"), and what ptxas says."""

    stages: dict[str, Any]
    spilled: int  # bytes that a thread spills from registers, stores and loads


class _OnCuda(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        implementation = cuda_implementation(func)
        if implementation is None:
            return func(*args, **kwargs or {})
        with self:
            return implementation(*args, **kwargs or {})


def launches(run: Callable[[], object]) -> list[Launch]:
    """Returns what `run` launches on tensors without data: it makes them with device "cuda"."""
    seen: list[Launch] = []
    with (
        FakeTensorMode(),
        recorded(lambda kernel, _, args, constants: seen.append(Launch(kernel, args, constants))),
        _OnCuda(),
    ):
        run()
    return seen


def compiled(launch: Launch, capability: int, folder: Path) -> Compiled:
    """Compiles a launch's kernel as Triton does at that launch: numbers that are 1 are constants,
    and pointers and numbers that are divisible by 16 are known to be.

    Args:
        capability: 10 times the GPU's compute capability: 90 is sm_90.
        folder: an empty one, for the program that ptxas reads.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, constants = launch.kernel.function, dict(launch.constants)
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages") if key in constants}
    signature, attributes = {}, {}
    for index, (name, value) in enumerate(zip(function.arg_names, launch.arguments, strict=False)):
        if value is None or (isinstance(value, int) and value == 1):
            constants[name] = value
            continue
        signature[name] = _type(value)
        if isinstance(value, Tensor) or (type(value) is int and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        function, signature | dict.fromkeys(constants, "constexpr"), constants, attributes
    )
    program = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    path = folder / f"{launch.kernel.name}.ptx"
    path.write_text(program.asm["ptx"])
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    name = "ptxas-blackwell" if capability >= 100 else "ptxas"
    target = f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"
    done = subprocess.run(
        [str(assembler / name), "-v", f"--gpu-name={target}", str(path), "-o", "/dev/null"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", done.stderr)]
    assert len(spills) == 2, done.stderr
    return Compiled(program.asm, sum(spills))


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{_TYPES[value.dtype]}"
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if abs(value) < 1 << 31 else "i64"
    return "fp32"
