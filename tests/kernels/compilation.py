"""Compiles Triton kernels for GPUs that are not there, from launches that a trace records."""

import re
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import neuroconv.neurons  # noqa: F401  # registers the operators
from neuroconv.kernels.cuda.launch import Kernel, recorded
from neuroconv.kernels.operator import cuda_implementation

CAPABILITIES = (80, 86, 89, 90, 120)
_TYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip


class Launch(NamedTuple):
    kernel: Kernel
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


class _OnCuda(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self if func.namespace == "neuroconv" else nullcontext():
            return (cuda_implementation(func) or func)(*args, **kwargs or {})


def launches(run: Callable[[], object]) -> list[Launch]:
    """Returns what `run` launches on tensors without data: it makes them with device "cuda"."""
    seen: list[Launch] = []
    record = recorded(lambda kernel, _, *rest: seen.append(Launch(kernel, *rest)))
    with record, FakeTensorMode(), _OnCuda():
        run()
    return seen


def compiled(launch: Launch, capability: int, folder: Path) -> tuple[str, int]:
    """Compiles a launch's kernel for sm_90 (capability 90) as Triton does at that launch: numbers
    that are 1 are constants, and what is divisible by 16 is known to be.

    Returns the program (PTX), and the bytes that a thread spills from registers and loads again.
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
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(function, signature, constants, attributes)
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
    stores, loads = re.findall(r"(\d+) bytes spill", done.stderr)
    return program.asm["ptx"], int(stores) + int(loads)


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{_TYPES[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "i1" if isinstance(value, bool) else "i32" if abs(value) < 1 << 31 else "i64"
