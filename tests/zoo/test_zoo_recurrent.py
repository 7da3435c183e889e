"""Networks in time: their formulas, step by step in float64, and the literature's sizes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import count_closed_form, count_exact, count_fvcore
from neuroconv.zoo import count_parameters, create_model
from neuroconv.zoo.recurrent import ExpressiveLeakyMemory, LeakyIntegrateAndFire, SpikeTrace

TASKS: dict[str, dict[str, Any]] = {
    "speech": {"image_shape": (1, 40, 1), "time_steps": 2},
    "motion": {"image_shape": (1, 28, 28), "time_steps": 2},
}
NAMES = ["elm", "gru", "lif", "lstm", "ncp", "temporal_cnn"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_all_arithmetic_of_a_network_in_time_is_stated(name: str, task: str) -> None:
    """Pointwise work too, which the counters' agreement leaves out."""
    options = {"unit": {"recurrent": True}} if name == "lif" else {}
    model = create_model(name, **TASKS[task], **options)
    channels, *sides = TASKS[task]["image_shape"]
    frames = torch.zeros(2, channels, TASKS[task]["time_steps"], *sides)
    closed, exact = count_closed_form(model, frames).counts, count_exact(model, frames)
    assert (closed.macs, closed.uncounted) == (exact.macs, {})
    if task == "motion":
        assert count_fvcore(model, frames).macs == exact.macs
    if name != "temporal_cnn":  # its last average is of one pixel, which torch sums
        assert closed.flop == exact.flop


@pytest.mark.parametrize("name", NAMES)
def test_a_later_frame_changes_no_earlier_step(name: str) -> None:
    task: dict[str, Any] = {"image_shape": (1, 8, 8), "num_classes": 3}
    short, long = (create_model(name, **task, time_steps=steps) for steps in (3, 5))
    if name == "elm":  # whose timescales follow the window
        task["unit"] = {"memory_tau": (1, 9)}
        short, long = (create_model(name, **task, time_steps=steps) for steps in (3, 5))
    short.load_state_dict(long.state_dict())
    frames = torch.rand(2, 1, 5, 8, 8)
    hidden: list[Tensor] = []
    for model in (short.eval(), long.eval()):
        layers: Any = model.units if name == "temporal_cnn" else model.layers[-1]
        layers.register_forward_hook(lambda m, args, y: hidden.append(y))
    with torch.no_grad():
        logits = short(frames[:, :, :3])
        long(frames)
    outputs = [y[0] if isinstance(y, tuple) else y for y in hidden]
    axis = 2 if name == "temporal_cnn" else 1
    early = outputs[1].narrow(axis, 0, 3)
    torch.testing.assert_close(early, outputs[0])
    assert not torch.allclose(logits, long(frames))


def test_blocks_of_pixels_are_averaged_and_frames_read_in_order() -> None:
    model: Any = create_model("lstm", image_shape=(2, 6, 5), time_steps=3, block=4)
    frames = torch.rand(1, 2, 3, 6, 5)
    sequence = model.as_sequence(frames)
    assert sequence.shape == (1, 3, 2 * 2 * 2)
    assert torch.allclose(sequence[0, 1, 4], frames[0, 1, 1, :4, :4].mean())
    assert torch.allclose(sequence[0, 2, 3], frames[0, 0, 2, 4:, 4:].mean())
    apart: Any = create_model("gru", image_shape=(1, 40, 1), time_steps=3)
    assert apart.layers[0].input_size == 40
    _, (last, _) = model.layers[0](sequence)
    assert torch.equal(model.forward_features(frames), last[-1])


def test_the_control_sees_the_mean_frame() -> None:
    task = {"image_shape": (2, 12, 12), "time_steps": 4}
    model = create_model("plain_cnn", **task, frames="mean").eval()
    still = create_model("plain_cnn", image_shape=(2, 12, 12)).eval()
    still.load_state_dict(model.state_dict())
    frames = torch.rand(3, 2, 4, 12, 12)
    with torch.no_grad():
        assert torch.equal(model(frames), still(frames.mean(2)))
        shuffled = model(frames[:, :, [2, 0, 3, 1]])
        torch.testing.assert_close(shuffled, model(frames))


# --- leaky integrate-and-fire units


def surrogate_slope(x: float, kind: str, k: float) -> float:
    if kind == "fast_sigmoid":
        return 1 / (1 + k * abs(x)) ** 2
    return k / 2 / (1 + (math.pi * k * x / 2) ** 2)


@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "arctan"])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_lif_is_its_formula(reset: Any, surrogate: Any) -> None:
    """One unit, step by step in plain numbers; the gradient of all spikes by hand."""
    layer = LeakyIntegrateAndFire(
        1, 1, decay=0.75, reset=reset, surrogate=surrogate, slope=3.0, norm=False
    ).double()
    nn.init.constant_(layer.synapses.weight, 1.5)
    nn.init.constant_(layer.synapses.bias, 0.1)
    inputs = torch.rand(1, 12, 1, dtype=torch.float64, requires_grad=True)
    spikes = layer(inputs)
    spikes.sum().backward()
    membrane, fired, expected = 0.0, 0.0, []
    kept, slopes = [], []  # d membrane(t) / d membrane(t - 1), and of the spike by the membrane
    for x in inputs.flatten().tolist():
        current, before = 1.5 * x + 0.1, membrane
        if reset == "zero":
            membrane = 0.75 * (1 - fired) * before + current
            kept.append(0.75 * (1 - fired))
        else:
            membrane = 0.75 * before + current - fired
            kept.append(0.75)
        fired = float(membrane > 1)
        expected.append(fired)
        slopes.append(surrogate_slope(membrane - 1, surrogate, 3.0))
    assert spikes.flatten().tolist() == expected
    assert 0 < sum(expected) < 12
    grads = [
        1.5 * sum(slopes[t] * math.prod(kept[s + 1 : t + 1]) for t in range(s, 12))
        for s in range(12)
    ]
    assert inputs.grad.flatten().tolist() == pytest.approx(grads, rel=1e-12)


@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "arctan"])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_lif_equals_snntorch(reset: Any, surrogate: Any) -> None:
    """Spikes to the bit and gradients, on the same weights, and the read-out's membrane."""
    snntorch = pytest.importorskip("snntorch")
    from snntorch import surrogate as surrogates

    slope = 25.0 if surrogate == "fast_sigmoid" else 2.0
    spike_grad = getattr(surrogates, surrogate.replace("arctan", "atan"))(slope)
    layer = LeakyIntegrateAndFire(5, 7, decay=0.9, reset=reset, surrogate=surrogate, slope=slope)
    trace, classifier = SpikeTrace(0.6), nn.Linear(7, 3, bias=False)
    theirs = snntorch.Leaky(
        beta=torch.full((7,), 0.9), learn_beta=True, reset_mechanism=reset, spike_grad=spike_grad
    )
    output = snntorch.Leaky(beta=0.6, reset_mechanism="none")
    inputs = torch.rand(4, 9, 5)
    spikes = layer(inputs)
    logits = classifier(trace(spikes)[:, -1])
    parameters = [layer.synapses.weight, layer.norm.weight, layer.decay, classifier.weight]
    grads = torch.autograd.grad(logits.square().sum(), parameters)
    currents = layer.norm(layer.synapses(inputs).flatten(0, 1)).unflatten(0, (4, 9))
    membrane, out, fired = theirs.reset_mem(), output.reset_mem(), []
    for step in range(9):
        spike, membrane = theirs(currents[:, step], membrane)
        _, out = output(classifier(spike), out)
        fired.append(spike)
    assert torch.equal(spikes, torch.stack(fired, 1))
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(logits, out)
    parameters[2] = theirs.beta
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), parameters), grads)


def test_lif_reads_its_own_spikes_and_learns_its_decay() -> None:
    frames = torch.rand(2, 6, 4)
    layer = LeakyIntegrateAndFire(4, 3, recurrent=True)
    alone = LeakyIntegrateAndFire(4, 3)
    alone.load_state_dict(layer.state_dict(), strict=False)
    assert torch.equal(layer(frames)[:, 0], alone(frames)[:, 0])
    nn.init.constant_(layer.recurrence.weight, -9.0)  # who fired is silenced
    assert layer(frames).sum() < alone(frames).sum()
    fixed = create_model("lif", image_shape=(1, 8, 8), unit={"learn_decay": False})
    learned = create_model("lif", image_shape=(1, 8, 8))
    assert count_parameters(learned) - count_parameters(fixed) == 64


# --- the expressive leaky memory neuron


def elm_by_hand(model: ExpressiveLeakyMemory, x: list[list[float]], tau: list[float]) -> Tensor:
    """The paper's formulas with a trace for each synapse, number by number."""
    weights, w1, b1, w2, b2 = (p.tolist() for p in model.parameters())
    stride, memory, outputs = model.stride, [0.0] * len(tau), []
    trace = [[0.0 for _ in branch] for branch in weights]
    for step in x:
        for b, branch in enumerate(weights):
            for s, weight in enumerate(branch):
                spike = step[b * stride + s] if b * stride + s < len(step) else 0.0
                trace[b][s] = math.exp(-1 / 5) * trace[b][s] + max(weight, 0.0) * spike
        kept = [math.exp(-1 / t) * m for t, m in zip(tau, memory, strict=True)]
        inputs = [sum(branch) for branch in trace] + kept
        hidden = [max(dot(row, inputs) + b, 0.0) for row, b in zip(w1, b1, strict=True)]
        drive = [dot(row, hidden) + b for row, b in zip(w2, b2, strict=True)]
        memory = [
            kept[m] + 5 * (1 - math.exp(-1 / tau[m])) * 1.7159 * math.tanh(2 / 3 * drive[m])
            for m in range(len(tau))
        ]
        outputs.append(memory)
    return torch.tensor(outputs, dtype=torch.float64)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("branches", "synapses"), [(7, None), (3, None), (3, 5), (4, 2)])
def test_elm_is_its_formulas(branches: int, synapses: int | None) -> None:
    model = ExpressiveLeakyMemory(
        7, 4, branches=branches, synapses=synapses, memory_tau=(1.0, 8.0)
    ).double()
    nn.init.uniform_(model.synapses, -0.2, 1.0)  # some of them at zero
    tau = [1.0, 2.0, 4.0, 8.0]
    model.decay.copy_(torch.exp(-1 / torch.tensor(tau, dtype=torch.float64)))
    x = torch.rand(2, 6, 7, dtype=torch.float64)
    expected = torch.stack([elm_by_hand(model, sample, tau) for sample in x.tolist()])
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    if branches == 7:
        assert torch.autograd.gradcheck(model, x[:1, :3].requires_grad_())


@pytest.mark.parametrize(
    ("memories", "published"), [(1, 4_601), (5, 5_077), (20, 8_002), (100, 54_002)]
)
def test_elm_has_the_published_parameters_on_neuronio(memories: int, published: int) -> None:
    """1,278 synapses of a cortical cell, 2 outputs: the authors' table of models by memories."""
    model = create_model(
        "elm", image_shape=(1278, 1, 1), num_classes=2, width=memories, unit={"synapses": 100}
    )
    assert count_parameters(model) == published


def test_elm_refuses_branches_that_leave_inputs_out() -> None:
    with pytest.raises(ValueError, match="unit: synapses=2 of a branch; expected at least 18"):
        create_model("elm", unit={"synapses": 2})


# --- the neural circuit policy


def test_ncp_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ncps.torch", None)
    with pytest.raises(ImportError, match=r"ncp needs the package ncps .* neuroconv-zoo\[ncp\]"):
        create_model("ncp")


def test_ncp_is_ncps_with_the_parameters_of_existing_synapses() -> None:
    ncps = pytest.importorskip("ncps")
    from ncps.torch import LTC

    from neuroconv.zoo.ncp import LiquidCircuit

    assert ncps
    torch.manual_seed(3)
    circuit = LiquidCircuit(5, 2, seed=1)
    torch.manual_seed(3)
    wiring = ncps.wirings.NCP(12, 6, 2, 6, 4, 6, 6, seed=1)
    theirs = LTC(5, wiring, output_mapping=None)
    x = torch.rand(3, 4, 5)
    torch.testing.assert_close(circuit(x), theirs(x)[0], rtol=0, atol=0)
    synapses = int(wiring.synapse_count + wiring.sensory_synapse_count)
    assert count_parameters(circuit) == 4 * synapses + 3 * 20 + 2 * 5
    circuit(x).sum().backward()
    theirs(x)[0].sum().backward()
    weight, (source, target) = theirs.rnn_cell.w.grad, circuit.get_buffer("pairs")
    torch.testing.assert_close(circuit.get_parameter("w").grad, weight[source, target])
    other = LiquidCircuit(5, 2, seed=2)
    assert not torch.equal(other.get_buffer("pairs"), circuit.get_buffer("pairs"))


# --- the CNN over time


def test_temporal_cnn_is_a_convolution_within_and_across_frames() -> None:
    model: Any = create_model("temporal_cnn", image_shape=(2, 7, 9), time_steps=4, width=6)
    layers, frames = model.eval().double().units, torch.rand(2, 2, 4, 7, 9, dtype=torch.float64)
    within, across = layers[0].weight, layers[5].weight
    stills = [F.conv2d(frame, within[:, :, 0], stride=2, padding=1) for frame in frames.unbind(2)]
    maps = [layers[1](still.unsqueeze(2)).relu()[:, :, 0] for still in stills]
    assert across.shape == (3, 1, 5, 1)
    expected = sum(across[:, 0, 4 - lag].unsqueeze(-1) * maps[3 - lag] for lag in range(4))
    norm: Callable[..., Tensor] = layers[6]
    torch.testing.assert_close(layers[:9](frames)[:, :, 3], norm(expected).relu())
    vectors: Any = create_model("temporal_cnn", image_shape=(1, 40, 1), time_steps=4)
    assert vectors.units[0].weight.shape == (16, 1, 1, 1, 40)
