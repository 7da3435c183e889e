"""Real time: the arithmetic by hand on made-up times, and tiny cells that are really timed."""

import json
import math
import sys
from functools import partial
from pathlib import Path
from threading import Semaphore
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.brain import READINGS, Quantity, read_inputs
from neuroconv.brain.quantity import plain
from neuroconv.brain.readings import SIZES
from neuroconv.brain.updates import Sizes, update_of
from neuroconv.flops import Peak, Timing, count_exact
from neuroconv.references import Source
from tests.brain.reporting import bare_numbers, printed
from tests.scripts import loaded

realtime = loaded(Path(__file__).parents[2] / "experiments" / "brain" / "realtime.py")
runs, power = sys.modules["neuron_runs"], sys.modules["machine_power"]

TINY = {"purkinje": (60, 6, 3), "pyramidal": (40, 4, 2)}
SMALL = [f"{cell}.{SIZES[i]}={size}" for cell in TINY for i, size in enumerate(TINY[cell])]
TREE = Sizes(15, 4, 3, 5)
DIRECT = runs.Run("granule", TREE, "direct", "same", False)
ONCE = Timing(1.0, 1.0, 1.0, 1, 1)
PEAK = Peak(
    "a processor", "cpu", "float32", 2, None, 1e9, 1e9, "product", {"product": 1e9}, 8, ONCE, ONCE
)


def timed(neurons: int, seconds: float) -> Any:
    watts = Quantity("machine.power", 10, "W", Source("user", "`x`"))
    return runs.Timed(neurons, Timing(seconds, seconds * 0.9, seconds * 1.2, 3, 1), watts)


@pytest.fixture(scope="module")
def measured() -> Any:
    """Tiny cells, really timed, a few hundredths of a second each; the peak is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(realtime, "measure_peak", lambda device: PEAK)
        patch.setattr(runs, "MOST", 8)
        patch.setattr(runs, "GLANCE_S", 0.001)
        return realtime.measure_real_time(read_inputs(None, SMALL), watts=12.0, seconds=0.3)


def test_cells_machines_and_power_by_hand() -> None:
    inputs, reading = read_inputs(), READINGS["linear_collapse"]
    run = runs.run_of(reading, "purkinje", inputs.values_at_point)
    row = realtime.cell_time(reading, run, timed(4, 2e-3), inputs, PEAK)
    # Four cells in 2 ms are 2000 a second, of which each needs 200; a million FLOP each.
    expected = {
        "update": 5e-4, "lower": 4.5e-4, "upper": 6e-4, "flop_per_s": 1e6 / 5e-4,
        "share_of_peak": 2.0, "in_real_time": 10, "machines": 1e7,
        "machines_at_peak": 1e8 * 200 * 1e6 / 1e9, "cells_per_watt": 1,
    }  # fmt: skip
    assert {name: row[name].value for name in expected} == pytest.approx(expected)
    granule = runs.run_of(reading, "granule", inputs.values_at_point)
    other = realtime.cell_time(reading, granule, timed(1000, 1e-3), inputs, PEAK)
    brain = realtime.reading_time("linear_collapse", [row, other])
    totals = [brain[name].value for name in ("machines", "power", "over_brain")]
    assert totals == pytest.approx([2e7, 2e8, 1e7])


def test_every_reading_is_measured_and_no_number_is_bare(measured: Any) -> None:
    assert measured["left_out"] == ["published"]
    by_name = {row["reading"]: row for row in measured["readings"]}
    assert list(by_name) == [name for name in READINGS if name != "published"]
    for name, row in by_name.items():
        assert [cell["cell"] for cell in row["cells"]] == list(READINGS[name].cells)
        assert row["power"].value == pytest.approx(12 * row["machines"].value)
    essay, whole = (by_name[name]["cells"][0] for name in ("essay", "whole_neuron"))
    assert essay["update"].value == whole["update"].value  # they share a run
    assert essay["flop_per_s"].value < whole["flop_per_s"].value
    assert bare_numbers(json.loads(json.dumps(plain(measured)))) == []


def test_the_tables_say_what_was_measured(measured: Any) -> None:
    shown = " ".join("".join(printed(part, 80) for part in realtime.sections(measured)).split())
    for words in (
        "cells in real time, measured here: a processor, 2 threads", "granule, direct, 5 steps",
        "purkinje, dot product, 1 step", "nothing sent from one to another", "One machine: 12 W",
        "Not run, for no module computes it: published", "x 20 W", "activity is noise",
    ):  # fmt: skip
        assert words in shown
    assert "…" not in shown


def test_a_busy_machine_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {row.name: row for row in realtime.basis(PEAK, 1.6)}
    for cores, busy in ((4, False), (3, True)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert ("Not to be relied on: the load was 1.6" in realtime.load_warning(named)) == busy


def test_a_slow_run_holds_at_any_clock() -> None:
    for seconds, holds in ((4.0, True), (1e-6, False)):
        result = realtime.same_at_any_clock(DIRECT, 30.0, {(DIRECT, 200.0): timed(1, seconds)})
        assert (result is not None) == holds


def test_the_share_of_a_network_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "measure_time", lambda *args, **kw: Timing(0.5, 0.4, 0.6, 3, 1))
    model = nn.Linear(8, 4, bias=False)
    share = realtime.learning_share(model, torch.rand(2, 8), PEAK, name="linear")
    # 2 x 8 x 4 MAC forward, and as many for the weight's gradient: 256 FLOP in half a second.
    assert (share.value, share.unit) == (pytest.approx(256 / 0.5 / 1e9), "1")
    assert "inputs 2 x 8" in str(share.source)


def test_the_run_of_a_reading() -> None:
    for reading, cell, expected in (
        ("valid_one_step", "granule", "valid direct, 1 step"),
        ("executed", "purkinje", "same fft, 5 steps"),
        ("executed", "granule", "same direct, 5 steps"),
        ("linear_collapse", "purkinje", "same dot product, 1 step"),
        ("published", "granule", None),  # the essay's arithmetic alone
    ):
        run = runs.run_of(READINGS[reading], cell, read_inputs().values_at_point)
        assert (run and f"{run.padding} {run}") == expected


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("algorithm", ["direct", "auto"])
def test_the_call_is_an_update_of_whole_neurons(algorithm: str, resumed: bool) -> None:
    before = torch.get_rng_state()
    call = runs.Run("granule", TREE, algorithm, "same", resumed).build(3, torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
    rates = (call()[0] if resumed else call()).detach()
    assert rates.shape == (1, 3, 1 if resumed else 5)
    assert rates.min() >= 0 < rates.std()


@pytest.mark.parametrize(("reading", "cell"), [("valid", "granule"), ("essay", "purkinje")])
def test_a_run_executes_what_its_reading_counts(reading: str, cell: str) -> None:
    values = read_inputs(None, SMALL).values_at_point
    run = runs.run_of(READINGS[reading], cell, values)
    counted = count_exact(run.population(2), torch.rand(1, runs.AXONS, 5), strict=True)
    assert counted.macs["convolution"] == 2 * update_of(READINGS[reading], cell, values).mac


@pytest.mark.parametrize(
    ("fixed_s", "step_s", "threads", "ends"), [(1e-3, 1e-6, 1, (2500, 4000)), (0, 0.02, 4, (4, 4))]
)
def test_the_neurons_fill_a_tick_or_raise_the_throughput(
    monkeypatch: pytest.MonkeyPatch, fixed_s: float, step_s: float, threads: int, ends: Any
) -> None:
    def timing(count: int) -> Timing:
        seconds = fixed_s + step_s * math.ceil(count / threads)
        return Timing(seconds, seconds, seconds, 3, 1)

    monkeypatch.setattr(
        runs, "attempt", lambda run, n, *args: runs.Trial(n, timing(n), partial(int, n), 0.0)
    )
    monkeypatch.setattr(runs, "measure_time", lambda call, **kw: timing(call()))
    meter = power.PowerMeter("cpu", 1.0)
    assert ends[0] <= runs.time_run(DIRECT, 5e-3, meter, 60.0).neurons <= ends[1]
    assert runs.time_run(DIRECT, 5e-3, meter, 0.0).neurons == 1
    linear = runs.Run("granule", TREE, "linear", "same", True)
    assert linear.most(6000) == 10  # 75 inputs and 75 weights of 4 bytes each


def test_power_is_assumed_read_from_packages_or_from_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(power, "POWERCAP", tmp_path)
    assumed = power.PowerMeter("cpu").read(lambda: None)
    assert assumed.value == pytest.approx(power.CORE_POWER.value * torch.get_num_threads())
    with pytest.raises(ValueError, match="expected a number above 0"):
        power.PowerMeter("cpu", math.nan)
    counters = {"intel-rapl:0": (900, 100), "intel-rapl:1": (500, 800), "intel-rapl:0:0": (7, 8)}
    for zone, (before, _) in counters.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{before}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000\n")

    def busy(call: Any) -> float:  # 200 uJ past the end of one counter, and 300 uJ of the other
        for zone, (_, after) in counters.items():
            (tmp_path / zone / "energy_uj").write_text(f"{after}\n")
        return 2.0

    monkeypatch.setattr(power, "_keep_busy", busy)
    assert power.PowerMeter("cpu").read(lambda: None).value == pytest.approx(500e-6 / 2)

    device = torch.device("cuda")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    result = SimpleNamespace(stdout="312.45, 700.00\n")
    monkeypatch.setattr("subprocess.run", lambda *args, **kw: result)
    assert power.nvidia_smi(device) == (312.45, "power.draw")
    result.stdout = "[N/A], 700.00\n"
    assert power.nvidia_smi(device) == (700.0, "power.limit")
    result.stdout = "[N/A], [N/A]\n"
    with pytest.raises(ValueError, match=r"a GPU reports no power.*expected --watts"):
        power.nvidia_smi(device)


def test_a_gpu_works_while_its_power_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "LOAD_S", 0.0)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    updates = Semaphore(0)

    def reading(device: torch.device) -> tuple[float, str]:
        assert all(updates.acquire(timeout=60) for _ in range(3))  # none ran before
        return 500.0, "power.draw"

    monkeypatch.setattr(power, "nvidia_smi", reading)
    assert power.PowerMeter("cuda").read(updates.release).value == 500.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    result = realtime.measure_real_time(read_inputs(None, SMALL), "cuda", seconds=1.0)
    cells = [cell for row in result["readings"] for cell in row["cells"]]
    assert all(cell["in_real_time"].value > 1 and cell["power"].value > 0 for cell in cells)
