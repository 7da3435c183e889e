"""The kernels of the soma, `soma.cpp`.

Shapes: T time steps, K taps, U units, L numbers of a step, each U side by side of one place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroconv.kernels.native.call import call

_TILE = 1024  # as in soma.cpp


class Soma:
    """A soma's operands.

    Args:
        maps: currents (T, L), contiguous.
        taps: (K,), the last of which meets the present.
        units: U; 1 where there is neither scale nor offset.
        scale, offset: of each unit, (U,), or None.
        rectifies: rates are what is above zero.
    """

    def __init__(
        self,
        maps: Tensor,
        taps: Tensor,
        units: int,
        scale: Tensor | None,
        offset: Tensor | None,
        rectifies: bool,
    ) -> None:
        self.maps, self.units, self.count = maps, units, len(taps)
        if scale is None and offset is not None:
            scale = torch.ones_like(offset)
        if scale is not None and offset is None:
            offset = torch.zeros_like(scale)
        self._scaled = scale is not None
        numbers = (*maps.shape, units)
        stage = (self._across(scale), self._across(offset), int(rectifies))
        self._operands = (maps, *numbers, taps.contiguous(), len(taps), *stage)

    def rate(self) -> Tensor:
        """(T, L)"""
        result = torch.empty_like(self.maps)
        self._call("soma_rate", result)
        return result

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each unit's potentials before scale and offset, (U,)."""
        mean = self.maps.new_empty(self.units, dtype=torch.float64)
        variance = torch.empty_like(mean)
        self._call("soma_statistics", mean, variance)
        return mean.to(self.maps.dtype), variance.to(self.maps.dtype)

    def sums(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Of each unit, the gradient that passes the rectifier, and it times the potential, (U,);
        of a soma with a scale.

        Args:
            grad: of the rates, (T, L).
        """
        assert self._scaled
        found = grad.new_empty(2, self.units, dtype=torch.float64)
        self._call("soma_sums", grad, found)
        passing, met = found.to(grad.dtype).unbind()
        return passing, met

    def gradients(
        self, grad: Tensor, through: Sequence[Tensor] | None, asked: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients to the maps, the taps and the offsets, where asked for.

        Args:
            grad: of the rates, (T, L).
            through: slope and start, (U,), of the potentials' own statistics.
        """
        slope, start = (None, None) if through is None else map(self._across, through)
        back = torch.empty_like(self.maps) if asked[0] else None
        taps = grad.new_empty(self.count, dtype=torch.float64) if asked[1] else None
        offset = grad.new_empty(self.units, dtype=torch.float64) if asked[2] else None
        self._call("soma_back", grad, slope, start, back, taps, offset)
        found = [None if each is None else each.to(grad.dtype) for each in (taps, offset)]
        return back, found[0], found[1]

    def _across(self, values: Tensor | None) -> Tensor | None:
        """(U,) repeated along a tile."""
        if values is None:
            return None
        return values.to(self.maps.dtype).repeat(max(1, _TILE // self.units))

    def _call(self, name: str, *rest: Tensor | None) -> None:
        call(name, self.maps, *self._operands, *rest)
