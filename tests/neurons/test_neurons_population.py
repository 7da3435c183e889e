"""Populations against a scalar float64 re-implementation, stage by stage from the formulas."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroconv.layers import DenseSynapses, SparseSynapses
from neuroconv.neurons import (
    GRANULE_DETTMERS2015,
    PURKINJE_DETTMERS2015,
    Granule,
    Physiology,
    Population,
    Purkinje,
)

Array = NDArray[np.float64]
SMALL: dict[str, Any] = {"sheet_shape": (4, 3), "filter_shape": (2, 3, 3), "mean_wait": 0.0}


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def normalised(values: Array, norm: nn.BatchNorm1d | nn.BatchNorm2d, channel: int) -> Array:
    """Batch norm in evaluation, of one channel's values."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
    scaled = (values - mean) / math.sqrt(variance + norm.eps)
    return scaled * norm.weight[channel].item() + norm.bias[channel].item()


def scalar_population(cells: Population, activity: Array) -> Array:
    """The neuron as its stages define it, in loops; Poisson dropout off."""
    batch, _, steps = activity.shape
    neurons, (sites, dendrites) = cells.out_features, cells.dendrites.sheet_shape
    branches, across, k_time = cells.dendrites.filter_shape
    mode = cells.dendrites.mode
    filters, synapses = numbers(cells.dendrites.weight), cells.synapses.synapses
    weight = numbers(cells.synapses.weight)
    before = ((branches - 1) // 2, (across - 1) // 2) if mode == "same" else (0, 0)
    rows = sites if mode == "same" else sites - branches + 1
    columns = dendrites - across + 1 if mode == "valid" else dendrites
    rates = np.zeros((batch, neurons, steps))
    for b, n in np.ndindex(batch, neurons):
        # Synapses: a weight times the activity of the axon that it listens to, or of all.
        sheet = np.zeros((steps, sites, dendrites))
        for s in range(synapses):
            if isinstance(cells.synapses, SparseSynapses):
                axon = int(cells.synapses.wiring[n, s])
                heard = weight[n, s] * activity[b, axon]
            else:
                heard = weight[n * synapses + s] @ activity[b]
            sheet[:, s % sites, s // sites] = heard  # dendrite by dendrite
        # Dendrites: the filter, causal in time; a resting potential for each dendrite.
        potential = np.zeros((steps, rows, columns))
        for t, p, d in np.ndindex(steps, rows, columns):
            for kt, kp, kd in np.ndindex(k_time, branches, across):
                then, site, dendrite = t - k_time + 1 + kt, p + kp - before[0], d + kd - before[1]
                if mode == "per_dendrite":
                    if kd != d:
                        continue
                    dendrite = d
                if then >= 0 and 0 <= site < sites and 0 <= dendrite < dendrites:
                    potential[t, p, d] += filters[n, kt, kp, kd] * sheet[then, site, dendrite]
            if cells.dendrites.bias is not None:
                potential[t, p, d] += cells.dendrites.bias[n, d].item()
        for d in range(columns):
            if cells.dendritic_norm is not None:
                potential[:, :, d] = normalised(
                    potential[:, :, d], cells.dendritic_norm, n * columns + d
                )
        # Dendritic rate: rectified, one number for each dendrite. Summation: their mean.
        if not cells.dendritic_rate.linear:
            potential = np.maximum(potential, 0)
        reduce = {"mean": np.mean, "sum": np.sum, "max": np.max}[cells.dendritic_rate.reduction]
        current = np.array(
            [sum(reduce(potential[t, :, d]) for d in range(columns)) for t in range(steps)]
        )
        current = current / columns
        # Soma: a causal temporal filter, then the rate.
        taps = numbers(cells.soma.weight)
        taps = taps if taps.ndim == 1 else taps[n]
        soma = np.zeros(steps)
        for t in range(steps):
            for lag in range(min(len(taps), t + 1)):
                soma[t] += taps[len(taps) - 1 - lag] * current[t - lag]
        if cells.soma_norm is not None:
            soma = normalised(soma, cells.soma_norm, n)
        if cells.bias is not None:
            soma = soma + cells.bias[n].item()
        rates[b, n] = np.maximum(soma, 0)
    return rates


def lively(cells: nn.Module) -> nn.Module:
    """Every parameter and every statistic off its initial value, so that each one matters."""
    for name, parameter in cells.named_parameters():
        if name.endswith(("bias", "soma.weight")) or "norm" in name:
            nn.init.normal_(parameter, 0.3, 0.5)
    for name, buffer in cells.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.3)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    return cells.double().eval()


@pytest.mark.parametrize(
    ("kind", "keywords"),
    [
        (Granule, {}),
        (Granule, {"norm": "both"}),
        (Granule, {"wiring": "dense", "norm": "dendrites"}),
        (Granule, {"wiring": "receptive_field", "image_shape": (1, 4, 5), "patch": (2, 3)}),
        (Granule, {"linear_dendrites": True, "norm": "soma"}),
        (Granule, {"claw": False, "soma_per_neuron": True, "reduction": "max"}),
        (Purkinje, SMALL),
        (Purkinje, SMALL | {"mode": "valid", "norm": "both"}),
        (Purkinje, SMALL | {"mode": "per_dendrite", "norm": "soma"}),
        (Purkinje, SMALL | {"mode": "per_dendrite", "norm": "dendrites", "reduction": "sum"}),
        (Purkinje, SMALL | {"wiring": "dense", "synapses": 7, "soma_time_steps": 2}),
        (Purkinje, SMALL | {"backend": "fft", "soma_per_neuron": True}),
        (Purkinje, SMALL | {"backend": "direct", "claw": True}),
    ],
)
def test_forward_equals_the_scalar_neuron(kind: type[Population], keywords: Any) -> None:
    cells = lively(kind(20, 3, **keywords))
    assert isinstance(cells, Population)
    activity = torch.rand(2, 20, 6, dtype=torch.float64)
    wanted = scalar_population(cells, activity.numpy())
    assert (wanted > 0).any()
    np.testing.assert_allclose(numbers(cells(activity)), wanted, rtol=0, atol=1e-12)
    single = cells.float()(activity.float())
    np.testing.assert_allclose(numbers(single), wanted, rtol=0, atol=1e-5)


def test_gradcheck_of_a_whole_granule_cell() -> None:
    cells = Granule(6, 2, filter_shape=(3, 4, 2), soma_time_steps=2, mean_wait=0.0).double()
    names = [name for name, _ in cells.named_parameters()]
    for name, parameter in cells.named_parameters():
        if name.endswith("bias"):  # open, and away from the rectifiers' kinks
            nn.init.uniform_(parameter, 1, 2)
    nn.init.normal_(cells.dendrites.weight, std=0.1)
    activity = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert (cells(activity) > 0.1).all()

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(cells, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (activity, *cells.parameters()))


def test_backends_agree_through_a_whole_cell() -> None:
    cells = [lively(Purkinje(20, 3, **SMALL, backend=b)) for b in ("direct", "fft", "matmul")]
    activity = torch.rand(2, 20, 5, dtype=torch.float64)
    for other in cells[1:]:
        other.load_state_dict(cells[0].state_dict())
        torch.testing.assert_close(other(activity), cells[0](activity), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Granule, Purkinje])
def test_static_activity_is_constant_over_the_window(kind: type[Population]) -> None:
    cells = kind(20, 3, sheet_shape=(4, 3), filter_shape=(2, 3, 4)).eval()
    activity = torch.rand(2, 20)
    result = cells(activity)
    assert result.shape == (2, 3, 4)
    assert torch.equal(result, cells(activity[:, :, None].repeat(1, 1, 4)))


def test_samples_do_not_meet_in_evaluation() -> None:
    cells = lively(Granule(20, 4, norm="both"))
    activity = torch.rand(5, 20, 5, dtype=torch.float64)
    together = cells(activity)
    for sample in range(5):
        torch.testing.assert_close(
            cells(activity[sample : sample + 1])[0], together[sample], rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("backend", ["direct", "fft", "matmul"])
@pytest.mark.parametrize("norm", ["none", "both"])
def test_a_later_step_never_changes_an_earlier_rate(norm: Any, backend: Any) -> None:
    cells = lively(Purkinje(20, 6, **SMALL, norm=norm, backend=backend))
    activity = torch.rand(3, 20, 8, dtype=torch.float64)
    for step in (1, 4, 7):
        changed = activity.clone()
        changed[:, :, step] += 1
        before, after = cells(activity), cells(changed)
        torch.testing.assert_close(before[..., :step], after[..., :step], rtol=0, atol=1e-12)
        assert not torch.allclose(before[..., step:], after[..., step:])


def test_dendrite_and_soma_see_nine_steps_back_with_the_present() -> None:
    cells = lively(Granule(8, 16))
    nn.init.constant_(cells.soma.weight, 0.5)  # type: ignore[union-attr, arg-type]
    activity = torch.rand(4, 8, 12, dtype=torch.float64, requires_grad=True)
    cells(activity)[..., 11].sum().backward()
    assert activity.grad is not None
    felt = activity.grad.abs().sum((0, 1)) > 0
    assert felt.tolist() == [False] * 3 + [True] * 9


def current(cells: Population, activity: Tensor) -> Tensor:
    """What the dendrites hand to the soma."""
    return cells.summation(cells.dendritic_rate(cells.dendrites(cells.synapses(activity))))


@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_linear_dendrites_collapse_to_one_dot_product(mode: Any) -> None:
    cells = Purkinje(20, 3, **SMALL, mode=mode, linear_dendrites=True).double()
    rectified = Purkinje(20, 3, **SMALL, mode=mode).double()
    rectified.load_state_dict(cells.state_dict())
    x, y = torch.randn(2, 4, 20, 3, dtype=torch.float64)
    torch.testing.assert_close(current(cells, x) + current(cells, y), current(cells, x + y))
    assert not torch.allclose(
        current(rectified, x) + current(rectified, y), current(rectified, x + y)
    )
    # The dot product itself, read off by probing with unit impulses.
    impulses = torch.eye(60, dtype=torch.float64).view(60, 20, 3)
    weights = current(cells, impulses)[..., -1]  # (60, N)
    torch.testing.assert_close(x.flatten(1) @ weights, current(cells, x)[..., -1])


@pytest.mark.parametrize(
    ("kind", "keywords", "wanted"),
    [
        # weights of the synapses, taps, dendritic bias, soma taps, somatic bias
        (Granule, {}, 7 * (15 + 60 + 4 + 1) + 5),
        (Granule, {"norm": "soma"}, 7 * (15 + 60 + 4 + 2) + 5),
        (Granule, {"norm": "dendrites"}, 7 * (15 + 60 + 8 + 1) + 5),
        (Granule, {"norm": "both"}, 7 * (15 + 60 + 8 + 2) + 5),
        (Granule, {"soma_per_neuron": True}, 7 * (15 + 60 + 4 + 1 + 5)),
        (Granule, {"wiring": "dense"}, 7 * (15 * 30 + 60 + 4 + 1) + 5),
        (Purkinje, {}, 7 * (100_000 + 50_000 + 1_000 + 1) + 5),
        (Purkinje, {"mode": "valid"}, 7 * (100_000 + 50_000 + 1 + 1) + 5),
    ],
)
def test_parameters_by_closed_form(kind: type[Population], keywords: Any, wanted: int) -> None:
    with torch.device("meta"):
        cells = kind(30, 7, **keywords)
    assert sum(parameter.numel() for parameter in cells.parameters()) == wanted


def test_presets_are_the_essays_and_frozen() -> None:
    granule, purkinje = Granule(30, 2), GRANULE_DETTMERS2015
    assert (purkinje.synapses, purkinje.sheet_shape, purkinje.filter_shape) == (
        15,
        (4, 4),
        (3, 4, 5),
    )
    assert granule.synapses.synapses == 15
    assert granule.dendrites.filter_shape == (3, 4, 5)
    assert granule.dropout.mean_wait == 0.5
    assert granule.dropout.mode == "wait"
    assert isinstance(granule.synapses, SparseSynapses)
    assert all(len(set(row.tolist())) == 4 for row in granule.synapses.wiring)
    cell = PURKINJE_DETTMERS2015
    assert (cell.synapses, cell.sheet_shape, cell.filter_shape) == (
        100_000,
        (100, 1000),
        (10, 1000, 5),
    )
    assert (GRANULE_DETTMERS2015.cells_in_brain, cell.cells_in_brain) == (50 * 10**9, 10**8)
    assert (GRANULE_DETTMERS2015.outputs, cell.outputs) == (100, 1000)
    for preset in (GRANULE_DETTMERS2015, PURKINJE_DETTMERS2015):
        held = set(Physiology.__dataclass_fields__) - {"cell", "variant", "sources"}
        assert set(preset.sources) == held  # each number has its place
        assert all(preset.sources.values())
        with pytest.raises(AttributeError):
            preset.synapses = 3  # type: ignore[misc]
        with pytest.raises(TypeError):
            preset.sources["synapses"] = ""  # type: ignore[index]


def test_fits_into_sequential_and_learns() -> None:
    network = nn.Sequential(
        Granule(30, 16, norm="soma"),
        Purkinje(16, 4, sheet_shape=(5, 3), filter_shape=(2, 3, 5), mode="per_dendrite"),
        nn.Flatten(),
        nn.Linear(4 * 5, 3),
    )
    activity, labels = torch.rand(12, 30), torch.arange(12) % 3
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(activity), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_state_dict_round_trip_and_deepcopy() -> None:
    cells = lively(Granule(20, 4, norm="both", seed=1))
    other = Granule(20, 4, norm="both", seed=2).double().eval()
    activity = torch.rand(2, 20, 5, dtype=torch.float64)
    assert not torch.equal(cells(activity), other(activity))
    other.load_state_dict(cells.state_dict())  # the wiring goes with it
    assert torch.equal(cells(activity), other(activity))
    twin = copy.deepcopy(cells)
    assert torch.equal(cells(activity), twin(activity))
    nn.init.zeros_(twin.get_parameter("dendrites.weight"))
    assert cells.get_parameter("dendrites.weight").any()


def test_seed_draws_the_wiring_and_torch_the_weights() -> None:
    def build(seed: int, torch_seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(torch_seed)
        cells = Granule(50, 10, seed=seed)
        return cells.synapses.get_buffer("wiring"), cells.dendrites.weight.detach()

    (wiring, weight), (same_wiring, other_weight) = build(0, 0), build(0, 1)
    assert torch.equal(wiring, same_wiring)
    assert not torch.equal(weight, other_weight)
    other_wiring, same_weight = build(1, 0)
    assert not torch.equal(wiring, other_wiring)
    assert torch.equal(weight, same_weight)


def test_norms_in_training_normalise_where_they_say() -> None:
    activity = torch.rand(16, 20, 5)
    cells = Granule(20, 6, norm="soma", mean_wait=0.0)
    assert cells.soma_norm is not None
    seen: list[Tensor] = []
    cells.soma_norm.register_forward_hook(lambda m, args, result: seen.append(result))
    cells(activity)
    torch.testing.assert_close(seen[0].mean((0, 2)), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0].std((0, 2)), torch.ones(6), rtol=0, atol=0.05)
    cells = Granule(20, 6, norm="dendrites", mean_wait=0.0)
    seen.clear()
    cells.dendritic_rate.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    cells(activity)
    # Each dendrite of each neuron, over batch, steps and sites.
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(6, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), torch.ones(6, 4), rtol=0, atol=0.05)


def test_rates_are_never_negative_and_dropout_silences_in_training_alone() -> None:
    cells = Granule(20, 50)
    activity = torch.rand(4, 20, 5)
    trained = cells(activity)
    assert (trained >= 0).all()
    rest = cells.eval()(activity)
    assert torch.equal(rest, cells(activity))
    assert (trained[rest > 0] == 0).double().mean().item() == pytest.approx(0.35, abs=0.1)


def test_all_purkinje_cells_of_a_tenth_of_a_brain_on_meta() -> None:
    with torch.device("meta"):
        cells = Purkinje(5_000_000, 10_000_000)
        rate = cells(torch.empty(1, 5_000_000, 5))
    assert rate.is_meta
    assert rate.shape == (1, 10_000_000, 5)
    assert sum(p.numel() for p in cells.parameters()) == 10_000_000 * 151_001 + 5
    dendrites = cells.closed_form(torch.Size((1, 5_000_000, 5)))[1]
    assert dendrites.essay == dendrites.direct == 10_000_000 * 25_000_000_000


def test_closed_form_rows() -> None:
    synapses, dendrites, soma = Granule(20, 6).closed_form(torch.Size((3, 20)))
    assert [row.stage for row in (synapses, dendrites, soma)] == ["synapses", "dendrites", "soma"]
    assert synapses.synapses == 6 * 15
    assert synapses.pointwise == 3 * 5 * 6 * 15
    assert dendrites.neurons == 6
    assert dendrites.essay == 3 * 6 * 4_500
    assert dendrites.direct == 3 * 6 * 4_800
    assert dendrites.macs == {"matmul": 3 * 6 * (5 * 16) ** 2}
    assert soma.macs == {"matmul": 3 * 6 * 5 * 5}
    assert Granule(20, 6).closed_form(torch.Size((3, 20, 5)))[1] == dendrites


def test_wiring_choices() -> None:
    assert isinstance(Granule(12, 2, wiring="dense").synapses, DenseSynapses)
    field = Granule(24, 5, wiring="receptive_field", image_shape=(1, 4, 6), claw=False, synapses=16)
    wiring = field.synapses.get_buffer("wiring")
    assert all(len(set(row.tolist())) == 16 for row in wiring)  # a 4 x 4 patch, pixel by pixel


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((0, 5), {}, "in_features=0; expected positive"),
        ((10, 0), {}, "out_features=0; expected positive"),
        ((10, -3), {}, "out_features=-3; expected positive"),
        ((10, 5), {"sheet_shape": (0, 4)}, r"sheet_shape=\(0, 4\); expected positive"),
        ((10, 5), {"sheet_shape": (4, 4, 4)}, r"sheet_shape=\(4, 4, 4\)"),
        ((10, 5), {"filter_shape": (3, 0, 5)}, r"filter_shape=\(3, 0, 5\); expected positive"),
        ((10, 5), {"filter_shape": (3, 4)}, r"\(3, 4\); expected \(branches, dendrites, time_st"),
        ((10, 5), {"soma_time_steps": 0}, "time_steps=0; expected positive"),
        ((10, 5), {"synapses": 17}, "synapses=17; expected 1 to 16"),
        ((10, 5), {"synapses": 0}, "synapses=0; expected 1 to 16"),
        ((10, 5), {"mode": "full"}, "'full' is unknown; expected one of same, valid, per_dend"),
        ((10, 5), {"mode": "valid", "sheet_shape": (2, 4)}, "does not fit .*mode='same'"),
        ((10, 5), {"wiring": "sparce"}, "wiring='sparce' is unknown; expected one of dense, sp"),
        ((10, 5), {"norm": "batch"}, "norm='batch' is unknown; expected one of none, dendrites"),
        ((10, 5), {"reduction": "min"}, "reduction='min' is unknown; expected one of mean"),
        ((10, 5), {"backend": "cudnn"}, "'cudnn' is unknown; expected one of auto, direct"),
        ((10, 5), {"dropout_mode": "redo"}, "mode='redo' is unknown; expected one of wait"),
        ((10, 5), {"mean_wait": -1.0}, "mean_wait=-1.0; expected"),
        ((10, 5), {"wiring": "receptive_field"}, r"image_shape=None .*expected image_shape=\(chan"),
        ((10, 5), {"image_shape": (1, 2, 5)}, r"image_shape=\(1, 2, 5\) with wiring='sparse'"),
        (
            (10, 5),
            {"wiring": "receptive_field", "image_shape": (1, 4, 4)},
            r"\(1, 4, 4\) has 16 pixels and in_features is 10; expected one axon for each pixel",
        ),
    ],
)
def test_constructor_errors(arguments: Any, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Granule(*arguments, **keywords)


@pytest.mark.parametrize("sizes", [(10.0, 5), (10, 5.0), ("10", 5)])
def test_sizes_that_are_no_integers(sizes: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"features=.*expected"):
        Granule(*sizes)


@pytest.mark.parametrize("shape", [(10,), (2, 9), (2, 9, 5), (2, 10, 5, 1)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 10 axons, time_steps\)"):
        Granule(10, 5)(torch.zeros(shape))


def test_a_window_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 10, 0\)"):
        Granule(10, 5)(torch.zeros(2, 10, 0))


@pytest.mark.slow
def test_compile() -> None:
    cells = Granule(20, 4, norm="soma", mean_wait=0.0)
    activity = torch.rand(3, 20, 5)
    torch._dynamo.reset()
    compiled = torch.compile(cells, backend="aot_eager")
    torch.testing.assert_close(compiled(activity), cells(activity))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["direct", "fft", "matmul"])
def test_cuda_equals_cpu(backend: Any) -> None:
    cells = lively(Purkinje(20, 6, **SMALL, norm="both", backend=backend))
    activity = torch.rand(3, 20, 5, dtype=torch.float64)
    wanted = cells(activity)
    result = cells.cuda()(activity.cuda())
    torch.testing.assert_close(result.cpu(), wanted, rtol=0, atol=1e-10)
