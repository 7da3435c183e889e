"""The cerebellum's circuit as a network, from mossy fibres to the deep nuclei.

Shapes: B batch, C channels, T time steps, N neurons, K classes.
"""

from typing import Literal

from torch import Tensor, nn

from neuroconv.core.checks import (
    Norm,
    check_choice,
    check_positive,
    check_sizes,
    check_task,
    pair,
)
from neuroconv.kernels.conv import Mode
from neuroconv.layers import DendriticSpike, LastStep, PoissonSpikes, ReleaseOrWait
from neuroconv.layers.poisson import DropoutMode, DropoutScope
from neuroconv.layers.spike import Signal
from neuroconv.layers.summation import Law
from neuroconv.neurons import DeepNuclear, Golgi, Granule, Purkinje
from neuroconv.neurons.population import Output, Wiring
from neuroconv.zoo.circuit import ClimbingFibres, GranularLayer
from neuroconv.zoo.frames import as_frames
from neuroconv.zoo.registry import register_model, register_preset


class Cerebellum(nn.Module):
    """Image -> mossy fibres -> granule cells -> Purkinje cells -> deep nuclei -> classes.

    A mossy fibre carries one pixel over time. Golgi cells listen to the granule cells and inhibit
    them one step later. Parallel fibres, the granule cells' axons, cross the Purkinje cells; the
    nuclei bundle all of these, and the read-out takes the nuclei's last step. Climbing fibres bring
    the error back to the Purkinje cells: `complex_spikes`. No rule learns from them yet.

    Args:
        granular: granule and Golgi cells.
        purkinje: Purkinje cells.
        nuclei: the deep nuclei; without them (None) the read-out listens to the Purkinje cells.
        num_classes: K.
        steps: time steps T of a still image's window.

    Shape:
        (B, C, H, W), taken as constant over the window, or (B, C, T, H, W) -> logits (B, K)
    """

    def __init__(
        self,
        granular: GranularLayer,
        purkinje: Purkinje,
        nuclei: DeepNuclear | None,
        num_classes: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.time_steps = steps
        self.granular = granular
        self.purkinje = purkinje
        self.nuclei = nuclei
        self.last_step = LastStep()
        last = purkinje if nuclei is None else nuclei
        self.classifier = nn.Linear(last.out_features, num_classes)
        self.climbing_fibres = ClimbingFibres(num_classes, purkinje.out_features)

    def forward(self, images: Tensor) -> Tensor:
        frames = as_frames(images, self.time_steps)
        mossy = frames.transpose(2, 1).flatten(2).transpose(1, 2)  # (B, C * H * W, T)
        rates = self.purkinje(self.granular(mossy))
        if self.nuclei is not None:
            rates = self.nuclei(rates)
        return self.classifier(self.last_step(rates))

    def complex_spikes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the climbing fibres bring after an image: complex spikes per second, (B, N).

        Args:
            logits: (B, K).
            labels: the classes that were right, (B,).
        """
        return self.climbing_fibres(logits, labels)


def _output(name: str, mean_wait: float) -> Output | None:
    check_choice("output", name, ("rate", "spikes", "release"))
    if name == "spikes":
        return PoissonSpikes()
    return ReleaseOrWait(mean_wait) if name == "release" else None


@register_model
def cerebellum_small(
    *,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int = 10,
    time_steps: int = 5,
    granule_cells: int = 1000,
    golgi_cells: int = 8,
    purkinje_cells: int = 32,
    nuclei: int = 12,
    patch: tuple[int, int] = (5, 5),
    granule_mode: Mode = "same",
    purkinje_sheet: tuple[int, int] = (10, 100),
    purkinje_filter: tuple[int, int] = (10, 100),
    purkinje_mode: Mode = "per_dendrite",
    purkinje_wiring: Wiring = "parallel_fibres",
    purkinje_unit_taps: bool = False,
    excitatory: float | None = None,
    vesicles: bool = False,
    transmitters: int = 1,
    threshold: float | None = None,
    norm: Norm = "soma",
    diffusion: Literal["learned", "initial", "held"] = "learned",
    pull: float = 0.0,
    spike_signal: Signal = "max",
    linear_dendrites: bool = False,
    law: Law = "linear",
    soma_time_steps: int = 5,
    mean_wait: float = 0.5,
    dropout_mode: DropoutMode = "wait",
    dropout_scope: DropoutScope = "neuron",
    output: Literal["rate", "spikes", "release"] = "rate",
    freeze_purkinje_filters: bool = False,
    checkpoint: bool = False,
    seed: int = 0,
) -> Cerebellum:
    """A cerebellum for 28x28 images: 1,000 granule cells, 32 Purkinje cells of 1,000 synapses.

    A Purkinje cell has 100 dendrites of ten branches, and its 10x100x5 filter gives one number for
    each dendrite and step. Stages are exchanged in granule and Purkinje cells alike.

    Args:
        image_shape, num_classes, time_steps: the task.
        granule_cells, golgi_cells, purkinje_cells, nuclei: cells of each kind; without Golgi cells
            (0) nothing inhibits, without nuclei (0) the read-out listens to the Purkinje cells. In
            a window of one step there are no Golgi cells: they would answer at the next.
        patch: (height, width) of the image patch that a granule cell draws its 4 pixels from.
        granule_mode, purkinje_mode: how the filters meet their sheets.
        purkinje_sheet: (sites, dendrites). purkinje_filter: (branches, dendrites).
        purkinje_wiring: "parallel_fibres" (each fibre crosses all trees, at random places),
            "parallel" (in order), "sparse" (random).
        purkinje_unit_taps: hold Purkinje taps in units of their initial deviation; for large ones.
        excitatory: Dale's law, the share of axons that excite; None leaves signs free.
        vesicles: hold weights as vesicles x receptors.
        transmitters: kinds of transmitter, a dendritic filter for each.
        threshold: threshold normalisation of synaptic potentials, in standard deviations.
        norm: batch normalisation of potentials.
        diffusion: dendritic filters "learned", or filled with a cable's diffusion at the start
            ("initial"), or for good ("held").
        pull, spike_signal: of the dendritic spike; pull 0 has none. A Purkinje dendrite that is
            one number behind its filter has no neighbour to lift.
        linear_dendrites: the control without the dendritic rectifier.
        law: how dendrites sum.
        soma_time_steps: taps of the soma's filter; 1 has no memory.
        mean_wait, dropout_mode, dropout_scope: Poisson dropout of the granule cells; the few
            Purkinje cells have none. `mean_wait` is the mean wait of "release" too.
        output: what granule axons carry: "rate" (with Poisson dropout), Poisson "spikes", or
            "release" (released if it fires and is not dropped, else a wait).
        freeze_purkinje_filters: keep the Purkinje filters as they were drawn.
        checkpoint: training keeps no sheets and potentials of the Purkinje cells but makes them
            anew in the backward pass: less memory for more time.
        seed: of the wiring.
    """
    channels, height, width = check_task(image_shape, num_classes, time_steps)
    patch_height, patch_width = pair("patch", patch)
    check_positive(
        granule_cells=granule_cells,
        purkinje_cells=purkinje_cells,
        patch=(patch_height, patch_width),
        transmitters=transmitters,
        soma_time_steps=soma_time_steps,
    )
    for name, cells in (("golgi_cells", golgi_cells), ("nuclei", nuclei)):
        if type(cells) is not int or cells < 0:
            raise ValueError(f"{name}={cells!r}; expected a number of cells, 0 or more")
    check_sizes("purkinje_sheet", purkinje_sheet, ("sites", "dendrites"))
    check_sizes("purkinje_filter", purkinje_filter, ("branches", "dendrites"))
    check_choice("diffusion", diffusion, ("learned", "initial", "held"))
    # Granule cells' constants are not known to us; the Purkinje cell's serve for both.
    cable = None if diffusion == "learned" else Purkinje.physiology("literature").cable()
    stage = _output(output, mean_wait)
    granule = Granule(
        channels * height * width,
        granule_cells,
        filter_shape=(3, 4, time_steps),
        mode=granule_mode,
        wiring="receptive_field",
        image_shape=(channels, height, width),
        patch=(min(patch_height, height), min(patch_width, width)),
        excitatory=excitatory,
        vesicles=vesicles,
        transmitters=transmitters,
        threshold=threshold,
        norm=norm,
        cable=cable,
        hold_cable=diffusion == "held",
        spike=DendriticSpike(pull, signal=spike_signal) if pull else None,
        linear_dendrites=linear_dendrites,
        law=law,
        soma_time_steps=soma_time_steps,
        mean_wait=mean_wait if stage is None else None,
        dropout_mode=dropout_mode,
        dropout_scope=dropout_scope,
        output=stage,
        seed=seed,
    )
    golgi = None
    if golgi_cells and time_steps > 1:
        golgi = Golgi(
            granule_cells,
            golgi_cells,
            sheet_shape=(10, 10),
            filter_shape=(10, 10, time_steps),
            mode="per_dendrite",
            mean_wait=0.0,
            seed=seed + 2,
        )
    purkinje = Purkinje(
        granule_cells,
        purkinje_cells,
        sheet_shape=(purkinje_sheet[0], purkinje_sheet[1]),
        filter_shape=(purkinje_filter[0], purkinje_filter[1], time_steps),
        mode=purkinje_mode,
        wiring=purkinje_wiring,
        excitatory=excitatory,
        vesicles=vesicles,
        transmitters=transmitters,
        threshold=threshold,
        norm=norm,
        cable=cable,
        hold_cable=diffusion == "held",
        spike=DendriticSpike(pull, signal=spike_signal) if pull else None,
        linear_dendrites=linear_dendrites,
        law=law,
        soma_time_steps=soma_time_steps,
        mean_wait=0.0,
        unit_taps=purkinje_unit_taps,
        checkpoint=checkpoint,
        seed=seed + 1,
    )
    if freeze_purkinje_filters:
        purkinje.dendrites.weight.requires_grad_(False)
    nuclear = None
    if nuclei:
        # Every nucleus hears every Purkinje cell, by one synapse each, spread over four dendrites.
        dendrites = min(4, purkinje_cells)
        sites = -(-purkinje_cells // dendrites)
        nuclear = DeepNuclear(
            purkinje_cells,
            nuclei,
            sheet_shape=(sites, dendrites),
            filter_shape=(sites, dendrites, time_steps),
            synapses=purkinje_cells,
            mode="per_dendrite",
            norm="soma",
            mean_wait=0.0,
            seed=seed + 3,
        )
    granular = GranularLayer(granule, golgi, seed + 4)
    return Cerebellum(granular, purkinje, nuclear, num_classes, time_steps)


cerebellum_tiny = register_preset(
    "cerebellum_tiny",
    cerebellum_small,
    """A cerebellum for 8x8 images: 256 granule cells, 16 Purkinje cells of 250 synapses.

    Arguments as in `cerebellum_small`.
    """,
    image_shape=(1, 8, 8),
    granule_cells=256,
    golgi_cells=4,
    purkinje_cells=16,
    patch=(3, 3),
    purkinje_sheet=(5, 50),
    purkinje_filter=(5, 50),
)

cerebellum_base = register_preset(
    "cerebellum_base",
    cerebellum_small,
    """The essay's Purkinje cell in size: 100,000 synapses, 1,000 dendrites, a 10x1000x5 filter.

    Few cells, each of full size, over 2,000 granule cells, so that an axon makes 50 synapses in a
    row where the essay gives each synapse an axon of its own. Parallel fibres cross the trees in
    order: a dendrite listens to two neighbouring granule cells, one along the lower half of its
    sites and one along the upper, and a tap of the filter, which takes its full overlaps
    ("valid"), meets no others. Under random wiring a tap meets another axon at each position and
    has little to learn. `purkinje_mode="same"` is the essay's cost, 1,100 times this. Arguments as
    in `cerebellum_small`.
    """,
    image_shape=(1, 8, 8),
    granule_cells=2000,
    golgi_cells=8,
    purkinje_cells=4,
    patch=(3, 3),
    purkinje_sheet=(100, 1000),
    purkinje_filter=(10, 1000),
    purkinje_mode="valid",
    purkinje_wiring="parallel",
    purkinje_unit_taps=True,
)
