"""CUDA graphs for the inference of small populations, whose kernels take longer to launch than run.

A CUDA graph records the kernels of one call and launches them all at once in later calls.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import checked
from neuroconv.core.cuda_graph import record


@checked
def graphed(module: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Records a module in inference as one CUDA graph, for inputs of one shape.

    The graph holds a copy of the module, at the precision of the present autocast: changes of its
    weights do not reach it; record it again. Each call draws its noise.

    Args:
        module: in eval mode, from one tensor to one tensor, without synchronising the device.
        example: an input; later ones must have its shape, dtype and device.

    Returns:
        A function of such an input, whose result is a new tensor without gradient. For an example
        on the CPU, where there are no graphs, the module itself.

    Raises:
        ValueError: a module in training or on another device; at the call, an input unlike the
            example.
        TypeError: a module that returns something else than one tensor.
        CaptureError: a module that waits for the device.
    """
    if module.training:
        raise ValueError(
            f"{type(module).__name__} is in training mode; a graph is for inference: call "
            "module.eval() first"
        )
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if not devices <= {example.device}:
        raise ValueError(
            f"the example is on {example.device} and the module on "
            f"{', '.join(sorted(map(str, devices)))}; expected one device: use "
            f"module.to({str(example.device)!r}), or move the example"
        )
    if not example.is_cuda:
        return module
    # A copy: the tensors that the graph's kernels read must not be freed or replaced.
    module, static = copy.deepcopy(module), example.detach().clone()
    # Autocast as it is, without its cache, which lies outside the graph's memory.
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    autocast = torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False)
    with torch.no_grad(), autocast:
        replay = record(partial(module, static), example.device)
    if not isinstance(result := replay(), Tensor):
        raise TypeError(
            f"{type(module).__name__} returned {type(result).__name__}; expected one tensor"
        )

    def run(inputs: Tensor) -> Tensor:
        for name in ("shape", "dtype", "device"):
            actual, recorded = getattr(inputs, name), getattr(static, name)
            if actual != recorded:
                raise ValueError(
                    f"the input's {name} is {actual}; the graph was recorded for {recorded}: give "
                    "an input like the example, or record another graph"
                )
        with torch.no_grad():
            static.copy_(inputs)
            return replay().clone()  # the next call overwrites the graph's output

    return run
