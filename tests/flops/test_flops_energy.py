"""Energies by hand, their sources, and the shares of axons that are active."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv import Granule, create_model, profile
from neuroconv.flops.energy import NODES, estimate_energy
from neuroconv.flops.machine.firing import firing_shares

counts = st.floats(0, 1e21)


def test_the_45_nm_multiply_add() -> None:
    """4.6 pJ, and 0.9 pJ for an accumulate, as the literature on spiking networks counts."""
    node = NODES["45nm-fp32-dram"]
    assert node.mac_pj == pytest.approx(4.6)
    energy = estimate_energy(1e12, 0, 0, node.name)
    assert energy.arithmetic_joules == pytest.approx((4.6, 4.6))
    assert energy.memory_joules == (0, 0)
    events = estimate_energy(node=node.name, synaptic_mac=1e12, active_share=1.0)
    assert events.total_joules == pytest.approx((0.9, 0.9))
    # 1.3 to 2.6 nJ for 64 bits.
    assert estimate_energy(0, 0, 8e9, node.name).total_joules == pytest.approx((1.3, 2.6))
    # The lowest charges only what no cache can spare.
    cached = estimate_energy(0, 0, 8e9, node.name, compulsory_bytes=8e8)
    assert cached.total_joules == pytest.approx((0.13, 2.6))
    assert (cached.bytes, cached.to_dict()["compulsory_bytes"]) == (8e9, 8e8)


def test_a_granule_cells_energy_holds_both_readings_of_its_bytes() -> None:
    """By hand from its counts: compulsory bytes at 250 pJ a word, all of them at 450 pJ."""
    record = profile(Granule(4, 1), torch.zeros(1, 4, 5), counters=("exact",))
    traffic, mac = record.traffic, record.mac
    other = record.counts["exact"].flop - 2 * mac
    assert traffic.compulsory_bytes == 4 * 85 + 8 * 15 + 4 * 4 * 5 + 4 * 5
    low, high = record.energy().total_joules
    moved = traffic.moved_bytes
    assert low == pytest.approx(1e-12 * (mac * 1.69 + other * 0.38 + 560 * 250 / 8))
    assert high == pytest.approx(1e-12 * (mac * 1.69 + other * 1.31 + moved * 450 / 8))


def test_seven_nanometres() -> None:
    energy = estimate_energy(1e12, 1e12, 8e12, "7nm-fp32-hbm2")
    assert energy.arithmetic_joules == pytest.approx((1.69 + 0.38, 1.69 + 1.31))
    assert energy.memory_joules == pytest.approx((250, 450))
    assert energy.total_joules == pytest.approx((252.07, 453.0))
    low, high = estimate_energy(1e12, 1e12, 0, "7nm-bf16-hbm2").arithmetic_joules
    # In bfloat16 a product is the cheaper of the two.
    assert (low, high) == pytest.approx((0.59 + 0.21, 0.59 + 0.38))


@pytest.mark.parametrize("name", NODES)
def test_every_energy_has_its_source(name: str) -> None:
    node = NODES[name]
    data = estimate_energy(1, 1, 1, name).to_dict()
    assert data["node"] == node.name == name
    assert "2014, fig. 1.1.9" in data["source"] or "2021, table 2" in data["source"]
    assert all(url.startswith("https://doi.org/10.1109/") for url in data["urls"])
    assert 0 < node.dram_pj[0] <= node.dram_pj[1]


@given(mac=counts, flop=counts, moved=counts, share=st.floats(0, 1), node=st.sampled_from([*NODES]))
def test_events_never_cost_more_than_the_dense_run(
    mac: float, flop: float, moved: float, share: float, node: str
) -> None:
    dense = estimate_energy(mac, flop, moved, node)
    events = estimate_energy(0, flop, moved, node, synaptic_mac=mac, active_share=share)
    fewer = estimate_energy(0, flop, moved, node, synaptic_mac=mac, active_share=share / 2)
    for cheaper, dearer in ((fewer, events), (events, dense)):
        assert cheaper.total_joules[0] <= dearer.total_joules[0]
        assert cheaper.total_joules[1] <= dearer.total_joules[1]
    assert dense.total_joules[0] <= dense.total_joules[1]
    silent = estimate_energy(mac, flop, moved, node, synaptic_mac=1e12, active_share=0.0)
    assert silent.total_joules == dense.total_joules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"synaptic_mac": -1, "active_share": 0.5}, "synaptic_mac=-1"),
        ({"synaptic_mac": 1, "active_share": 1.5}, "active_share=1.5; expected a finite"),
        ({"synaptic_mac": 1, "active_share": 0.5, "mac": float("nan")}, "mac=nan"),
        ({"synaptic_mac": 1, "active_share": 0.5, "node": "3nm"}, "expected one of 45nm"),
        ({"moved_bytes": 1, "compulsory_bytes": 2}, "compulsory_bytes=2; expected at most moved_"),
    ],
)
def test_errors_name_the_value(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_energy(**arguments)  # type: ignore[arg-type]


class Fixed(nn.Module):
    """A population that passes on a quarter of its inputs, and states its cost."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        keep = torch.zeros_like(x)
        keep[:, :2] = 1.0
        return x * keep

    def closed_form(self, x: torch.Size) -> tuple[()]:
        return ()


def test_shares_are_counted_at_each_population() -> None:
    x = torch.ones(5, 8)
    x[:, 4:] = 0.0
    model = nn.Sequential(Fixed(), nn.ReLU(), Fixed(), nn.Linear(8, 3))
    shares = firing_shares(model, x)
    assert list(shares) == ["0", "2", "3"]  # no rectifier, and nothing inside a population
    assert (shares["0"].inputs, shares["0"].outputs) == (0.5, 0.25)
    assert (shares["2"].inputs, shares["2"].outputs) == (0.25, 0.25)
    assert shares["3"].inputs == 0.25
    assert (shares["0"].input_elements, shares["3"].output_elements) == (40, 15)
    assert list(firing_shares(Granule(20, 30), torch.rand(2, 20, 5))) == [""]


def test_a_module_called_twice_is_pooled() -> None:
    zero, relu = nn.Linear(4, 4), nn.ReLU()
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    (share,) = firing_shares(nn.Sequential(zero, relu, zero), torch.ones(3, 4)).values()
    assert (share.inputs, share.outputs, share.input_elements) == (0.5, 0.0, 24)


@pytest.mark.parametrize("name", ["cerebellum_tiny", "granule_convnet", "lenet5"])
def test_a_network(name: str) -> None:
    model = create_model(name, image_shape=(1, 12, 12), num_classes=3, time_steps=3)
    shares = firing_shares(model, torch.rand(2, 1, 12, 12))
    assert len(shares) > 1
    assert all(0 <= s.inputs <= 1 and 0 <= s.outputs <= 1 for s in shares.values())
    assert "last_step" not in shares
    # The outputs of one population are the inputs of the next.
    if name == "granule_convnet":
        assert shares["units.0"].outputs == shares["units.1"].inputs


def test_meta_has_no_zeros() -> None:
    x = torch.rand(1, 2)
    for inputs, device in ((x, "meta"), (x.to("meta"), "cpu")):
        with pytest.raises(ValueError, match="meta tensors hold no values"):
            firing_shares(nn.Linear(2, 2), inputs, device)
