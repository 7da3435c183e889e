"""Caches of what evaluation computes from filters, valid until a filter changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels.operator import is_traced

# A transform takes up to 16 times its filter's memory: large populations recompute it.
_MOST_BYTES = 1 << 30


class _Entry(NamedTuple):
    key: Any
    copies: tuple[Tensor, ...]
    result: Tensor


class FilterCache:
    """The last result computed from some tensors, kept while no gradient is needed.

    The tensors are compared with copies, which takes a fraction of the computation, and the result
    is recomputed when any value differs, however it was changed. Nothing is cached off the CPU,
    where a comparison would wait for the device and no counter shows that a fused optimiser or
    `weight.data.mul_` has changed a value: transforms are a tenth of the bytes that the full
    Purkinje filter moves for one sample, and less for more.

    It is not part of a module's state: copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drops the result."""
        # One attribute, read and set at once: replicas of a module on several threads share it.
        self._entry: _Entry | None = None

    def get(
        self, sources: tuple[Tensor, ...], key: Any, numbers: int, compute: Callable[[], Tensor]
    ) -> Tensor | None:
        """Returns `compute()`, or its last result if that would be equal.

        It is None where nothing is cached: off the CPU, in grad mode, under a tracer, compiler or
        counter, or if the result takes more than a gibibyte.

        Args:
            sources: the tensors that the result is computed from.
            key: everything else that the result depends on.
            numbers: real numbers in the result.
        """
        if not _may_cache(sources) or numbers * sources[0].element_size() > _MOST_BYTES:
            return None
        full_key = (key, *((source.shape, source.dtype) for source in sources))
        entry = self._entry
        same = entry is not None and entry.key == full_key
        if entry is None or not (same and all(map(torch.equal, entry.copies, sources))):
            self.clear()
            copies = tuple(source.detach().clone() for source in sources)
            entry = self._entry = _Entry(full_key, copies, compute())
        return entry.result

    def __deepcopy__(self, memo: Any) -> "FilterCache":
        return FilterCache()

    def __reduce__(self) -> Any:
        return FilterCache, ()


def _may_cache(sources: tuple[Tensor, ...]) -> bool:
    """Returns whether sources are plain tensors on the CPU, outside grad mode and tracers."""
    return (
        not is_counting()
        and not torch.is_grad_enabled()
        and not is_traced()
        and all(type(s) in (Tensor, torch.nn.Parameter) and s.is_cpu for s in sources)
    )


class ClawCheck:
    """A check whether the sites of each dendrite share one axon, cached until the wiring changes.

    The last result, at first `claw`, also stands where values cannot be read (on meta, under a
    compiler or a transform of `torch.func`), and under a counter, which would count the comparison.
    Off the CPU a comparison waits for the device, once after each change or move.
    """

    def __init__(self, sites: int, claw: bool) -> None:
        self.sites = sites
        self._last: tuple[Any, bool] = (None, claw)

    def __call__(self, wiring: Tensor) -> bool:
        if is_traced() or is_counting() or wiring.is_meta or type(wiring) is not Tensor:
            return self._last[1]
        # An inference tensor has no version counter: it is compared each time.
        key = None if wiring.is_inference() else (wiring.data_ptr(), wiring._version)
        if key is None or key != self._last[0]:
            first = wiring[:, :: self.sites].repeat_interleave(self.sites, 1)
            self._last = (key, torch.equal(first[:, : wiring.shape[1]], wiring))
        return self._last[1]
