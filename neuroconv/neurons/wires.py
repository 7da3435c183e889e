"""Which axon each synapse of a population listens to."""

from typing import Literal, get_args

from torch import Tensor

from neuroconv.core.checks import check_sizes
from neuroconv.layers.wiring import (
    parallel_fibre_wiring,
    parallel_wiring,
    receptive_field_wiring,
    sparse_wiring,
)

Wiring = Literal["dense", "sparse", "parallel", "parallel_fibres", "receptive_field"]
WIRINGS: tuple[str, ...] = get_args(Wiring)


def tree_wiring(
    in_features: int,
    neurons: int,
    sheet_shape: tuple[int, int],
    synapses: int,
    claw: bool,
    wiring: Wiring,
    image_shape: tuple[int, int, int] | None,
    patch: tuple[int, int] | None,
    crossed: int | None,
    seed: int,
) -> Tensor | None:
    """The axon of each synapse, (N, synapses); None for dense wiring.

    Args: as `Population`'s.

    Raises:
        ValueError: an argument that this wiring does not take, or an image of other pixels than
            there are axons.
    """
    if (image_shape is not None) != (wiring == "receptive_field"):
        raise ValueError(
            f"image_shape={image_shape} with wiring={wiring!r}; expected image_shape="
            "(channels, height, width) with wiring='receptive_field', and without it otherwise"
        )
    if patch is not None and wiring != "receptive_field":
        raise ValueError(f"patch={patch} with wiring={wiring!r}; it is for 'receptive_field' alone")
    if crossed is not None and wiring != "parallel_fibres":
        raise ValueError(
            f"crossed={crossed} with wiring={wiring!r}; it is for 'parallel_fibres' alone"
        )
    if wiring == "dense":
        return None
    if wiring == "parallel":
        return parallel_wiring(in_features, neurons, synapses)
    if wiring == "parallel_fibres":
        return parallel_fibre_wiring(in_features, neurons, synapses, crossed=crossed, seed=seed)
    if image_shape is None:
        return sparse_wiring(in_features, neurons, synapses, sheet_shape, claw=claw, seed=seed)
    channels, height, width = check_sizes(
        "image_shape", image_shape, ("channels", "height", "width")
    )
    pixels = channels * height * width
    if pixels != in_features:
        raise ValueError(
            f"image_shape={image_shape} has {pixels} pixels and in_features is {in_features}; "
            "expected one axon for each pixel"
        )
    return receptive_field_wiring(
        (channels, height, width),
        neurons,
        synapses,
        sheet_shape,
        patch=patch,
        claw=claw,
        seed=seed,
    )
