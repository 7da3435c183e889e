"""What is asked of a data-centre GPU beyond the ratios that a CPU shows too."""

from collections.abc import Iterator

import torch
from torch import nn

from neuroconv.bench.image_layer import SIZES
from neuroconv.bench.kernels import (
    NO_FFT_CONV,
    TASKS,
    conv3d,
    fft_conv,
    kernel_job,
    module_job,
    ours,
    pad_same,
)
from neuroconv.bench.purkinje import words
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.turns import Failure, Job, Outcome, Turns, release
from neuroconv.brain import READINGS, default_inputs, measure_real_time
from neuroconv.flops import Peak, measure_peak
from neuroconv.neurons import Granule, GranuleConv2d

_FASTER = 10.0
_BANDWIDTH_AT_LEAST, _ARITHMETIC_AT_LEAST = 0.6, 0.5


def purkinje_population(bench: Bench) -> Iterator[Row]:
    """Full Purkinje cells, batch 32 x 64 neurons, against cuDNN's conv3d and fft-conv-pytorch.

    Each rival is tried at the full size, and where memory does not allow that, or conv3d would
    take too long, at one sample of one neuron; what is said of the full size is then extrapolated,
    linearly, and labelled so.
    """
    torch.manual_seed(0)
    batch, neurons = bench.pick((32, 64), (2, 2))
    shape, taps = bench.pick(((5, 100, 1000), (5, 10, 1000)), ((5, 10, 60), (5, 4, 60)))
    for task in TASKS:
        sheet, filters = bench.randn(batch, neurons, *shape), bench.randn(neurons, *taps)
        times = bench.turns({"neuroconv": kernel_job(ours(), sheet, filters, task)}, share=2)
        rivals = {"conv3d": conv3d, "fft_conv_pytorch": fft_conv()}
        notes = []
        estimates: dict[str, float] = {}
        for name, function in rivals.items():
            if function is None:
                times[name] = Failure(NO_FFT_CONV)
                continue
            one = kernel_job(function, pad_same(sheet[:1, :1], taps), filters[:1], task)
            single = bench.turns({name: one})[name]
            outcome: Outcome = Failure("conv3d is extrapolated from one sample of one neuron")
            if name != "conv3d" or bench.quick:
                padded = pad_same(sheet, taps)
                outcome = bench.turns({name: kernel_job(function, padded, filters, task)})[name]
                del padded
                release(bench.device)
            times[name] = outcome
            times[f"{name}, 1 x 1"] = single
            if isinstance(outcome, Turns):
                estimates[name] = outcome.timing.seconds
            elif isinstance(single, Turns):
                estimates[name] = single.timing.seconds * batch * neurons
                notes.append(f"{name} at {batch} x {neurons}: extrapolated from 1 x 1, linearly")
        own = times["neuroconv"]
        value = None
        if isinstance(own, Turns) and estimates:
            value = min(estimates.values()) / own.timing.seconds
        best = min(estimates, key=lambda name: estimates[name], default="none")
        figure = Figure(
            "best_rival_over_neuroconv_ratio", f"times faster than the best rival, {best}", value,
            at_least=bench.for_cuda(_FASTER),
        )  # fmt: skip
        sizes = {"batch": batch, "neurons": neurons, "sheet": list(shape), "filter": list(taps)}
        yield Row(f"Purkinje population, {words(task)}", sizes, times, [figure], notes)
        del sheet, filters
        release(bench.device)


def granule_bandwidth(bench: Bench) -> Iterator[Row]:
    """Granule populations: compulsory bytes a second as a share of the measured copy.

    Of the dendrites these are the sheet, the filters and the map; of a whole population the
    activity, the parameters and the rates.
    """
    torch.manual_seed(0)
    peak = measure_peak(bench.device.type, seconds=bench.pick(2.0, 0.05))
    neurons = bench.pick(4096, 64)
    for batch in bench.pick((32, 256), (2,)):
        sheet, filters = bench.randn(batch, neurons, 5, 4, 4), bench.randn(neurons, 5, 3, 4)
        with torch.device(bench.device):
            cells = Granule(neurons, neurons, mean_wait=0.0)
            activity = torch.rand(batch, neurons, 5)
        weights = sum(each.nbytes for each in cells.parameters())
        moved = {
            "dendrites": 2 * sheet.nbytes + filters.nbytes,
            "population": 2 * activity.nbytes + weights,
        }
        layout = sheet.permute(1, 4, 3, 2, 0).contiguous().permute(4, 0, 3, 2, 1)
        times = bench.turns(
            {
                "dendrites": kernel_job(ours(), layout, filters, "forward"),
                "population": module_job(cells, activity, "forward"),
            },
            share=2,
        )
        bars = {"dendrites": bench.for_cuda(_BANDWIDTH_AT_LEAST), "population": None}
        figures = [
            Figure(
                f"{name}_share_of_copy_bandwidth_ratio", f"of the copy bandwidth, {name}",
                moved[name] / outcome.timing.seconds / peak.byte_per_s, at_least=bars[name],
            )
            for name, outcome in times.items()
            if isinstance(outcome, Turns)
        ]  # fmt: skip
        sizes = {"batch": batch, "neurons": neurons, "copy_bytes_per_second": peak.byte_per_s}
        yield Row("granule bandwidth, forward", sizes, times, figures)


def image_layer_roof(bench: Bench) -> Iterator[Row]:
    """Image layers: their arithmetic as a share of the roof above them.

    The roof is the measured rate of products, or what the copy allows to the bytes that a layer
    must read and write; FLOPs are those of its convolutions, as they run.
    """
    torch.manual_seed(0)
    batch = bench.pick(128, 2)
    for dtype in (torch.float32, torch.bfloat16):
        peak = measure_peak(bench.device.type, dtype=dtype, seconds=bench.pick(2.0, 0.05))
        sizes = bench.pick((*SIZES, (64, 64, 56)), ((2, 3, 8),))
        for channels, units, pixels in sizes:
            frames = torch.rand(batch, channels, 5, pixels, pixels, device=bench.device)
            with torch.device(bench.device):
                layer = GranuleConv2d(channels, units, padding="same")
            yield _roof(bench, layer, frames, dtype, peak)


def _roof(
    bench: Bench, layer: nn.Module, frames: torch.Tensor, dtype: torch.dtype, peak: Peak
) -> Row:
    job = module_job(layer, frames, "forward")
    half = dtype is torch.bfloat16

    def call() -> object:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
            return job.call()

    timed = bench.turns({"layer": Job(call, job.weights)})
    own = timed["layer"]
    costs = layer.closed_form(frames.shape)  # type: ignore[operator]
    flop = sum(cost.executed_flop for cost in costs)
    neurons = sum(cost.neurons for cost in costs)
    outputs = len(frames) * neurons * 5 * dtype.itemsize
    moved = frames.numel() * dtype.itemsize + outputs
    roof = peak.attainable(flop / moved)
    figures = []
    if isinstance(own, Turns):
        reached = flop / own.timing.seconds
        text = "of the matrix rate" if roof == peak.flop_per_s else "of the bandwidth bound"
        figures = [
            Figure("share_of_roof_ratio", text, reached / roof,
                   at_least=bench.for_cuda(_ARITHMETIC_AT_LEAST))
        ]  # fmt: skip
    name = str(dtype).removeprefix("torch.")
    sizes = {"frames": list(frames.shape), "dtype": name, "flop_per_second_roof": roof}
    return Row(f"GranuleConv2d {tuple(frames.shape)} under its roof, {name}", sizes, timed, figures)


def real_time(bench: Bench) -> Iterator[Row]:
    """Cells that this machine updates in real time, a new step for each of 30 frames a second."""
    framed = {name: reading for name, reading in READINGS.items() if reading.clock == "frame"}
    measured = measure_real_time(
        default_inputs(), bench.device.type, seconds=bench.pick(20.0, 0.5), readings=framed
    )
    for reading in measured.readings:
        figures = [
            Figure(f"{each.cell}_cells", f"{each.cell} cells in real time", each.in_real_time.value)
            for each in reading.cells
        ]
        ran = {each.cell: each.ran for each in reading.cells}
        yield Row(f"real time, {reading.reading}", {"ran": ran}, {}, figures)
