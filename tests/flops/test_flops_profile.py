"""`profile`: totals, agreement, training, bytes, time, energy, and its tables and JSON."""

import importlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from neuroconv.core.cost import Cost, fft_macs
from neuroconv.flops import (
    NODES,
    UncountedWarning,
    in_units,
    operator_rules,
    operators_table,
    profile,
    stage_table,
    summary_table,
)
from neuroconv.flops.metrics import METRICS
from neuroconv.flops.operators import RULES, ZERO
from neuroconv.neurons import Granule, Purkinje
from tests.flops.calling import Call

QUICK = ("closed_form", "exact")


def rendered(*tables: object, width: int = 250) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(*tables)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def network() -> nn.Sequential:
    cells = (Granule(30, 8, taps={"backend": "direct"}), Granule(8, 3, taps={"backend": "direct"}))
    return nn.Sequential(*cells, nn.Flatten(), nn.Linear(15, 10))


def test_cells_and_plain_layers_are_summed() -> None:
    result = profile(network(), torch.zeros(2, 30, 5))
    assert (result.agree, result.disagreements, result.skipped) == (True, (), {})
    assert result.shared == ("convolution", "matmul")
    assert (result.batch, result.time_steps) == (2, 5)
    assert (result.neurons, result.dendritic_neurons) == (8 + 3 + 10, 11)
    assert result.synapses == 15 * 11 + 150
    assert result.dendritic_mac("essay") == 2 * 11 * 4_500
    assert result.dendritic_mac("direct") == 2 * 11 * 4_800
    assert result.dendritic_mac_per_neuron("essay") == 4_500
    # A product for each synapse and step is half a multiply-add; rectifiers and norms are none.
    assert result.mac == result.counts["exact"].mac + 2 * 5 * 15 * 8 // 2 + 2 * 5 * 15 * 3 // 2
    assert result.stages_flop > 2 * result.mac
    assert result.mac_per_neuron == result.mac / 2 / 21
    assert result.mac_per_neuron_step == pytest.approx(result.mac / 2 / 21 / 5)
    assert sum(row["share_of_flop"] for row in result.to_dict()["stages"]) == pytest.approx(1)


def test_parameters_trained_frozen_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].weight.requires_grad_(False)
    result = profile(model, torch.zeros(5, 3))
    assert (result.parameters, result.frozen_parameters, result.buffers) == (4 + 8, 12, 9)
    assert result.time_steps == 1
    assert profile(model, torch.zeros(5, 3), time_steps=4).time_steps == 4


def test_a_population_that_fits_in_no_memory() -> None:
    with torch.device("meta"):  # 2.5e12 floats
        model = nn.Sequential(nn.Linear(50_000, 50_000_000), nn.ReLU())
        result = profile(model, torch.zeros(1, 50_000))
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


class Attention(nn.Sequential):
    """Written by hand: its products are no modules."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self[0](x).chunk(3, -1)
        return torch.softmax(query @ key.transpose(1, 2), -1) @ value


def test_products_that_no_module_states_are_named_and_make_the_closed_form_partial() -> None:
    x = torch.zeros(2, 5, 8)
    result = profile(nn.Sequential(Attention(nn.Linear(8, 24)), nn.Linear(8, 3)), x)
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


def test_a_module_without_a_formula_or_a_product_leaves_the_closed_form_complete() -> None:
    model = nn.Sequential(Call(lambda x: x.flip(1)), nn.Linear(4, 3))
    result = profile(model, torch.zeros(2, 4))
    assert (result.unstated, result.hidden) == (("0 (Call)",), ())
    assert "closed_form" in result.complete
    assert result.agree is True
    text = rendered(summary_table([result]))
    (line,) = (line for line in text.splitlines() if "(partial)" in line)
    assert "fvcore as it comes" in line  # it has no handle for a flip


def test_complex_layers_are_three_or_four_real_ones_to_every_counter() -> None:
    layers = nn.Conv1d(3, 5, 2, dtype=torch.cfloat), nn.Linear(8, 4, dtype=torch.cfloat)
    model = nn.Sequential(Call(lambda x: torch.complex(x, x)), *layers)
    result = profile(model, torch.zeros(2, 3, 9))
    assert list(result.complete) == ["closed_form", "exact", "fvcore"]
    assert result.agree is True
    assert result.reference.macs == {"convolution": 3 * 480, "matmul": 4 * 320}


def test_samples_that_meet_have_no_shared_cost() -> None:
    result = profile(Call(lambda x: x @ x.T), torch.zeros(3, 4))
    assert result.doubled.mac == 4 * result.reference.mac
    assert result.shared_flop is result.marginal_flop_per_sample is None


def test_a_model_for_one_batch_has_no_known_shared_cost() -> None:
    result = profile(Call(lambda x: x.view(2, 3) * 2.0), torch.zeros(2, 3), counters=("exact",))
    assert result.shared_flop is result.marginal_flop_per_sample is result.training is None


def test_what_cannot_be_trained_or_timed_is_skipped_with_the_reason() -> None:
    class Derivative(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.func.grad(lambda z: super(Derivative, self).forward(z).sum())(x)

    for device in ("meta", "cpu"):
        result = profile(Derivative(3, 5), torch.zeros(2, 3), device=device)
        assert "saved tensor hooks" in result.skipped["training"]
        assert result.reference.mac == 2 * 30
        assert result.hidden == ("model (Derivative)",)
    idle = profile(nn.Identity(), torch.zeros(2, 3), device="cpu", timed=True)
    assert (idle.measured, idle.skipped) == (None, {"time": "the model moves no byte"})


def test_disagreement_is_reported() -> None:
    result = profile(Stated(), torch.zeros(1, 2), counters=("closed_form", "exact"))
    assert (result.agree, result.shared) == (False, ())
    (line,) = result.disagreements
    assert line.startswith("convolution: closed_form 1,000,000,000,000,000,000,001 MAC, exact 0")


def test_fvcore_is_skipped_above_its_limit_whether_or_not_a_module_states_the_work() -> None:
    model, x = nn.Linear(10, 10), torch.zeros(1, 10)
    result = profile(model, x, fvcore_limit=99)
    assert result.skipped == {"fvcore": "100 MAC is more than fvcore_limit=99"}
    assert result.agree is True
    assert profile(model, x, fvcore_limit=100).skipped == {}
    with pytest.raises(ValueError, match="no counter ran"):
        profile(model, x, counters=("fvcore",), fvcore_limit=99)
    weight = torch.empty(600, 64, 3, 3, device="meta")  # it could not run
    model, x = Call(lambda x: F.conv2d(x, weight, padding=1)), torch.empty(1, 64, 317, 316)
    reason = profile(model, x, counters=("closed_form", "fvcore")).skipped["fvcore"]
    assert reason.startswith(f"{600 * 64 * 9 * 317 * 316:,} MAC is more than fvcore_limit=20,000,")


def greedy(x: Tensor) -> Tensor:
    return torch.ones(10**13, 1, 1, device=x.device)


def raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def exhausted(x: Tensor) -> Tensor:
        if not x.is_meta:
            raise error
        return x

    return exhausted


@pytest.mark.parametrize(
    "exhaust",
    [
        greedy,
        raising(RuntimeError("not enough memory: you tried to allocate 9 bytes")),
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
        raising(MemoryError("Unable to allocate")),
    ],
)
def test_memory_that_runs_out_is_a_reason_with_a_remedy(
    exhaust: Callable[[Tensor], Tensor],
) -> None:
    model, x = Call(lambda x: x @ x.mT * exhaust(x)[:1, :1]), torch.zeros(2, 3)
    on_meta, on_cpu = profile(model, x), profile(model, x, device="cpu", timed=True)
    assert list(on_meta.skipped) == ["fvcore", "axons"]
    assert list(on_cpu.skipped) == ["closed_form on cpu", "fvcore", "time", "axons"]
    assert "memory ran out" in on_cpu.skipped["time"]
    for record in (on_meta, on_cpu):
        assert record.reference.macs == {"matmul": 12}
        assert record.reference.device == record.traffic.device == "meta"
        assert record.measured is None
        reason = record.skipped["fvcore"]
        assert reason.startswith("out of memory on cpu: a run with inputs (float32[2, 3]) failed")
        assert reason.endswith("lower the batch, or count on meta, without fvcore and times")
    with pytest.raises(ValueError, match=r"no counter ran: \{'fvcore': .out of memory on cpu"):
        profile(model, x, counters=("fvcore",))


def test_memory_that_runs_out_in_timing_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(importlib.import_module("neuroconv.flops.profile"), "measure", fails)
    result = profile(nn.Linear(3, 2), torch.zeros(2, 3), device="cpu", timed=True)
    assert "lower the batch" in result.skipped["time"]
    assert (result.reference.device, result.measured) == ("cpu", None)


def test_operators_without_a_rule_are_warned_of_once_and_are_why_nothing_agrees() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Call(lambda x: torch.linalg.qr(x)[0] @ x))
    x, operator = torch.rand(3, 3), "aten.linalg_qr.default"
    with pytest.warns(UncountedWarning, match=rf"no rule for {operator} \(a fac.*; tot") as warned:
        result = profile(model, x)
    assert (len(warned), warned[0].filename) == (1, __file__)
    assert operator in result.uncounted
    assert (result.agree, dict(result.complete)) == (None, {})
    assert result.incomplete["exact"] == f"no rule for {operator}"
    assert result.incomplete["closed_form"] == "no formula for the products of 1 (Call)"
    assert "aten::linalg_qr" in result.incomplete["fvcore"]
    assert result.to_dict()["counters_agree_unknown_because"] == result.agree_reason
    assert "unknown: closed_form: no formula for" in rendered(summary_table([result]))
    with pytest.raises(ValueError, match=f"no rule for {operator}"):
        profile(model, x, strict=True)


@pytest.mark.filterwarnings("error::neuroconv.flops.UncountedWarning")
def test_agreement_that_is_not_known_has_a_reason() -> None:
    with torch.device("meta"):
        model = nn.Sequential(Attention(nn.Linear(8, 24)))
        hidden = profile(model, torch.zeros(2, 5, 8))
        alone = profile(nn.ReLU(), torch.zeros(2, 3), counters=("exact",))
        pair = profile(nn.ReLU(), torch.zeros(2, 3))
    assert (hidden.agree, alone.agree) == (None, None)
    assert hidden.agree_reason == (
        "fvcore: skipped: the model is on meta, and fvcore needs real tensors; "
        "closed_form: no formula for the products of 0 (Attention)"
    )
    assert alone.agree_reason == "exact ran alone"
    assert (pair.agree, pair.agree_reason) == (True, None)
    assert "yes, on no contraction" in rendered(summary_table([pair]))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"counters": ("exakt",)}, "expected values, each a string of closed_form, exact, fvcore"),
        ({"counters": "exact"}, "expected values, each a string of closed_form, exact, fvcore"),
        ({"counters": ()}, "expected values, each a string of closed_form, exact, fvcore"),
        ({"device": "gpu"}, "device='gpu'; expected 'meta', 'cpu' or 'cuda'"),
        ({"device": "xla"}, "device='xla'; expected 'meta', 'cpu' or 'cuda'"),
        ({"time_steps": 0}, "time_steps=0; expected an integer of at least 1"),
        ({"timed": True}, "use 'cpu' or 'cuda'"),
        ({"model": nn.Linear}, "model=<class .*; expected a Module"),
        ({"model": nn.Linear(3, 2, device="meta"), "device": "cpu"}, "device='meta'"),
    ],
)
def test_bad_input(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        profile(**{"model": nn.Linear(3, 2), "inputs": torch.zeros(1, 3), **keywords})
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            profile(nn.Linear(3, 2), torch.zeros(1, 3), device="cuda")


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


def small_purkinje() -> Purkinje:
    tree = {"synapses": 60, "sheet": (8, 10), "filter": (4, 10, 5)}
    return Purkinje(30, 3, tree=tree, taps={"backend": "fft"})


def test_shared_cost_is_what_does_not_grow_with_the_batch() -> None:
    for batch in (1, 4):
        result = profile(small_purkinje(), torch.zeros(batch, 30, 5), counters=QUICK)
        # Five time taps of three filters are transformed once a call; taps come in units of their
        # own, and one filter serves the soma.
        transforms = 2 * 3 * 5 * fft_macs(10 * 15)
        assert result.shared_flop >= transforms
        assert result.shared_flop < transforms * 1.3
        total = result.shared_flop + batch * result.marginal_flop_per_sample
        assert result.counts["exact"].flop == total
    plain = profile(nn.Linear(3, 2), torch.zeros(4, 3), counters=QUICK)
    assert plain.shared_flop == 0


def test_backward_of_a_training_step() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    result = profile(model, torch.zeros(1, 6), counters=QUICK)
    # One sample has no statistics: two are trained on.
    assert result.training_batch == 2
    # The gradients to both weights, and to the hidden layer alone: nobody asks for the inputs'.
    assert result.training.backward.macs == {"matmul": 2 * (6 * 5 + 2 * 5 * 2)}
    assert result.backward_flop_per_sample == result.training.backward.flop / 2
    frozen = profile(model.requires_grad_(False), torch.zeros(3, 6), counters=QUICK)
    assert frozen.training is frozen.backward_flop_per_sample is frozen.training_traffic is None


def test_per_synapse_and_intensity() -> None:
    result = profile(nn.Linear(8, 4, bias=False), torch.zeros(2, 8), counters=QUICK)
    assert result.mac_per_synapse == 1
    assert result.traffic.compulsory_bytes == 4 * (2 * 8 + 32 + 2 * 4)
    assert result.flop_per_byte == 2 * 64 / result.traffic.moved_bytes


def test_measured_on_the_cpu() -> None:
    model, x = nn.Sequential(Granule(30, 8), Granule(8, 3)), torch.rand(4, 30, 5)
    result = profile(model, x, counters=QUICK, device="cpu", timed=True)
    measured, flop = result.measured, result.counts["exact"].flop
    assert (measured.placement.flop, measured.placement.bytes) == (flop, result.traffic.moved_bytes)
    assert measured.placement.flop_per_s == pytest.approx(flop / measured.timing.seconds)
    assert set(measured.firing) == {"0", "1"}
    assert measured.firing["0"].inputs == 1.0  # noise has no zeros
    assert measured.firing["1"].inputs == measured.firing["0"].outputs
    json.dumps(result.to_dict(), allow_nan=False)


def test_energy_dense_and_at_the_measured_firing() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(100, 10, bias=False))
    x = torch.ones(2, 100)
    x[:, :75] = -1  # three axons of four are silent behind the rectifier
    result = profile(model, x, counters=QUICK, device="cpu", timed=True)
    node = NODES["45nm-fp32-dram"]
    dense = result.energy(node.name)
    assert dense.mac == 1000
    assert dense.other_flop == 100
    low = 1e-12 * (1000 * node.mac_pj + 100 * node.add_pj)
    assert dense.arithmetic_joules[0] == pytest.approx(low)
    sparse = result.energy_at_rate(node.name)
    assert (sparse.accumulates, sparse.mac) == (250, 0)
    assert sparse.arithmetic_joules[0] == pytest.approx(1e-12 * (250 + 100) * node.add_pj)
    assert sparse.memory_joules == dense.memory_joules
    assert profile(model, x, counters=QUICK).energy_at_rate() is None
    with pytest.raises(ValueError, match="unknown"):
        result.energy("3nm")


def test_dendrites_at_a_rate_count_by_a_direct_convolution() -> None:
    # A Fourier transform has no use for silent axons: their saving is a direct sum's.
    x = torch.rand(1, 30, 5)
    result = profile(small_purkinje(), x, counters=QUICK, device="cpu", timed=True)
    sparse = result.energy_at_rate()
    assert sparse.accumulates >= (result.dendritic_mac("direct") or 0) > 0


def test_the_table_of_operators_covers_every_rule() -> None:
    rows = {row["operator"]: row for row in operator_rules()}
    assert set(RULES) | set(ZERO) <= set(rows)
    assert str(rows["einsum"]["fvcore"]).startswith("matmul: two operands at a time")
    assert str(rows["cat"]["exact"]) == "zero: moves elements"
    assert str(rows["Conv2d"]["closed_form"]).startswith("convolution: weights")
    assert all(row["exact"] or row["fvcore"] or row["closed_form"] for row in rows.values())
    assert operators_table("*conv*").row_count > 3
    with pytest.raises(ValueError, match="no operator matches"):
        operators_table("nothing*")


def test_units() -> None:
    texts = [in_units(value, "B") for value in (0, 999, 1000, 1_234_567, 2.5e-6, 3e-12, 1e21)]
    assert texts == ["0 B", "999 B", "1 kB", "1.23 MB", "2.5 µB", "3 pB", "1e+06 PB"]


def test_one_list_of_metrics_makes_the_json_and_the_table() -> None:
    result = profile(Granule(30, 3), torch.zeros(1, 30, 5), name="granule")
    keys = [metric.key for metric in METRICS if metric.key is not None]
    assert len(set(keys)) == len(keys)
    assert list(result.to_dict()) == keys
    labels = [metric.label for metric in METRICS if metric.label is not None]
    assert len(set(labels)) == len(labels)
    first_column = rendered(summary_table([result]))
    for metric in METRICS:
        if metric.label is not None and "{" not in metric.label:
            assert (metric.label in first_column) is (metric.text(result, 1) != "-"), metric.label
    assert str(result) in rendered(summary_table([result]), width=100)
