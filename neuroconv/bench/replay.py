"""What a call spends in some of its operators alone: they are recorded, and run again.

A convolution by FFT is held against its transforms, an image layer against its convolutions: the
very operators that it called, on the tensors that it gave them, in a row.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch

from neuroconv.flops.calls import OperatorMode, name_of

TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
CONVOLUTIONS = ("convolution", "convolution_backward")


class _Recorder(OperatorMode):
    def __init__(self, operators: Collection[str]) -> None:
        super().__init__()
        self.operators = operators
        self.calls: list[tuple[Any, Any, dict[str, Any]]] = []

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if name_of(func) in self.operators:
            self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)


def operators_alone(
    call: Callable[[], object], operators: Collection[str]
) -> Callable[[], list[object]]:
    """A call that runs only those operators that `call` runs, as often, of the same shapes.

    Their results are kept until all have run.

    Raises:
        ValueError: the call runs none of them.
    """
    recorder = _Recorder(operators)
    with torch.compiler.set_stance("force_eager"), recorder:
        call()
    calls = recorder.calls
    if not calls:
        raise ValueError(f"the call runs none of {', '.join(operators)}")

    def again() -> list[object]:
        with torch.no_grad():
            return [func(*args, **kwargs) for func, args, kwargs in calls]

    return again
