"""One run on a real device: how long it takes, what bounds it, and how much of it is silent."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neuroconv.flops.machine.firing import ActiveShares, firing_shares
from neuroconv.flops.machine.roofline import Peak, Placement, measure_peak, place
from neuroconv.flops.machine.timing import Timing, measure_time
from neuroconv.flops.machine.traffic import Traffic

machine_peak = functools.cache(measure_peak)  # once in a process


@dataclass(frozen=True)
class Measured:
    """A forward pass of the whole batch in eval mode; firing by module path."""

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
    model: nn.Module, inputs: tuple[Tensor, ...], device: str, flop: int, traffic: Traffic
) -> Measured:
    """Measures a run of which FLOPs and traffic are known."""
    peak = machine_peak(device)
    timing = measure_time(model, inputs, device)
    return Measured(
        device=device,
        timing=timing,
        peak=peak,
        placement=place(flop, traffic.moved_bytes, timing.seconds, peak),
        firing=firing_shares(model, inputs, device),
    )
