"""The cerebellum's chain as a network: mossy fibres, granule cells, Purkinje cells, deep nuclei.

Shapes: B batch, C channels, T time steps, N neurons.
"""

from torch import Tensor, nn

from neuroconv.layers import LastStep
from neuroconv.layers.checks import check_positive, check_sizes, check_task, pair
from neuroconv.layers.conv import Mode
from neuroconv.neurons import Granule, Purkinje
from neuroconv.neurons.population import Wiring
from neuroconv.zoo.frames import as_frames
from neuroconv.zoo.registry import register_model


class Cerebellum(nn.Module):
    """Image -> mossy fibres -> granule cells -> Purkinje cells -> deep nuclei -> classes.

    A mossy fibre carries one pixel over time. The nuclei bundle all Purkinje cells; the read-out
    takes their last step.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, classes)
    """

    def __init__(
        self, granule: Granule, purkinje: Purkinje, nuclei: int, num_classes: int, steps: int
    ) -> None:
        super().__init__()
        self.time_steps = steps
        self.granule = granule
        self.purkinje = purkinje
        self.last_step = LastStep()
        self.nuclei = nn.Linear(purkinje.out_features, nuclei)
        self.classifier = nn.Linear(nuclei, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        frames = as_frames(images, self.time_steps)
        mossy = frames.transpose(2, 1).flatten(2).transpose(1, 2)  # (B, C * H * W, T)
        rates = self.last_step(self.purkinje(self.granule(mossy)))
        return self.classifier(self.nuclei(rates).relu())


def _cerebellum(
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    time_steps: int,
    granule_cells: int,
    purkinje_cells: int,
    nuclei: int,
    patch: tuple[int, int],
    granule_mode: Mode,
    purkinje_sheet: tuple[int, int],
    purkinje_filter: tuple[int, int],
    purkinje_mode: Mode,
    purkinje_wiring: Wiring,
    purkinje_unit_taps: bool,
    mean_wait: float,
    linear_dendrites: bool,
    freeze_purkinje_filters: bool,
    seed: int,
) -> Cerebellum:
    channels, height, width = check_task(image_shape, num_classes, time_steps)
    patch_height, patch_width = pair("patch", patch)
    check_positive(nuclei=nuclei, patch=(patch_height, patch_width))
    check_sizes("purkinje_sheet", purkinje_sheet, ("sites", "dendrites"))
    check_sizes("purkinje_filter", purkinje_filter, ("branches", "dendrites"))
    granule = Granule(
        channels * height * width,
        granule_cells,
        filter_shape=(3, 4, time_steps),
        mode=granule_mode,
        wiring="receptive_field",
        image_shape=(channels, height, width),
        patch=(min(patch_height, height), min(patch_width, width)),
        norm="soma",
        mean_wait=mean_wait,
        linear_dendrites=linear_dendrites,
        seed=seed,
    )
    purkinje = Purkinje(
        granule_cells,
        purkinje_cells,
        sheet_shape=(purkinje_sheet[0], purkinje_sheet[1]),
        filter_shape=(purkinje_filter[0], purkinje_filter[1], time_steps),
        mode=purkinje_mode,
        wiring=purkinje_wiring,
        unit_taps=purkinje_unit_taps,
        norm="soma",
        mean_wait=0.0,
        linear_dendrites=linear_dendrites,
        seed=seed + 1,
    )
    if freeze_purkinje_filters:
        purkinje.dendrites.weight.requires_grad_(False)
    return Cerebellum(granule, purkinje, nuclei, num_classes, time_steps)


@register_model
def cerebellum_tiny(
    *,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    time_steps: int = 5,
    granule_cells: int = 256,
    purkinje_cells: int = 16,
    nuclei: int = 12,
    patch: tuple[int, int] = (3, 3),
    granule_mode: Mode = "same",
    purkinje_sheet: tuple[int, int] = (5, 50),
    purkinje_filter: tuple[int, int] = (5, 50),
    purkinje_mode: Mode = "per_dendrite",
    purkinje_wiring: Wiring = "sparse",
    purkinje_unit_taps: bool = False,
    mean_wait: float = 0.5,
    linear_dendrites: bool = False,
    freeze_purkinje_filters: bool = False,
    seed: int = 0,
) -> Cerebellum:
    """A cerebellum for 8x8 images: 256 granule cells, 16 Purkinje cells of 250 synapses.

    Args:
        image_shape, num_classes, time_steps: the task.
        granule_cells, purkinje_cells, nuclei: cells of each kind.
        patch: (height, width) of the image patch that a granule cell draws its 4 pixels from.
        granule_mode, purkinje_mode: how the filters meet their sheets.
        purkinje_sheet: (sites, dendrites). purkinje_filter: (branches, dendrites).
        purkinje_wiring: "sparse" (random), "parallel" (granule axons cross all trees in order).
        purkinje_unit_taps: hold Purkinje taps in units of their initial deviation; for large ones.
        mean_wait: Poisson dropout of the granule cells; the few Purkinje cells have none.
        linear_dendrites: the control without the dendritic rectifier.
        freeze_purkinje_filters: keep the Purkinje filters as they were drawn.
        seed: of the wiring.
    """
    return _cerebellum(
        image_shape=image_shape,
        num_classes=num_classes,
        time_steps=time_steps,
        granule_cells=granule_cells,
        purkinje_cells=purkinje_cells,
        nuclei=nuclei,
        patch=patch,
        granule_mode=granule_mode,
        purkinje_sheet=purkinje_sheet,
        purkinje_filter=purkinje_filter,
        purkinje_mode=purkinje_mode,
        purkinje_wiring=purkinje_wiring,
        purkinje_unit_taps=purkinje_unit_taps,
        mean_wait=mean_wait,
        linear_dendrites=linear_dendrites,
        freeze_purkinje_filters=freeze_purkinje_filters,
        seed=seed,
    )


@register_model
def cerebellum_small(
    *,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int = 10,
    time_steps: int = 5,
    granule_cells: int = 1000,
    purkinje_cells: int = 32,
    nuclei: int = 12,
    patch: tuple[int, int] = (5, 5),
    granule_mode: Mode = "same",
    purkinje_sheet: tuple[int, int] = (10, 100),
    purkinje_filter: tuple[int, int] = (10, 100),
    purkinje_mode: Mode = "per_dendrite",
    purkinje_wiring: Wiring = "sparse",
    purkinje_unit_taps: bool = False,
    mean_wait: float = 0.5,
    linear_dendrites: bool = False,
    freeze_purkinje_filters: bool = False,
    seed: int = 0,
) -> Cerebellum:
    """A cerebellum for 28x28 images: 1,000 granule cells, 32 Purkinje cells of 1,000 synapses.

    A Purkinje cell has 100 dendrites of ten branches, and its 10x100x5 filter gives one number for
    each dendrite and step. Arguments as in `cerebellum_tiny`.
    """
    return _cerebellum(
        image_shape=image_shape,
        num_classes=num_classes,
        time_steps=time_steps,
        granule_cells=granule_cells,
        purkinje_cells=purkinje_cells,
        nuclei=nuclei,
        patch=patch,
        granule_mode=granule_mode,
        purkinje_sheet=purkinje_sheet,
        purkinje_filter=purkinje_filter,
        purkinje_mode=purkinje_mode,
        purkinje_wiring=purkinje_wiring,
        purkinje_unit_taps=purkinje_unit_taps,
        mean_wait=mean_wait,
        linear_dendrites=linear_dendrites,
        freeze_purkinje_filters=freeze_purkinje_filters,
        seed=seed,
    )


@register_model
def cerebellum_base(
    *,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    num_classes: int = 10,
    time_steps: int = 5,
    granule_cells: int = 2000,
    purkinje_cells: int = 4,
    nuclei: int = 12,
    patch: tuple[int, int] = (3, 3),
    granule_mode: Mode = "same",
    purkinje_sheet: tuple[int, int] = (100, 1000),
    purkinje_filter: tuple[int, int] = (10, 1000),
    purkinje_mode: Mode = "valid",
    purkinje_wiring: Wiring = "parallel",
    purkinje_unit_taps: bool = True,
    mean_wait: float = 0.5,
    linear_dendrites: bool = False,
    freeze_purkinje_filters: bool = False,
    seed: int = 0,
) -> Cerebellum:
    """The essay's Purkinje cell in size: 100,000 synapses, 1,000 dendrites, a 10x1000x5 filter.

    Few cells, each of full size, over 2,000 granule cells, so that an axon makes 50 synapses in a
    row where the essay gives each synapse an axon of its own. Parallel fibres cross the trees in
    order: a dendrite listens to two neighbouring granule cells, one along the lower half of its
    sites and one along the upper, and a tap of the filter, which takes its full overlaps
    ("valid"), meets no others. Under random wiring a tap meets another axon at each position and
    has little to learn. `purkinje_mode="same"` is the essay's cost, 1,100 times this. Arguments as
    in `cerebellum_tiny`.
    """
    return _cerebellum(
        image_shape=image_shape,
        num_classes=num_classes,
        time_steps=time_steps,
        granule_cells=granule_cells,
        purkinje_cells=purkinje_cells,
        nuclei=nuclei,
        patch=patch,
        granule_mode=granule_mode,
        purkinje_sheet=purkinje_sheet,
        purkinje_filter=purkinje_filter,
        purkinje_mode=purkinje_mode,
        purkinje_wiring=purkinje_wiring,
        purkinje_unit_taps=purkinje_unit_taps,
        mean_wait=mean_wait,
        linear_dendrites=linear_dendrites,
        freeze_purkinje_filters=freeze_purkinje_filters,
        seed=seed,
    )
