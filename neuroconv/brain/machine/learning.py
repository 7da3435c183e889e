"""The share of a machine's peak that a network reaches while it learns."""

import torch
from torch import Tensor, nn

from neuroconv.brain.quantity import Quantity
from neuroconv.flops.exact import count_exact
from neuroconv.flops.machine.measured import machine_peak
from neuroconv.flops.machine.roofline import Peak, measure_peak
from neuroconv.flops.machine.timing import measure_time
from neuroconv.references import Source


def learning_share(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    device: str = "cpu",
    *,
    name: str = "",
    seconds: float = 5.0,
) -> Quantity:
    """Returns the FLOP/s of a training step over the machine's measured peak, both in float32.

    A step is the forward and the backward pass, down to every parameter's gradient; the loss, the
    optimizer and the loading of data are left out. FLOPs by the exact counter; the peak by the
    fastest of some matrix products and convolutions. The model is left untouched.

    Args:
        model: any network.
        inputs: a batch of its arguments, the batch first.
        device: "cpu" or "cuda".
        name: of the model, for the source; default its class.
        seconds: roughly how long to time steps.

    Returns:
        the share, of unit "1", as `neuroconv.brain.growth.sections.share_claim` takes it.

    Raises:
        ValueError: a device that cannot be timed or is missing, or a model without parameters that
            learn.
    """
    counts = count_exact(model, inputs, backward=True, training=True)
    assert counts.backward is not None
    flop = counts.flop + counts.backward.flop
    timing = measure_time(model, inputs, device, backward=True, training=True, seconds=seconds)
    peak = peak_again(machine_peak(device))
    first = inputs if isinstance(inputs, Tensor) else inputs[0]
    shape = " x ".join(str(size) for size in first.shape)
    title = name or type(model).__name__
    how = (
        f"measured here: `training.flop` / `training.seconds` / `machine.peak`: {flop:.4g} FLOP "
        f"forward and backward in {timing.seconds:.3g} s (median of {timing.repeats} repeats), "
        f"{peak.flop_per_s:.3g} FLOP/s in a {peak.kernel}"
    )
    note = f"{title}, inputs {shape}, without loss and optimizer; {describe(peak)}"
    return Quantity(
        name=f"learning.{title}.share_of_peak",
        value=flop / timing.seconds / peak.flop_per_s,
        unit="1",
        source=Source("derived", how, note),
    )


def peak_again(peak: Peak) -> Peak:
    """Returns the faster of a peak and a second measurement: other programs can only lower it."""
    again = measure_peak(peak.device_type)
    return again if again.flop_per_s > peak.flop_per_s else peak


def describe(peak: Peak) -> str:
    """Returns the machine in a few words: its name, its threads, its arithmetic."""
    detail = peak.float32_arithmetic or f"{peak.threads} thread{'s' * (peak.threads != 1)}"
    return f"{peak.device}, {detail}, {peak.dtype}, PyTorch {torch.__version__}"
