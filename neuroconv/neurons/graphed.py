"""CUDA graphs for the inference of small populations, whose kernels take longer to launch than run.

A CUDA graph records the kernels of one call and launches them all at once in later calls.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import checked


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
    return _Graph(module, example) if example.is_cuda else module


class _Graph:
    def __init__(self, module: nn.Module, example: Tensor) -> None:
        # A copy: the tensors that the graph's kernels read must not be freed or replaced.
        self._module = copy.deepcopy(module)
        self._input = example.detach().clone()
        self._graph = torch.cuda.CUDAGraph()
        # Autocast as it is, without its cache, which lies outside the graph's memory.
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        autocast = torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False)
        with torch.cuda.device(example.device), torch.no_grad(), autocast:
            # Warm up libraries, compiled kernels and caches on a side stream, as capture demands.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    result = self._module(self._input)
            torch.cuda.current_stream().wait_stream(stream)
            if not isinstance(result, Tensor):
                raise TypeError(
                    f"{type(module).__name__} returned {type(result).__name__}; expected one tensor"
                )
            with torch.cuda.graph(self._graph):
                self._output: Tensor = self._module(self._input)

    def __call__(self, inputs: Tensor) -> Tensor:
        for name in ("shape", "dtype", "device"):
            actual, recorded = getattr(inputs, name), getattr(self._input, name)
            if actual != recorded:
                raise ValueError(
                    f"the input's {name} is {actual}; the graph was recorded for {recorded}: give "
                    "an input like the example, or record another graph"
                )
        with torch.no_grad(), torch.cuda.device(inputs.device):
            self._input.copy_(inputs)
            self._graph.replay()
            return self._output.clone()  # the next call overwrites the graph's output
