"""The rest of a profile: shared cost, training, bytes, time, energy, and what refuses to be one."""

import json

import pytest
import torch
from torch import Tensor, nn

from neuroconv.core.cost import fft_macs
from neuroconv.flops import NODES, operator_rules, operators_table, profile
from neuroconv.flops.closed_forms import CLOSED_FORM_RULES
from neuroconv.flops.operators import RULES
from neuroconv.flops.table import in_units
from neuroconv.neurons import Granule, Purkinje

QUICK = ("closed_form", "exact")


def small_purkinje(backend: str = "fft") -> Purkinje:
    return Purkinje(
        30, 3, synapses=60, sheet_shape=(8, 10), filter_shape=(4, 10, 5), backend=backend
    )  # type: ignore[arg-type]


def test_shared_cost_is_what_does_not_grow_with_the_batch() -> None:
    for batch in (1, 4):
        result = profile(small_purkinje(), torch.zeros(batch, 30, 5), counters=QUICK)
        assert result.shared_flop is not None
        # Five time taps of three filters are transformed once a call; taps come in units of their
        # own, and one filter serves the soma.
        transforms = 2 * 3 * 5 * fft_macs(10 * 15)
        assert result.shared_flop >= transforms
        assert result.shared_flop < transforms * 1.3
        assert result.own_flop_per_sample is not None
        total = result.shared_flop + batch * result.own_flop_per_sample
        assert result.counts["exact"].flop == total
    plain = profile(nn.Linear(3, 2), torch.zeros(4, 3), counters=QUICK)
    assert plain.shared_flop == 0


class OneSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 3) * 2.0


def test_a_model_for_one_batch_has_no_known_shared_cost() -> None:
    result = profile(OneSize(), torch.zeros(2, 3), counters=("exact",))
    assert result.shared_flop is None
    assert result.own_flop_per_sample is None
    assert result.training is None
    assert result.to_dict()["flop_shared_by_the_batch"] is None


def test_backward_of_a_training_step() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    result = profile(model, torch.zeros(1, 6), counters=QUICK)
    # One sample has no statistics: two are trained on.
    assert result.training_batch == 2
    assert result.training is not None
    assert result.training.backward is not None
    # The gradients to both weights, and to the hidden layer alone: nobody asks for the inputs'.
    assert result.training.backward.macs == {"matmul": 2 * (6 * 5 + 2 * 5 * 2)}
    assert result.backward_flop_per_sample == result.training.backward.flop / 2
    assert result.training_traffic is not None
    assert result.training_traffic.backward is not None
    frozen = profile(model.requires_grad_(False), torch.zeros(3, 6), counters=QUICK)
    assert frozen.training is None
    assert frozen.backward_flop_per_sample is None
    assert frozen.training_traffic is None


def test_per_synapse_and_intensity() -> None:
    result = profile(nn.Linear(8, 4, bias=False), torch.zeros(2, 8), counters=QUICK)
    assert result.mac_per_synapse == 1
    assert result.traffic.compulsory_bytes == 4 * (2 * 8 + 32 + 2 * 4)
    assert result.flop_per_byte == 2 * 64 / result.traffic.moved_bytes


def test_strict_refuses_an_operator_without_a_rule() -> None:
    class Unruly(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.qr(x)[0]

    assert profile(Unruly(), torch.zeros(3, 3), counters=("exact",)).mac == 0
    with pytest.raises(ValueError, match=r"no rule for aten\.linalg_qr\.default"):
        profile(Unruly(), torch.zeros(3, 3), counters=("exact",), strict=True)


def test_time_needs_a_device_on_which_something_runs() -> None:
    with pytest.raises(ValueError, match="use 'cpu' or 'cuda'"):
        profile(nn.Linear(3, 2), torch.zeros(1, 3), timed=True)


def test_measured_on_the_cpu() -> None:
    result = profile(
        nn.Sequential(Granule(30, 8), Granule(8, 3)),
        torch.rand(4, 30, 5),
        counters=QUICK,
        device="cpu",
        timed=True,
    )
    measured = result.measured
    assert measured is not None
    assert measured.placement.flop == result.counts["exact"].flop
    assert measured.placement.bytes == result.traffic.moved_bytes
    assert measured.placement.flop_per_s == pytest.approx(
        result.counts["exact"].flop / measured.timing.seconds
    )
    assert 0 < measured.placement.share_of_peak_flop < 1.5
    assert set(measured.firing) == {"0", "1"}
    assert measured.firing["0"].heard == 1.0  # noise has no zeros
    assert measured.firing["1"].heard == measured.firing["0"].fired
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
    assert sparse is not None
    assert (sparse.accumulates, sparse.mac) == (250, 0)
    assert sparse.arithmetic_joules[0] == pytest.approx(1e-12 * (250 + 100) * node.add_pj)
    assert sparse.memory_joules == dense.memory_joules
    assert profile(model, x, counters=QUICK).energy_at_rate() is None
    with pytest.raises(ValueError, match="unknown"):
        result.energy("3nm")


def test_dendrites_at_a_rate_count_by_a_direct_convolution() -> None:
    # A Fourier transform has no use for silent axons: their saving is a direct sum's.
    result = profile(
        small_purkinje(), torch.rand(1, 30, 5), counters=QUICK, device="cpu", timed=True
    )
    sparse = result.energy_at_rate()
    assert sparse is not None
    assert result.direct_mac is not None
    assert sparse.accumulates >= result.direct_mac


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (2.5e-6, "2.5 µB"),
        (1e21, "1e+06 PB"),
    ],
)
def test_units(value: float, text: str) -> None:
    assert in_units(value, "B") == text


def test_the_table_of_operators_covers_every_rule() -> None:
    rows = {row["operator"]: row for row in operator_rules()}
    assert set(RULES) | set(CLOSED_FORM_RULES) <= set(rows)
    assert rows["convolution"]["exact"] == "convolution: " + RULES["convolution"].how
    assert str(rows["max_pool3d"]["fvcore"]).startswith("pooling")
    assert str(rows["cat"]["exact"]) == "zero: moves elements"
    assert rows["Conv2d"]["closed_form"] == CLOSED_FORM_RULES["Conv2d"]
    assert all(row["exact"] or row["fvcore"] or row["closed_form"] for row in rows.values())
    assert operators_table("*conv*").row_count > 3
    with pytest.raises(ValueError, match="no operator matches"):
        operators_table("nothing*")
