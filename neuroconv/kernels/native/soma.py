"""The kernels of the soma, `soma.cpp`.

Shapes: T time steps, K taps, U units, L numbers of a step: positions by units, the units innermost.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroconv.kernels.native import call

_TILE = 1024  # as in soma.cpp


class Soma:
    """A soma's operands.

    Args:
        maps: currents (T, L), contiguous.
        taps: (K,), the last of which applies to the present.
        units: U; 1 where there is neither scale nor offset.
        scale, offset: of each unit, (1, U), or None.
        rectifies: rates are max(0, potential).
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
        stage = (self._repeat(scale), self._repeat(offset), int(rectifies))
        self._operands = (maps, *numbers, taps.contiguous(), len(taps), *stage)

    def rate(self) -> Tensor:
        """Computes the rates, (T, L)."""
        result = torch.empty_like(self.maps)
        self._call("soma_rate", result)
        return result

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Returns mean and biased variance of each unit's potentials before the scale, (1, U)."""
        mean = self.maps.new_empty(1, self.units, dtype=torch.float64)
        variance = torch.empty_like(mean)
        self._call("soma_statistics", mean, variance)
        return mean.to(self.maps.dtype), variance.to(self.maps.dtype)

    def sums(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Sums each unit's gradient past the rectifier, and its product with the potential, (1, U).

        The soma must have a scale; grad is that of the rates, (T, L).
        """
        assert self._scaled
        sums = grad.new_empty(2, 1, self.units, dtype=torch.float64)
        self._call("soma_sums", grad, sums)
        passing, products = sums.to(grad.dtype).unbind()
        return passing, products

    def gradients(
        self, grad: Tensor, coeffs: Sequence[Tensor] | None, needs: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Computes the gradients of maps, taps and offsets, None where not needed.

        `coeffs` is slope and start of the statistics' gradient, (1, U), from `norm_backward`.
        """
        slope, start = (None, None) if coeffs is None else map(self._repeat, coeffs)
        to_maps = torch.empty_like(self.maps) if needs[0] else None
        taps = grad.new_empty(self.count, dtype=torch.float64) if needs[1] else None
        offset = grad.new_empty(1, self.units, dtype=torch.float64) if needs[2] else None
        self._call("soma_back", grad, slope, start, to_maps, taps, offset)
        to_taps, to_offset = (None if x is None else x.to(grad.dtype) for x in (taps, offset))
        return to_maps, to_taps, to_offset

    def _repeat(self, values: Tensor | None) -> Tensor | None:
        """Repeats (1, U) along a tile."""
        if values is None:
            return None
        return values.to(self.maps.dtype).repeat(1, max(1, _TILE // self.units))

    def _call(self, name: str, *rest: Tensor | None) -> None:
        call(name, self.maps, *self._operands, *rest)
