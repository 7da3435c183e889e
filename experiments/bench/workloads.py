"""What is timed, in sizes that do not change from version to version.

`versus.py` runs these under two versions of neuroconv, so they use its public names alone, and
`population` writes sizes the way the version at hand takes them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from variants import (
    TASKS,
    Variant,
    kernel_variant,
    module_variant,
    neuroconv,
    step_variant,
    with_layout,
)

from neuroconv import create_model, list_models
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje

Build = Callable[[], Variant]


def population(
    kind: Callable[..., nn.Module],
    in_features: int,
    out_features: int,
    *,
    sheet: tuple[int, int],
    filters: tuple[int, int, int],
    mode: str = "same",
    **keywords: Any,
) -> nn.Module:
    """Returns a population with this tree, by the keywords of the version at hand.

    Args:
        sheet: sites and dendrites.
        filters: branches, dendrites and time steps of the filter.
    """
    try:
        tree = {"sheet": sheet, "filter": filters, "mode": mode}
        return kind(in_features, out_features, tree=tree, **keywords)
    except TypeError:  # 0.4.0
        sizes = {"sheet_shape": sheet, "filter_shape": filters, "mode": mode}
        return kind(in_features, out_features, **sizes, **keywords)


class Shape(NamedTuple):
    """A convolution: sheets of (T, P, D), filters of (K_T, K_P, K_D)."""

    mode: str
    batch: int
    neurons: int
    sheet: tuple[int, int, int]
    taps: tuple[int, int, int]

    def __str__(self) -> str:
        sheet, taps = ("x".join(map(str, sizes)) for sizes in (self.sheet, self.taps))
        return f"{self.mode}, {self.batch} x {self.neurons} neurons, {sheet} by {taps}"


PURKINJE, FULL = (5, 100, 1000), (5, 10, 1000)
GRANULE, CLAW = (5, 4, 4), (5, 3, 4)
BATCH_INNERMOST = (1, 4, 3, 2, 0)  # as synapses lay their sheets out


def read_shapes(path: Path) -> tuple[Shape, ...]:
    """Returns the shapes that a file holds, one a line."""
    shapes = []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            mode, batch, neurons, *sizes = line.split()
            sheet, taps = (tuple(map(int, size.split("x"))) for size in sizes)
            shapes.append(Shape(mode, int(batch), int(neurons), sheet, taps))
    return tuple(shapes)


SHAPES = read_shapes(Path(__file__).with_name("shapes.txt"))
QUICK_SHAPES: tuple[Shape, ...] = (
    Shape("same", 2, 8, GRANULE, CLAW),
    Shape("valid", 2, 2, (5, 10, 30), (5, 4, 30)),
    Shape("per_dendrite", 2, 3, (5, 8, 6), (5, 3, 6)),
)

IMAGE_LAYERS = ((1, 8, 28), (8, 8, 13), (16, 32, 14))  # channels in, units, pixels
QUICK_IMAGE_LAYERS = ((2, 3, 8),)

AXONS = 2_000


class Sizes(NamedTuple):
    """A population and its input."""

    neurons: int
    batch: int
    time_steps: int
    sites: int
    dendrites: int


class Cell(NamedTuple):
    """A cell type that grows along several axes.

    Attributes:
        kind: its class; the filter spans all dendrites.
        branches, taps: of the filter.
        axes: by name the sizes to start from, and the points along this axis.
    """

    kind: Callable[..., nn.Module]
    branches: int
    taps: int
    axes: Mapping[str, tuple[Sizes, Sequence[int]]]

    def build(self, sizes: Sizes, task: str, device: torch.device) -> Variant:
        torch.manual_seed(0)
        with torch.device(device):
            cells = population(
                self.kind, AXONS, sizes.neurons, sheet=(sizes.sites, sizes.dendrites),
                filters=(self.branches, sizes.dendrites, self.taps),
            )  # fmt: skip
            activity = torch.rand(sizes.batch, AXONS, sizes.time_steps)
        return module_variant(cells, activity, task)


AXES = ("neurons", "batch", "time_steps", "sites", "dendrites")
_ONE = Sizes(1, 1, 5, 100, 1000)
_MANY, _FEW = Sizes(4096, 32, 5, 4, 4), Sizes(256, 32, 5, 4, 4)
CELLS: dict[str, Cell] = {
    "Purkinje": Cell(Purkinje, 10, 5, {
        "neurons": (_ONE, (1, 2, 4, 8, 16)), "batch": (_ONE, (1, 2, 4, 8, 16)),
        "time_steps": (_ONE, (5, 10, 20, 40, 80)), "sites": (_ONE, (50, 100, 200, 400, 800)),
        "dendrites": (_ONE, (125, 250, 500, 1000, 2000)),
    }),
    "granule": Cell(Granule, 3, 5, {
        "neurons": (_MANY, (256, 512, 1024, 2048, 4096)), "batch": (_MANY, (2, 4, 8, 16, 32)),
        "time_steps": (_FEW, (5, 10, 20, 40, 80)), "sites": (_FEW, (4, 8, 16, 32, 64)),
        "dendrites": (_FEW, (4, 8, 16, 32, 64)),
    }),
}  # fmt: skip
_QUICK = Sizes(2, 2, 5, 6, 8)
QUICK_CELLS: dict[str, Cell] = {
    name: Cell(cell.kind, 3, 5, dict.fromkeys(AXES, (_QUICK, (6, 12, 24))))
    for name, cell in CELLS.items()
}


def dendrites(shape: Shape, task: str, device: torch.device, layout: Sequence[int]) -> Variant:
    """Returns the dendritic convolution alone, on a sheet with its axes in this order."""
    torch.manual_seed(0)
    sheet = torch.randn(shape.batch, shape.neurons, *shape.sheet, device=device)
    filters = torch.randn(shape.neurons, *shape.taps, device=device)
    return kernel_variant(neuroconv(shape.mode), with_layout(sheet, layout), filters, task)


def image_layer(
    channels: int, units: int, pixels: int, norm: str, batch: int, device: torch.device
) -> tuple[nn.Module, Tensor]:
    """Returns a granule image layer of 5 time steps, and its frames."""
    torch.manual_seed(0)
    with torch.device(device):
        layer = GranuleConv2d(channels, units, padding="same", time_steps=5, norm=norm)
        return layer, torch.rand(batch, channels, 5, pixels, pixels)


def small_model(name: str, quick: bool, **keywords: Any) -> nn.Module:
    """Returns a zoo entry for digits; if quick, with few cells where it has many."""
    torch.manual_seed(0)
    if quick and name == "cerebellum_base":
        try:
            tree = {"sheet": [10, 60], "filter": [4, 60, 5]}
            cells = {"granule": {"cells": 60}, "purkinje": {"cells": 1, "tree": tree}}
            return create_model(name, **cells, **keywords)
        except TypeError:  # 0.4.0
            sizes = {"purkinje_cells": 1, "purkinje_sheet": (10, 60), "purkinje_filter": (4, 60)}
            return create_model(name, granule_cells=60, **sizes, **keywords)
    return create_model(name, **({"width": 8} if quick and name == "resnet18_granule" else {}),
                        **keywords)  # fmt: skip


def all_workloads(device: torch.device, *, quick: bool = False) -> dict[str, Build]:
    """Returns what `versus.py` compares: by name a function that builds the call."""
    pairs = (*_kernels(device, quick), *_cells(device, quick), *_networks(device, quick))
    return dict(pairs)


def _kernels(device: torch.device, quick: bool) -> Iterator[tuple[str, Build]]:
    for task in TASKS:
        for name, shape in {
            "Purkinje": Shape("same", 1, 1, PURKINJE, FULL),
            "granule": Shape("same", 32, 4096, GRANULE, CLAW),
            "small": Shape("same", 1, 8, GRANULE, CLAW),
        }.items():
            sizes = QUICK_SHAPES[0] if quick else shape
            yield (
                f"dendrites/{name}/{task}",
                lambda sizes=sizes, task=task: dendrites(sizes, task, device, BATCH_INNERMOST),
            )
        for shape in QUICK_SHAPES if quick else SHAPES:
            yield (
                f"auto/{shape}/{task}",
                lambda shape=shape, task=task: dendrites(shape, task, device, range(5)),
            )


def _cells(device: torch.device, quick: bool) -> Iterator[tuple[str, Build]]:
    many, batch = (8, 2) if quick else (4096, 32)
    populations: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
        "population/granule": lambda: (Granule(many, many), torch.rand(batch, many, 5)),
        "small/granule": lambda: (Granule(16, 16), torch.rand(1, 16, 5)),
        "small/Purkinje": lambda: (
            population(Purkinje, 24, 2, sheet=(4, 6), filters=(3, 6, 5)), torch.rand(1, 24, 5)
        ),
        "small/image layer": lambda: image_layer(1, 2, 8, "none", 1, device),
    }  # fmt: skip
    if not quick:
        populations["population/Purkinje"] = lambda: (Purkinje(AXONS, 1), torch.rand(1, AXONS, 5))
    for channels, units, pixels in QUICK_IMAGE_LAYERS if quick else IMAGE_LAYERS:
        for norm in ("none", "both"):
            populations[f"image layer/{channels} to {units} at {pixels}, norm {norm}"] = (
                lambda sizes=(channels, units, pixels, norm): image_layer(
                    *sizes, 2 if quick else 128, device
                )
            )

    def build(make: Callable[[], tuple[nn.Module, Tensor]], task: str) -> Variant:
        torch.manual_seed(0)
        with torch.device(device):
            module, inputs = make()
        return module_variant(module, inputs, task)

    for task in TASKS:
        for name, make in populations.items():
            yield f"{name}/{task}", lambda make=make, task=task: build(make, task)
        for name, cell in (QUICK_CELLS if quick else CELLS).items():
            for axis, (start, points) in cell.axes.items():
                for point in (points[0], points[-1]):
                    sizes = start._replace(**{axis: point})
                    yield (
                        f"growth/{name}, {point} {axis}/{task}",
                        (lambda cell=cell, sizes=sizes, task=task: cell.build(sizes, task, device)),
                    )


def _networks(device: torch.device, quick: bool) -> Iterator[tuple[str, Build]]:
    batch, steps = (2, 1) if quick else (64, 20)
    frames = (batch, 1, 5, 28, 28)
    networks = {"granule_convnet": steps, "granule_convnet_conv3d": steps, "cerebellum_small": 1}
    for name, count in networks.items():
        yield (
            f"training/{name}, {count} steps of {batch}",
            lambda name=name, count=count: step_variant(
                small_model(name, quick).to(device), torch.rand(frames, device=device), steps=count
            ),
        )
    yield "training/granule_convnet, train()", lambda: _training_run(batch, device)
    for name in list_models(installed=True):
        heavy = name in ("cerebellum_base", "resnet18", "resnet18_granule")
        yield (
            f"evaluation/{name}",
            lambda name=name, heavy=heavy: _evaluation(
                name, 2 if quick else 4 if heavy else 64, device, quick
            ),
        )


def _training_run(batch: int, device: torch.device) -> Variant:
    """Returns an epoch of the package's own training loop on ten batches of random frames."""
    from neuroconv.training import train

    torch.manual_seed(0)
    data = TensorDataset(torch.rand(10 * batch, 1, 5, 28, 28), torch.arange(10 * batch) % 10)
    few = torch.utils.data.Subset(data, range(batch))

    def call() -> object:
        return train(
            create_model("granule_convnet"), data, few, epochs=1, batch_size=batch,
            device=device.type, progress=False,
        )  # fmt: skip

    return Variant(call, (), device)


def _evaluation(name: str, batch: int, device: torch.device, quick: bool) -> Variant:
    pixels = 64 if name.startswith("resnet18") else 28
    channels = 3 if name.startswith("resnet18") else 1
    shape = (channels, pixels, pixels)
    model = small_model(name, quick, image_shape=shape, num_classes=10).to(device).eval()
    images = torch.rand(batch, *shape, device=device)

    def call() -> object:
        with torch.no_grad():
            return model(images)

    return Variant(call, tuple(model.parameters()), device)
