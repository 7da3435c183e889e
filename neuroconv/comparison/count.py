"""What a trained model costs: one row of the comparison, as the report draws it."""

from dataclasses import fields
from statistics import fmean
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from neuroconv.comparison.train import ModelResult
from neuroconv.flops import profile
from neuroconv.layers import DendriticConv
from neuroconv.neurons import GranuleConv2d
from neuroconv.report import DendriteCost, Entry
from neuroconv.training import load_weights
from neuroconv.training.state import BEST
from neuroconv.zoo import create_model


def count(result: ModelResult) -> Entry:
    """Profiles the first seed's best weights on one image, by all counters."""
    model = create_model(**result.model)
    load_weights(model, result.runs[0].run_dir / BEST)
    channels, *sides = result.model["image_shape"]
    steps = [] if result.data.encoding == "none" else [result.model["time_steps"]]
    counted = profile(model, torch.zeros(1, channels, *steps, *sides), name=result.label)
    remarks = [f"Not by {counter}: {why}." for counter, why in counted.skipped.items()]
    remarks += [f"They differ: {line}." for line in counted.disagreements]
    difference = result.difference
    dendrites = [counted.dendritic_mac_per_neuron(f.name) for f in fields(DendriteCost)]
    return Entry(
        label=result.label, name=result.name, parameters=result.parameters,
        neurons=counted.neurons, mac_per_neuron=counted.mac_per_neuron,
        mflop_per_image=counted.flop_per_sample / 1e6,
        counters=tuple(counted.counts), counter_remarks=tuple(remarks),
        dendrites=None if None in dendrites else DendriteCost(*dendrites),  # type: ignore[arg-type]
        accuracies={run.seed: run.test_accuracy for run in result.runs},
        mean=result.accuracy.mean, half_width=result.accuracy.half_width,
        difference=difference.mean if difference else None,
        difference_half_width=difference.half_width if difference else None,
        seconds_per_epoch=fmean(run.seconds_per_epoch for run in result.runs),
        histories=[run.history for run in result.runs], filters=_filters(model),
    )  # fmt: skip


def _filters(model: nn.Module) -> list[tuple[str, NDArray[Any]]]:
    """Returns the weights of each dendritic layer under its name and size.

    The size is the essay's: branches x dendrites x time steps.
    """
    filters = []
    for name, module in model.named_modules():
        if isinstance(module, DendriticConv | GranuleConv2d):
            steps, branches, dendrites = module.weight.shape[-3:]
            title = f"{name.removesuffix('.dendrites')} ({branches} × {dendrites} × {steps})"
            filters.append((title, module.weight.numpy(force=True)))
    return filters
