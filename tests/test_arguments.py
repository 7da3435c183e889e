"""Arguments: what a constructor cannot use it refuses by name, and what it accepts it uses."""

import copy
import inspect
import math
import pickle
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuroconv import data, flops, layers, neurons, zoo
from neuroconv.brain import Reading, estimate_brain
from neuroconv.core.arguments import Positive, Size, checked
from neuroconv.layers import Cable, DendriticConv, PoissonDropout, Random, Taps, TreeShape
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje

TREE, SHEET = TreeShape((4, 3), (2, 3, 3)), (2, 2, 3, 4, 3)
SIZES = {"sheet": (4, 3), "filter": (2, 3, 3)}
STAGES = dict.fromkeys(
    ("variant", "synapse", "threshold", "taps", "spike", "rate", "summation", "soma", "output",
     "unit_dropout")
)  # fmt: skip
CELLS = {"in_features": 5, "out_features": 2, "tree": SIZES, "norm": "none", "wiring": "random"}
CELLS |= {"norm_over": "window", "checkpoint": False, **STAGES}
IMAGE = {"kernel_size": (2, 2), "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True}
IMAGE |= {"in_channels": 2, "out_channels": 2, "time_steps": 3, "wiring": "claw", "norm": "both"}
IMAGE |= {"norm_over": "window", "threshold": None, "spike": None, "linear_dendrites": False}
IMAGE |= {"summation": "linear", "soma": None, "output": None, "seed": 0}
LAW = {"law": "sigmoidal", "knee": 1.0, "exponent": 2.0, "learnable": True}
SPIKE = {"strength": 0.5, "threshold": 0.1, "temperature": 0.5, "window": 2, "signal": "max"}
NET = {"image_shape": (1, 16, 16), "num_classes": 3, "time_steps": 2}
COUNT = {"model": nn.Linear(3, 2), "inputs": torch.zeros(2, 3), "device": "meta"}

Run = Callable[[Any, dict[str, Any]], Any]


def on(*shape: int) -> Run:
    """Runs a module on an input of this shape, of as many channels as it says it takes."""

    def run(module: Any, _: dict[str, Any]) -> None:
        sizes = (getattr(module, name, None) for name in ("in_features", "in_channels", "neurons"))
        channels = next((size for size in sizes if size), shape[1])
        module(torch.rand(shape[0], channels, *shape[2:]))

    return run


def draws(wiring: Any, keywords: dict[str, Any]) -> None:
    pixels = math.prod(keywords.get("image_shape", (12,)))
    wiring.axons(pixels, 3, TreeShape(keywords.get("patch") or (1, 2)))


def network(model: Any, keywords: dict[str, Any]) -> None:
    model.eval()(torch.rand(2, *keywords["image_shape"]))


def nothing(*_: Any) -> None:
    """Runs nothing: the call itself has used its arguments."""


def of(layer: Any, **keywords: Any) -> tuple[Any, dict[str, Any]]:
    return layer, keywords


# A valid call of each, and what then uses its result.
CALLS: dict[str, tuple[Any, dict[str, Any], Run]] = {
    call.__name__: (call, keywords, run)
    for (call, keywords), run in (
        (of(Cable, length_constant_um=9.0, time_constant_ms=9.0, site_um=9.0, step_ms=9.0),
         lambda cable, _: cable.taps(3, 2)),
        (of(Taps, cable=None, trainable=True, equalized_lr=False, backend="auto"),
         lambda taps, _: DendriticConv(2, TREE, taps)(torch.rand(SHEET))),
        (of(DendriticConv, neurons=2, tree=TREE, taps=None, bias=True), on(*SHEET)),
        (of(layers.DendriticRate, reduction="mean", linear=False, **LAW), on(*SHEET)),
        (of(layers.DendriticSpike, **SPIKE, learn_strength=False, learn_threshold=False),
         on(*SHEET)),
        (of(layers.dendritic_spike, potential=torch.rand(SHEET), **SPIKE), nothing),
        (of(layers.DendriticSummation, scale=0.5, **LAW), on(2, 3, 4, 5)),
        (of(layers.DenseSynapses, in_features=5, neurons=2, tree=TREE, signs=None,
            factorized=False, transmitters=1), on(2, 5, 3)),
        (of(layers.SparseSynapses, wiring=torch.zeros(2, 12, dtype=torch.int64), in_features=5,
            sheet=(4, 3), signs=None, factorized=False, transmitters=1, claw=False), on(2, 5, 3)),
        (of(layers.SomaFilter, time_steps=3, neurons=None), on(2, 3, 4)),
        (of(PoissonDropout, mean_wait=0.5, mode="wait", scope="neuron", clock="steps"),
         on(2, 3, 4)),
        (of(layers.PoissonSpikes, dt=1.0), on(2, 3, 4)),
        (of(layers.ReleaseOrWait, mean_wait=0.5, wait_ms=20.0, step_ms=5.0), on(2, 3, 4)),
        (of(layers.ThresholdNorm, features=2, threshold=3.0, empty_positions=1, momentum=0.1,
            eps=1e-5, norm_over="window"),
         lambda norm, _: norm(torch.rand(2, norm.features, 3, 4, 3))),
        (of(layers.TransmitterSum, kinds=2),
         lambda total, _: total(torch.rand(2, 6 * total.kinds, 3, 4, 3))),
        (of(layers.Synapse, excitatory=0.5, factorized=False, transmitters=1, seed=0),
         lambda synapse, _: synapse.signs(6)),
        (of(TreeShape, **SIZES, synapses=5, mode="same"), lambda tree, _: tree.filled),
        (of(Random, claw=None, seed=0), draws),
        (of(layers.ParallelFibres, neurons_per_fibre=2, seed=0), draws),
        (of(layers.ReceptiveField, image_shape=(1, 3, 4), patch=(2, 2), claw=None, seed=0), draws),
        (of(layers.DendriticFields, image_shape=(1, 3, 4), patch=(2, 2), seed=0), draws),
        (of(layers.dale_signs, in_features=5, excitatory=0.5, seed=0), nothing),
        *((of(kind, **CELLS), on(2, 5, 3)) for kind in neurons.CELL_CLASSES.values()),
        (of(GranuleConv2d, **IMAGE), on(2, 2, 3, 8, 8)),
        (of(neurons.convert, model=nn.Conv2d(2, 2, 3), copy_weights=True), nothing),
        (of(neurons.fold, model=nn.Conv2d(2, 2, 3)), nothing),
        (of(neurons.graphed, module=nn.Linear(2, 2).eval(), example=torch.zeros(1, 2)), nothing),
        (of(neurons.preset, cell="granule", variant=None), nothing),
        *((of(zoo.get_builder(name), **NET, **more), network) for name, more in cast(Any, {
            "linear": {}, "lenet5": {"width": 4}, "mlp": {"width": 4, "depth": 1},
            "plain_cnn": {"width": 4, "strides": (2, 1), "pool": 2, "depth": 2},
            "granule_convnet": {"widths": (2, 2), "strides": (2, 1), "kernel_size": (2, 2),
                                "pool": 2, "unit": {}, "control": False, "seed": 0},
            "resnet18": {"width": 1}, "vit": {"width": 2, "depth": 1},
            "resnet18_granule": {"width": 1, "unit": {}, "seed": 0},
            "cerebellum_tiny": {"granule": {"cells": 8}, "golgi": {"cells": 2},
                                "purkinje": {"cells": 4}, "nuclei": {}, "seed": 0},
        }).items()),
        (of(zoo.create_model, name="mlp", image_shape=(1, 4, 4), width=3), network),
        (of(zoo.ClimbingFibres, num_classes=3, purkinje_cells=4, resting_rate=1.0, gain=2.0),
         lambda fibres, _: fibres(torch.rand(1, fibres.num_classes), torch.tensor([0]))),
        (of(zoo.GranularLayer, granule=Granule(5, 4), golgi=None, seed=0), nothing),
        (of(zoo.Conv3dUnit, granule=GranuleConv2d(1, 2, 2)), nothing),
        (of(zoo.FrameNet, units=[nn.Identity()], channels=2, pool=2, num_classes=3, steps=3),
         nothing),
        (of(zoo.GranuleResNet, stem=nn.Identity(), blocks=[nn.Identity()], units=2, num_classes=3,
            steps=3), nothing),
        (of(zoo.PatchTransformer, network=nn.Identity(), time_steps=2), nothing),
        (of(zoo.StillNet, network=nn.Identity(), time_steps=2), nothing),
        (of(zoo.Perceptron, network=nn.Identity(), time_steps=2), nothing),
        (of(zoo.MossyFibres, on_off=True, normalise=True), on(2, 1, 3, 2, 2)),
        (of(zoo.NuclearReadout, classes=3, cells_per_class=2, gain=1.0), on(2, 6)),
        (of(zoo.PurkinjeClassifier, mossy=zoo.MossyFibres(), granule=None, purkinje=Purkinje(4, 3),
            readout=zoo.NuclearReadout(3, 1, 1.0), steps=3), nothing),
        (of(zoo.SparseLinear, in_features=6, fan_in=2), nothing),
        (of(zoo.KTree, image_shape=(1, 2, 2), num_classes=3, time_steps=1, repeats=1, pool=1),
         nothing),
        (of(zoo.Cerebellum, granular=zoo.GranularLayer(Granule(5, 4)), purkinje=Purkinje(4, 2),
            nuclei=None, num_classes=3, steps=3), nothing),
        (of(flops.profile, **COUNT, name=None, counters=("exact",), fvcore_device="cpu",
            fvcore_limit=9, time_steps=None, strict=False, timed=False), nothing),
        (of(flops.count_exact, **COUNT, backward=False, training=False, strict=False), nothing),
        (of(flops.count_closed_form, **COUNT), nothing),
        (of(flops.estimate_energy, mac=1, other_flop=1, moved_bytes=2, compulsory_bytes=1,
            synaptic_mac=1, active_share=0.5), nothing),
        (of(data.load_data, name="digits", root=None, classes=None, image_size=None,
            encoding="saccade", time_steps=2, augment="none", permute=False, held_out=None,
            train_limit=20, cache="auto",
            seed=0), lambda splits, _: splits.train[0]),
        (of(data.encode, images_BCHW=torch.rand(2, 1, 4, 4), encoding="poisson", time_steps=2,
            sample_seeds=[1, 2], path_seed=0), nothing),
        (of(estimate_brain, inputs=None, reading=None, weights=None, samples=9, seed=0), nothing),
        (of(Reading, name="x", padding="same", steps="last", clock="rate", algorithm="essay",
            scope="dendrites", cells=("purkinje",), granule_filter="own"), nothing),
    )
}  # fmt: skip

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2.5, -0.5, 0.5, 1e300, 1e-320, math.nan, math.inf, -math.inf,
    2**63, 2**64, -(2**63), 10**400, "x", "", "2", "none", b"x", (), (0, 0), (1, 2), (1, 2, 3),
    [1, 2, 3, 4], [1, "a"], [[1]], ("a",), (2.0, 2), {}, {"a": 1}, {1: 2}, object(), torch.ones(2),
    torch.tensor(2), torch.ones(5, dtype=torch.bool), np.float32(2), np.int64(2), np.bool_(True),
    np.array([1, 2]), 1 + 2j, int, torch.float32, torch.device("cpu"), Fraction(1, 2), {1, 2},
    range(3), TREE, Taps(), Random(), {"kind": []}, {"kind": "x"}, {"kind": "in_order", "seed": 1},
    {"sheet": "10x100"}, {"sheet": [4, 3], "filter": 5}, {"mean_wait": None}, {"cable": {"a": 1}},
    {"cable": "golgi"}, {"cable": 5}, {"cells": "a"}, {"cells": None}, {"tree": {"sheet": 5}},
    {"tree": {"filter": 5}}, {"tree": "x"}, {"wiring": {"kind": []}}, {"synapse": 5},
    {"spike": 0.5}, {"seed": -1}, {"norm": None}, {"time_steps": 0}, {"law": "x"}, {"strength": 2},
    {"excitatory": "a"}, {"transmitters": 0}, {"output": False}, {"linear": "yes"},
)  # fmt: skip
# Where another argument, or what it is called in words, may be named in its place.
OTHERS = {"sheet": "synapses", "cell": "variant", "sample_seeds": "seeds", "images_BCHW": "images",
          "name": "model", "weights": "reading", "patch": "image", "inputs": "reading"}  # fmt: skip


def refuses_or_uses(name: str, argument: str, value: Any) -> None:
    call, keywords, run = CALLS[name]
    keywords = keywords | {argument: value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call(**keywords)
        except (ValueError, TypeError) as error:
            words = (argument, OTHERS.get(argument, argument))
            if not any(word in str(error) for word in words):
                raise AssertionError(f"{error}: no word of {argument}") from error
        else:
            run(result, keywords)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_that_is_a_mere_object_is_refused_by_name(name: str) -> None:
    call, keywords, run = CALLS[name]
    run(call(**keywords), keywords)
    for argument in keywords:
        with pytest.raises((ValueError, TypeError), match=argument):
            call(**{**keywords, argument: object()})


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_accepted_is_used(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    argument = data.draw(st.sampled_from(sorted(CALLS[name][1])))
    refuses_or_uses(name, argument, data.draw(st.sampled_from(NASTY)))


def test_every_public_constructor_is_called_here() -> None:
    parts = [getattr(part, name) for part in (layers, neurons, zoo) for name in part.__all__]
    own = {
        part
        for part in parts
        if inspect.isclass(part) and "__init__" in vars(part) and inspect.signature(part).parameters
    }
    records = {"Conversion", "Folding", "Physiology", "Cost", "Weights"}  # results
    bases = {"Population", "MixedPopulation"}  # no cell; and below
    assert {part.__name__ for part in own} - CALLS.keys() - records - bases == set()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Taps(cable={"a": 1}), TypeError, r"cable=\{'a': 1\}; expected a Cable or None"),  # type: ignore[arg-type]
        (lambda: Granule(5, 2, spike=0.5), TypeError, "spike=0.5; expected a DendriticSpike"),  # type: ignore[arg-type]
        (lambda: Granule(5, 2, output=True), TypeError, "output=True; expected a PoissonDropout"),  # type: ignore[arg-type]
        (lambda: Granule(5, 2, output=False), TypeError, "output=False; expected"),  # type: ignore[arg-type]
        (lambda: Random(seed=("a",)), ValueError, r"seed=\('a',\); expected an integer"),  # type: ignore[arg-type]
        (lambda: Random(seed=2**64), ValueError, "seed=18446744073709551616; expected an integer"),
        (lambda: Granule(5, 2, synapse={"vesicles": "none"}), TypeError, "synapse: .* 'vesicles'"),
        (lambda: Granule(5, 2, synapse={"factorized": "none"}), ValueError,
         "synapse: factorized='none'; expected true or false"),
        (lambda: Granule(5, 2, tree={"sheet": "10x100"}), ValueError, "tree: sheet='10x100'; exp"),
        (lambda: Granule(5, 2, taps={"cable": "golgi"}), ValueError, "taps.cable: golgi"),
        (lambda: Granule(5, 2, output={"kind": []}), ValueError, r"output=\[\] is unknown"),
        (lambda: Granule(True, 2), ValueError, "in_features=True; expected an integer of at"),
        (lambda: Granule(5, 2, checkpoint=1), ValueError, "checkpoint=1; expected true or false"),  # type: ignore[arg-type]
        (lambda: Granule(5, 2, threshold=math.nan), ValueError, "threshold=nan; expected a finite"),
        (lambda: neurons.MixedPopulation(Granule(5, 2), 3), TypeError, "populations=3; expected a"),  # type: ignore[arg-type]
        (lambda: layers.ReleaseOrWait(wait_ms=1e30), ValueError, r"wait_ms=1e\+30 with step_ms="),
        (lambda: zoo.create_model("cerebellum_tiny", granule={"tree": {"filter": 5}}), ValueError,
         "granule: tree: filter=5; expected 3 values"),
        (lambda: zoo.create_model("cerebellum_tiny", golgi={"cells": "2"}), ValueError,
         "golgi: cells='2'; expected an integer of at least 0"),
        (lambda: zoo.create_model("granule_convnet", widths=()), ValueError, r"widths=\(\); exp"),
        (lambda: zoo.create_model(["mlp"]), ValueError, r"name=\['mlp'\]; expected a string"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_kinds_of_mistakes(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_numpy_and_lists_become_plain_python() -> None:
    tree = TreeShape([np.int64(4), 3], filter=[2, 3, 3], synapses=np.int32(5))  # type: ignore
    assert (tree.sheet, type(tree.sheet[0]), type(tree.synapses)) == ((4, 3), int, int)
    assert hash(tree) == hash(TreeShape((4, 3), (2, 3, 3), 5))
    assert type(Cable(np.float32(1), 1, Fraction(1, 2), 1).site_um) is float  # type: ignore
    assert Taps(trainable=np.bool_(False)).trainable is False  # type: ignore[arg-type]
    assert PoissonDropout(1).mean_wait == 1
    assert isinstance(PoissonDropout(1).mean_wait, int)  # an int stays one, in texts too


def test_a_checked_class_is_still_a_class() -> None:
    class Big(Granule):
        def __init__(self, neurons: Size, **stages: Any) -> None:
            super().__init__(9, neurons, **stages)

    parameters = inspect.signature(Granule).parameters
    assert [*parameters][:3] == ["in_features", "out_features", "variant"]
    assert "Annotated[int, of at least 1, and below 2**63]" in str(inspect.signature(Granule))
    assert Granule.__init__.__doc__ is None or "checked" not in Granule.__init__.__doc__
    with torch.device("meta"):
        assert Big(np.int64(3)).out_features == 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out_features=0"):
        Big(0)
    for copied in (copy.deepcopy(Granule(5, 2)), pickle.loads(pickle.dumps(Granule(5, 2)))):
        assert copied(torch.rand(1, 5, 5)).shape == (1, 2, 5)
    assert pickle.loads(pickle.dumps(TREE)) == TREE


def test_annotations_that_no_value_is_held_to() -> None:
    @checked
    def builder(a: "Missing", b: Positive = 1.0) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return a, b

    assert builder(3, b=-1) == (3, -1)  # an import for type checkers alone
    with pytest.raises(TypeError, match="builder has no keyword 'c'; expected one of a, b"):
        builder(3, c=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"missing .* argument: 'a'"):
        builder()  # type: ignore[call-arg]
