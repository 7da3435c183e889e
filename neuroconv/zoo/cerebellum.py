"""The cerebellum's circuit as a network, from mossy fibres to the deep nuclei.

Shapes: B batch, C channels, T time steps, N neurons, K classes.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from neuroconv.core.arguments import Count, ImageShape, Seed, Size, argument, as_argument, checked
from neuroconv.layers import LastStep
from neuroconv.neurons import DeepNuclear, Golgi, Granule, Purkinje
from neuroconv.neurons.stages import Table, merge
from neuroconv.zoo.circuit import ClimbingFibres, GranularLayer
from neuroconv.zoo.registry import ImageNetwork, register_model, register_preset

GRANULE: Table = {
    "cells": 1000,
    "tree": {"filter": (3, 4)},
    "wiring": {"kind": "receptive_field", "patch": (5, 5)},
    "norm": "soma",
}
GOLGI: Table = {
    "cells": 8,
    "tree": {"sheet": (10, 10), "filter": (10, 10), "mode": "per_dendrite"},
    "summation": "sublinear",  # across dendrites, as in the recorded runs: not the preset's
    "output": {"mean_wait": 0.0},
}
PURKINJE: Table = {
    "cells": 32,
    "tree": {"sheet": (10, 100), "filter": (10, 100), "mode": "per_dendrite"},
    "wiring": {"kind": "parallel_fibres"},
    "norm": "soma",
    "output": {"mean_wait": 0.0},  # too few to drop any
}
NUCLEI: Table = {"cells": 12, "norm": "soma", "output": {"mean_wait": 0.0}}
# No kind of cell keeps a nonlinearity before its soma, or the control would compute with it.
LINEAR: Table = {"rate": {"linear": True}, "summation": "linear"}


@checked
class Cerebellum(ImageNetwork):
    """Image -> mossy fibres -> granule cells -> Purkinje cells -> deep nuclei -> classes.

    A mossy fibre carries one pixel over time. Golgi cells inhibit the granule cells one step later.
    Parallel fibres, the granule cells' axons, cross Purkinje cells, which project to the nuclei,
    and the read-out takes the nuclei's last step, or without nuclei the Purkinje cells'. Climbing
    fibres bring the error back as `complex_spikes`, from which no rule learns here: trained weights
    follow the cells. In `purkinje_classifier` none do, and `neuroconv.learning` has the rule.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, K)
    """

    def __init__(
        self,
        granular: GranularLayer,
        purkinje: Purkinje,
        nuclei: DeepNuclear | None,
        num_classes: Size,
        steps: Size,
        image_shape: ImageShape | None = None,
    ) -> None:
        super().__init__(steps, image_shape)
        self.granular, self.purkinje, self.nuclei = granular, purkinje, nuclei
        self.last_step = LastStep()
        last = purkinje if nuclei is None else nuclei
        self.classifier = nn.Linear(last.out_features, num_classes)
        self.climbing_fibres = ClimbingFibres(num_classes, purkinje.out_features)

    def forward_features(self, images: Tensor) -> Tensor:
        frames = self.as_frames(images)
        mossy = frames.transpose(2, 1).flatten(2).transpose(1, 2)  # (B, C * H * W, T)
        rates = self.purkinje(self.granular(mossy))
        if self.nuclei is not None:
            rates = self.nuclei(rates)
        return self.last_step(rates)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features if pre_logits else self.classifier(features)

    def reset_classifier(self, num_classes: Count) -> None:
        """Replaces the classifier, and deals the climbing fibres out to the new classes."""
        super().reset_classifier(num_classes)
        if num_classes:
            cells, device = len(self.climbing_fibres.olive), self.climbing_fibres.olive.device
            self.climbing_fibres = ClimbingFibres(num_classes, cells).to(device)

    def complex_spikes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the complex spikes per second that follow an image; see `ClimbingFibres`."""
        return self.climbing_fibres(logits, labels)


@register_model
def cerebellum_small(
    *,
    image_shape: ImageShape = (1, 28, 28),
    num_classes: Size = 10,
    time_steps: Size = 5,
    granule: Table = GRANULE,
    golgi: Table = GOLGI,
    purkinje: Table = PURKINJE,
    nuclei: Table = NUCLEI,
    linear_cells: bool = False,
    seed: Seed = 0,
) -> Cerebellum:
    """A cerebellum for 28x28 images: 1,000 granule cells, 32 Purkinje cells of 1,000 synapses.

    Each kind of cell has a table: its number of `cells`, and the arguments of its class, as in
    `Purkinje(..., **table)`. It is merged over the defaults: `purkinje={"tree": {"mode": "same"}}`
    changes the mode alone; a wiring or an output of another "kind" replaces the default one. A
    filter of two numbers, (branches, dendrites), spans the window's time steps.

    Args:
        granule: of `Granule`. By default each draws its 4 pixels from a patch of 5 x 5.
        golgi: of `Golgi`. Without cells (0), as in a window of one step, nothing inhibits. Their
            dendrites' sum is sublinear, as in the recorded runs; as measured (the preset) each
            dendrite is: {"summation": "linear", "rate": {"law": "sublinear"}}.
        purkinje: of `Purkinje`. By default each parallel fibre crosses all of them, at random
            positions of the trees.
        nuclei: of `DeepNuclear`. Without cells (0) the read-out receives the Purkinje cells' rates.
            By default each has a synapse from every Purkinje cell, on one of four dendrites.
        linear_cells: whether no dendrite of any of them rectifies or saturates, whatever the
            tables say: a control of the same parameters, whose somata alone are nonlinear.
        seed: of all that is drawn before the weights; a table's `wiring` or `synapse` may have one.
    """
    pixels = prod(image_shape)
    task = (image_shape, time_steps)
    law: Table = LINEAR if linear_cells else {}
    n_granule, granule = complete("granule", merge(GRANULE, granule, law), task, seed)
    n_purkinje, purkinje = complete("purkinje", merge(PURKINJE, purkinje, law), task, seed + 1)
    n_golgi, golgi = complete("golgi", merge(GOLGI, golgi, law), task, seed + 2)
    # A nuclear cell has one synapse from every Purkinje cell, over four dendrites or fewer.
    dendrites = min(4, n_purkinje)
    sheet = (-(-n_purkinje // dendrites), dendrites)
    tree = {"sheet": sheet, "filter": sheet, "synapses": n_purkinje, "mode": "per_dendrite"}
    nuclei = merge(NUCLEI, {"tree": tree}, nuclei, law)
    n_nuclear, nuclei = complete("nuclei", nuclei, task, seed + 3)
    # A seed's weights depend on the order in which they are drawn.
    with argument("granule"):
        granule_cells = Granule(pixels, n_granule, **granule)
    with argument("golgi"):
        golgi_cells = Golgi(n_granule, n_golgi, **golgi) if n_golgi and time_steps > 1 else None
    with argument("purkinje"):
        purkinje_cells = Purkinje(n_granule, n_purkinje, **purkinje)
    with argument("nuclei"):
        nuclear_cells = DeepNuclear(n_purkinje, n_nuclear, **nuclei) if n_nuclear else None
    granular = GranularLayer(granule_cells, golgi_cells, seed + 4)
    return Cerebellum(granular, purkinje_cells, nuclear_cells, num_classes, time_steps, image_shape)


def complete(
    name: str, cells: dict[str, Any], task: tuple[tuple[int, int, int], int], seed: int
) -> tuple[int, dict[str, Any]]:
    """Takes the number of cells out of a table, and fills in the task and the seed."""
    image_shape, time_steps = task
    with argument(name):
        hint = Count if name in ("golgi", "nuclei") else Size
        number: int = as_argument("cells", cells.pop("cells"), hint)
    tree, wiring, synapse = (cells.get(key, {}) for key in ("tree", "wiring", "synapse"))
    sides = tree.get("filter") if isinstance(tree, dict) else None
    if isinstance(sides, Sequence) and len(sides) == 2:
        cells["tree"] = {**tree, "filter": (*sides, time_steps)}
    wiring = {"kind": wiring} if isinstance(wiring, str) else wiring
    if isinstance(wiring, dict):
        kind = wiring.get("kind", "random")
        fields = kind in ("receptive_field", "dendritic_fields")
        drawn = fields or kind in ("random", "parallel_fibres")
        image = {"image_shape": image_shape} if fields else {}
        cells["wiring"] = {**({"seed": seed} if drawn else {}), **image, **wiring}
    if isinstance(synapse, dict):
        cells["synapse"] = {"seed": seed, **synapse}
    return number, cells


cerebellum_tiny = register_preset(
    "cerebellum_tiny",
    cerebellum_small,
    """A cerebellum for 8x8 images: 256 granule cells, 16 Purkinje cells of 250 synapses.

    Arguments as in `cerebellum_small`.
    """,
    image_shape=(1, 8, 8),
    granule={"cells": 256, "wiring": {"patch": (3, 3)}},
    golgi={"cells": 4},
    purkinje={"cells": 16, "tree": {"sheet": (5, 50), "filter": (5, 50)}},
)

cerebellum_base = register_preset(
    "cerebellum_base",
    cerebellum_small,
    """The essay's Purkinje cell in size: 100,000 synapses, 1,000 dendrites, a 10x1000x5 filter.

    Four full-size cells over 2,000 granule cells: an axon makes 50 synapses in a row where the
    essay has one axon to each synapse. Parallel fibres cross the trees in order: a dendrite
    receives one granule cell along the lower half of its sites and the next along the upper, and a
    tap of the "valid" filter meets no others. Under random wiring it would meet another axon at
    each position and have little to learn. `purkinje={"tree": {"mode": "same"}}` is the essay's
    cost, 1,100 times this. Arguments as in `cerebellum_small`.
    """,
    image_shape=(1, 8, 8),
    granule={"cells": 2000, "wiring": {"patch": (3, 3)}},
    purkinje={
        "cells": 4,
        "tree": {"sheet": (100, 1000), "filter": (10, 1000), "mode": "valid"},
        "wiring": {"kind": "in_order"},
        "taps": {"equalized_lr": True},
    },
)
