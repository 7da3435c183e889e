"""`profile`: totals, agreement, and a model left as it was."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from neuroconv.core.cost import Cost
from neuroconv.flops import profile, stage_table, summary_table
from neuroconv.neurons import Granule, Purkinje


def network() -> nn.Sequential:
    cells = (Granule(30, 8, backend="direct"), Granule(8, 3, backend="direct"))
    return nn.Sequential(*cells, nn.Flatten(), nn.Linear(15, 10))


def test_cells_and_plain_layers_are_summed() -> None:
    result = profile(network(), torch.zeros(2, 30, 5))
    assert result.agree is True
    assert result.disagreements == ()
    assert result.skipped == {}
    assert result.shared == ("convolution", "matmul")
    assert (result.batch, result.time_steps) == (2, 5)
    assert result.neurons == 8 + 3 + 10
    assert result.dendritic_neurons == 11
    assert result.synapses == 15 * 11 + 150
    assert result.essay_mac == 2 * 11 * 4_500
    assert result.direct_mac == 2 * 11 * 4_800
    assert result.dendritic_mac_per_neuron("essay") == 4_500
    # A product for each synapse and step is half a multiply-add; rectifiers and norms are none.
    assert result.mac == result.counts["exact"].mac + 2 * 5 * 15 * 8 // 2 + 2 * 5 * 15 * 3 // 2
    assert result.stages_flop > 2 * result.mac
    assert result.mac_per_neuron == result.mac / 2 / 21
    assert result.mac_per_neuron_step == pytest.approx(result.mac / 2 / 21 / 5)
    exact = result.counts["exact"]
    assert result.flop_per_sample == (2 * exact.mac + sum(exact.flops.values())) / 2
    assert sum(row["share_of_flop"] for row in result.to_dict()["stages"]) == pytest.approx(1)


def test_parameters_trained_frozen_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    result = profile(model, torch.zeros(5, 3))
    assert (result.parameters, result.frozen_parameters, result.buffers) == (4 + 8, 12, 9)
    assert result.time_steps == 1
    assert profile(model, torch.zeros(5, 3), time_steps=4).time_steps == 4


class Restless(nn.Module):
    """Moves all that a run can move: statistics, buffers, random numbers, attributes, inputs."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.cache: Tensor | None = None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        self.cache = torch.rand_like(x)
        return self.norm(x.add_(self.cache)) + self.frozen(y)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_model_is_left_untouched(device: str) -> None:
    model, x, y = Restless(), torch.ones(3, 4), torch.ones(3, 4)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    held = {key: id(value) for key, value in model.state_dict(keep_vars=True).items()}
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    result = profile(model, (x, y), device=device)
    assert set(result.counts) == {"closed_form", "exact", "fvcore"}
    assert torch.equal(torch.get_rng_state(), random)
    assert flags == [module.training for module in model.modules()] == [True, True, False]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert held == {key: id(value) for key, value in model.state_dict(keep_vars=True).items()}
    assert model.cache is None
    assert torch.equal(x, torch.ones(3, 4))
    assert all(not module._forward_hooks for module in model.modules())
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert result.unstated == ()


def test_a_failing_model_is_left_untouched() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(4, 2))
    weight = model[1].weight
    for device in ("meta", "cpu"):
        with pytest.raises((ValueError, RuntimeError), match=r"reduction dim|cannot be multiplied"):
            profile(model, torch.zeros(2, 3), device=device)
        assert model[1].weight is weight
        assert model.training
        assert not model._forward_hooks
        assert not model[0]._forward_pre_hooks


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert profile(model, torch.zeros(2, 4)).agree
    assert model[1].weight is model[0].weight
    assert profile(model, torch.zeros(2, 4)).parameters == 16 + 8


def test_a_population_that_fits_in_no_memory() -> None:
    with torch.device("meta"):  # 2.5e12 floats
        model = nn.Sequential(nn.Linear(50_000, 50_000_000), nn.ReLU())
        result = profile(model, torch.zeros(1, 50_000))
    assert result.agree is True
    assert result.mac_per_sample == 2_500_000_000_000
    assert result.parameters == 2_500_050_000_000
    assert list(result.counts) == ["closed_form", "exact"]
    assert "meta" in result.skipped["fvcore"]


class Stated(nn.Module):
    """A cell whose cost is as large as the brain's Purkinje cells' second."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def closed_form(self, x: torch.Size) -> tuple[Cost, ...]:
        mac = 10**21 + 1
        return (Cost("dendrites", {"convolution": mac}, neurons=3, essay=mac, direct=mac),)


def test_integers_of_any_size_survive_json() -> None:
    result = profile(Stated(), torch.zeros(1, 2), counters=("closed_form",))
    read = json.loads(json.dumps(result.to_dict()))
    assert read["mac_per_sample"] == 10**21 + 1
    assert read["counters"]["closed_form"]["mac_per_batch_by_family"]["convolution"] == 10**21 + 1
    assert read["counters_agree"] is None
    assert read["stages"][0]["essay_mac_per_sample"] == 10**21 + 1


class Attention(nn.Module):
    """Written by hand: its products are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).chunk(3, -1)
        return torch.softmax(query @ key.transpose(1, 2), -1) @ value


def test_products_that_no_module_states_are_named_and_make_the_closed_form_partial() -> None:
    x = torch.zeros(2, 5, 8)
    result = profile(nn.Sequential(Attention(), nn.Linear(8, 3)), x)
    assert result.unstated == result.hidden == ("0 (Attention)",)
    assert list(result.complete) == ["exact", "fvcore"]
    assert result.agree is True
    assert result.reference.mac == 2 * (5 * 8 * 24 + 2 * 25 * 8 + 5 * 8 * 3)
    assert result.counts["closed_form"].mac == 2 * (5 * 8 * 24 + 5 * 8 * 3)
    # Neurons and synapses are too few for a mean over them.
    assert result.mac_per_neuron is result.mac_per_synapse is result.flop_per_neuron is None
    assert result.to_dict()["neurons_and_synapses_complete"] is False
    assert "(partial)" in rendered(summary_table([result]))
    assert "are missing" in rendered(stage_table(result))


class Turned(nn.Module):
    """Without a formula, and without a product."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def test_a_module_without_a_formula_or_a_product_leaves_the_closed_form_complete() -> None:
    result = profile(nn.Sequential(Turned(), nn.Linear(4, 3)), torch.zeros(2, 4))
    assert (result.unstated, result.hidden) == (("0 (Turned)",), ())
    assert "closed_form" in result.complete
    assert result.agree is True
    assert "(partial)" not in rendered(summary_table([result]))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 2, dtype=torch.cfloat)
        self.linear = nn.Linear(8, 4, dtype=torch.cfloat)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(torch.complex(x, x)))


def test_complex_layers_are_three_or_four_real_ones_to_every_counter() -> None:
    result = profile(Complex(), torch.zeros(2, 3, 9))
    assert list(result.complete) == ["closed_form", "exact", "fvcore"]
    assert result.agree is True
    assert result.reference.macs == {
        "convolution": 3 * 2 * 5 * 8 * 3 * 2,
        "matmul": 4 * 2 * 5 * 4 * 8,
    }
    assert result.counts["exact"].flops == result.counts["fvcore"].flops


def test_samples_that_meet_have_no_shared_cost() -> None:
    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.T

    result = profile(Pairs(), torch.zeros(3, 4))
    assert result.doubled is not None
    assert result.doubled.mac == 4 * result.reference.mac
    assert result.shared_flop is result.own_flop_per_sample is None


@pytest.mark.parametrize("batch", [2, 8])
def test_a_sample_costs_the_same_in_any_batch(batch: int) -> None:
    # 15 synapses and 5 steps: 75 products, half a multiply-add each.
    cell = Granule(30, 1, backend="direct")
    one, many = (profile(cell, torch.zeros(n, 30, 5)) for n in (1, batch))
    assert many.mac_per_sample == one.mac_per_sample == 4_800 + 25 + 75 / 2
    assert [row["executed_mac_per_sample"] for row in many.to_dict()["stages"]] == [
        row["executed_mac_per_sample"] for row in one.to_dict()["stages"]
    ]


def test_what_cannot_be_trained_or_timed_is_skipped_with_the_reason() -> None:
    class Derivative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.grad(lambda z: self.linear(z).sum())(x)

    for device in ("meta", "cpu"):
        result = profile(Derivative(), torch.zeros(2, 3), device=device)
        assert "saved tensor hooks" in result.skipped["training"]
        assert result.reference.mac == 2 * 30
        assert result.hidden == ("model (Derivative)",)
    idle = profile(nn.Identity(), torch.zeros(2, 3), device="cpu", timed=True)
    assert (idle.measured, idle.skipped) == (None, {"time": "the model moves no byte"})


def test_an_attribute_that_is_called_closed_form_is_no_statement() -> None:
    model = nn.Linear(3, 2)
    model.closed_form = True  # type: ignore[assignment]
    assert profile(model, torch.zeros(1, 3)).agree is True


def test_disagreement_is_reported() -> None:
    result = profile(Stated(), torch.zeros(1, 2), counters=("closed_form", "exact"))
    assert result.agree is False
    assert result.shared == ()
    (line,) = result.disagreements
    assert line.startswith("convolution: closed_form 1,000,000,000,000,000,000,001 MAC, exact 0")


def test_fvcore_is_skipped_with_the_reason() -> None:
    model, x = nn.Linear(10, 10), torch.zeros(1, 10)
    result = profile(model, x, fvcore_limit=99)
    assert result.skipped == {"fvcore": "100 MAC is more than fvcore_limit=99"}
    assert result.agree is True
    assert profile(model, x, fvcore_limit=100).skipped == {}
    with pytest.raises(ValueError, match="no counter ran"):
        profile(model, x, counters=("fvcore",), fvcore_limit=99)


def test_bad_input() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="expected some of closed_form, exact, fvcore"):
        profile(model, torch.zeros(1, 3), counters=("exakt",))
    with pytest.raises(TypeError, match="a tensor or a tuple of tensors"):
        profile(model, [[1.0, 2.0, 3.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one sample"):
        profile(model, torch.zeros(0, 3))
    with torch.device("meta"):
        on_meta = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="device='meta'"):
        profile(on_meta, torch.zeros(1, 3), device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            profile(model, torch.zeros(1, 3), device="cuda")


def rendered(*tables: object) -> str:
    console = Console(file=io.StringIO(), width=250)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables() -> None:
    granule = profile(Granule(30, 3), torch.zeros(1, 30, 5), name="granule")
    purkinje = profile(Purkinje(30, 1), torch.zeros(1, 30, 5), name="purkinje")
    plain = profile(nn.Linear(3, 2), torch.zeros(1, 3))
    text = rendered(summary_table([granule, purkinje, plain]), stage_table(granule))
    for expected in ("4,500", "4,800", "25,000,000,000", "yes, on matmul, fft", "soma"):
        assert expected in text
    assert "9,000" in rendered(summary_table([granule], convention="flop"))
    with pytest.raises(ValueError, match="'mac' or 'flop'"):
        summary_table([granule], convention="macs")  # type: ignore[arg-type]
    assert " - " in rendered(summary_table([plain, granule]))
    assert "dendrites" not in rendered(summary_table([plain]))  # no row without a number
    assert "median" not in rendered(summary_table([plain]))
