"""What evaluation makes of filters, kept from call to call until a filter changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuroconv.core.counting import is_counting
from neuroconv.kernels.operator import needs_reference

# A transform takes up to 16 times its filter's memory: for large populations making it anew is
# cheaper than keeping it.
_MOST_BYTES = 1 << 30


class _Held(NamedTuple):
    key: Any
    copies: tuple[Tensor, ...]
    made: Tensor


class FilterCache:
    """Holds what was made of some tensors last, while no gradient is asked for.

    On the CPU it is made anew when any value of the tensors differs, however it was changed: they
    are compared with copies, which takes a fraction of what making takes. On other devices, where a
    comparison would wait for the device, it goes by the tensors' own count of changes: assigning to
    `weight.data` escapes that, and `clear` or `train()` drops what is held.

    It is no part of a module's state: copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Lets go of what is held."""
        # In one place, taken and set at once: replicas of a module on several threads share it.
        self._held: _Held | None = None

    def get(
        self, sources: tuple[Tensor, ...], key: Any, numbers: int, make: Callable[[], Tensor]
    ) -> Tensor | None:
        """`make()`, or its last result if it would be the same.

        Args:
            sources: the tensors that the result is made of.
            key: of what else it depends on.
            numbers: real numbers in the result.
            make: without arguments.

        Returns:
            the result; None where nothing is kept: while a gradient is asked for, a tracer,
            compiler or counter looks on, or the result would take more than a gibibyte.
        """
        if not _holds(sources) or numbers * sources[0].element_size() > _MOST_BYTES:
            return None
        full = (key, *(_identity(source) for source in sources))
        held = self._held
        if held is None or held.key != full or not all(map(_equal, held.copies, sources)):
            self.clear()
            copies = tuple(s.detach().clone() if s.is_cpu else s for s in sources)
            held = self._held = _Held(full, copies, make())
        return held.made

    def __deepcopy__(self, memo: Any) -> "FilterCache":
        return FilterCache()

    def __reduce__(self) -> Any:
        return FilterCache, ()


def _holds(sources: tuple[Tensor, ...]) -> bool:
    """Plain tensors with data, with no gradient, tracer, compiler or counter at work."""
    return (
        not is_counting()
        and not torch.is_grad_enabled()
        and not needs_reference()
        and not torch.compiler.is_compiling()
        and all(type(s) in (Tensor, torch.nn.Parameter) and not s.is_meta for s in sources)
        and all(s.is_cpu or not s.is_inference() for s in sources)
    )


def _identity(source: Tensor) -> Any:
    same = (source.shape, source.dtype, source.device)
    return same if source.is_cpu else (*same, source.data_ptr(), source._version)


def _equal(copy: Tensor, source: Tensor) -> bool:
    return not source.is_cpu or torch.equal(copy, source)


class ClawCheck:
    """Whether the sites of each dendrite share one axon, as a wiring stands now.

    The answer is kept until the wiring changes. Where its values cannot be read (on meta, under a
    compiler or a transform of `torch.func`) the wiring is taken to be as it was last; so it is
    under a counter, which would count the comparison.

    Args:
        sites: of a dendrite.
        claw: the answer for a wiring that was never read.
    """

    def __init__(self, sites: int, claw: bool) -> None:
        self.sites = sites
        self._last: tuple[Any, bool] = (None, claw)

    def __call__(self, wiring: Tensor) -> bool:
        if torch.compiler.is_compiling() or is_counting() or needs_reference() or wiring.is_meta:
            return self._last[1]
        # An inference tensor keeps no count of its changes: it is compared each time.
        key = None if wiring.is_inference() else (wiring.data_ptr(), wiring._version)
        if key is None or key != self._last[0]:
            first = wiring[:, :: self.sites].repeat_interleave(self.sites, 1)
            self._last = (key, torch.equal(first[:, : wiring.shape[1]], wiring))
        return self._last[1]
