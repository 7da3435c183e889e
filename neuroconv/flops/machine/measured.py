"""One run on a real device: how long it takes, what bounds it, and how much of it is silent."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuroconv.flops.machine.firing import ActiveShares, firing_shares
from neuroconv.flops.machine.roofline import Peak, Placement, measure_peak, place
from neuroconv.flops.machine.timing import Timing, measure_time

machine_peak = functools.cache(measure_peak)  # once in a process


@dataclass(frozen=True)
class Measured:
    """The measurements of a forward pass in eval mode, for the whole batch.

    `peak` is the machine's, `firing` the active shares by module path.
    """

    device: str
    timing: Timing
    peak: Peak
    placement: Placement
    firing: Mapping[str, ActiveShares]

    def to_dict(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "forward_per_batch": self.timing.to_dict(),
            "peak": self.peak.to_dict(),
            "placement_per_batch": self.placement.to_dict(),
            "firing_by_module": {path: share.to_dict() for path, share in self.firing.items()},
        }


def measure(
    model: nn.Module, inputs: tuple[Tensor, ...], device: str, *, flop: int, moved_bytes: int
) -> Measured:
    """Measures a run that executes `flop` FLOPs and whose operators move `moved_bytes` bytes."""
    peak = machine_peak(device)
    timing = measure_time(model, inputs, device)
    return Measured(
        device=device,
        timing=timing,
        peak=peak,
        placement=place(flop, moved_bytes, timing.seconds, peak),
        firing=firing_shares(model, inputs, device),
    )
