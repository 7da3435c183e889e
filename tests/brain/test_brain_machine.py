"""Real time: the arithmetic by hand on made-up times, and tiny cells that are really timed."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.brain import read_inputs
from neuroconv.brain.growth.sections import share_claim
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine import machine_power as power
from neuroconv.brain.machine import realtime as rt
from neuroconv.brain.machine import running
from neuroconv.brain.machine.cell_times import cell_time, reading_time
from neuroconv.brain.machine.learning import learning_share
from neuroconv.brain.machine.machine_power import CORE_POWER, PowerMeter
from neuroconv.brain.machine.realtime import RealTime, measure_real_time
from neuroconv.brain.machine.running import Run, Timed, run_of, time_run
from neuroconv.brain.machine.sections import realtime_sections
from neuroconv.brain.quantity import Quantity, plain
from neuroconv.brain.readings import READINGS
from neuroconv.brain.updates import Sizes, update_of
from neuroconv.cli import main
from neuroconv.flops import Peak, Timing, count_exact
from neuroconv.references import Source
from tests.brain.reporting import bare_numbers, printed

SMALL = (
    "purkinje.synapses=60", "purkinje.dendrites=6", "purkinje.branches=3",
    "pyramidal.synapses=40", "pyramidal.dendrites=4", "pyramidal.branches=2",
)  # fmt: skip
TREE = Sizes(15, 4, 3, 5)


@pytest.fixture(scope="module")
def peak() -> Iterator[Peak]:
    """A peak that is not measured: 1e9 FLOP/s."""
    once = Timing(1.0, 1.0, 1.0, 1, 1)
    made_up = Peak(
        "a processor", "cpu", "float32", 2, None, 1e9, 1e9, "product", {"product": 1e9}, 8, once,
        once,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rt, "machine_peak", lambda device: made_up)
        patch.setattr(rt, "peak_again", lambda peak: peak)
        yield made_up


def watts(value: float) -> Quantity:
    source = Source("user", "set for `machine.power`")
    return Quantity(name="machine.power", value=value, unit="W", source=source)


def timed(neurons: int, seconds: float) -> Timed:
    timing = Timing(seconds, seconds * 0.9, seconds * 1.2, 5, 2)
    return Timed(neurons, timing, watts(50.0))


def test_cells_machines_and_power_by_hand(peak: Peak) -> None:
    inputs = read_inputs(None, ())
    reading = READINGS["essay"]
    values = inputs.values_at_point
    run = run_of(reading, "granule", values)
    assert run is not None
    # 1,000 cells in 10 ms: 10 us a cell and update; at 200/s one cell takes 2 ms of a second.
    granule = cell_time(reading, run, timed(1000, 0.01), inputs, peak)
    assert granule.update.value == pytest.approx(1e-5)
    assert (granule.lower.value, granule.upper.value) == pytest.approx((0.9e-5, 1.2e-5))
    assert granule.in_real_time.value == pytest.approx(500)
    assert granule.machines.value == pytest.approx(50e9 / 500)
    assert granule.flop_per_s.value == pytest.approx(2 * 4500 / 1e-5)
    assert granule.share_of_peak.value == pytest.approx(0.9)
    assert granule.machines_at_peak.value == pytest.approx(50e9 * 200 * 9000 / 1e9)
    assert granule.cells_per_watt.value == pytest.approx(10)

    run = run_of(reading, "purkinje", values)
    assert run is not None
    # One cell takes 4 s, 800 ticks: 1/800 of a cell in real time.
    purkinje = cell_time(reading, run, timed(1, 4.0), inputs, peak)
    assert purkinje.in_real_time.value == pytest.approx(1 / 800)
    assert purkinje.machines.value == pytest.approx(800 * 1e8)

    brain = reading_time(reading, (granule, purkinje))
    assert brain.machines.value == pytest.approx(1e8 + 8e10)
    assert brain.power.value == pytest.approx(50 * (1e8 + 8e10))
    assert brain.over_brain.value == pytest.approx(50 * (1e8 + 8e10) / 20)
    # At the peak: the essay's 1.00009e21 FLOP/s over 1e9.
    assert brain.machines_at_peak.value == pytest.approx(1.00009e12)
    for each in (brain.machines, brain.power, brain.over_brain, granule.in_real_time):
        assert each.source.reference == "derived"


@pytest.fixture(scope="module")
def measured(peak: Peak) -> RealTime:
    """Tiny cells, really timed, a few hundredths of a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_MOST", 8)
        patch.setattr(running, "_GLANCE_S", 0.001)
        return measure_real_time(read_inputs(None, SMALL), watts=12.0, seconds=0.3)


def test_every_reading_is_measured_and_no_number_is_bare(measured: RealTime) -> None:
    assert measured.left_out == ("published",)
    assert [each.reading for each in measured.readings] == [
        name for name in READINGS if name != "published"
    ]
    for each in measured.readings:
        assert [cells.cell for cells in each.cells] == list(READINGS[each.reading].cells)
        assert each.power.value == pytest.approx(12 * each.machines.value)
        for cells in each.cells:
            assert cells.lower.value <= cells.update.value <= cells.upper.value
            assert cells.neurons.value >= 1
            assert cells.power.value == 12
    assert bare_numbers(json.loads(json.dumps(measured.to_dict()))) == []


def test_names_in_the_sources_are_in_the_report(measured: RealTime) -> None:
    inputs = set(read_inputs(None, SMALL))
    rows = json.dumps([measured.to_dict()])
    named = {f'"{name}"' for each in measured.readings for name in each.power.source.names}
    named |= {
        f'"{name}"'
        for reading in measured.readings
        for each in reading.cells
        for name in (*each.in_real_time.source.names, *each.machines.source.names)
        if name not in inputs
    }
    assert named
    assert [name for name in named if name not in rows] == []


def test_readings_that_count_differently_share_a_run(measured: RealTime) -> None:
    by_name = {each.reading: each for each in measured.readings}
    essay, whole = (by_name[name].cells[0] for name in ("essay", "whole_neuron"))
    assert essay.update.value == whole.update.value
    assert essay.flop_per_s.value < whole.flop_per_s.value


def test_the_tables_say_what_was_measured(measured: RealTime) -> None:
    shown = " ".join("".join(printed(part, 80) for part in realtime_sections(measured)).split())
    for word in (
        "cells in real time, measured here: a processor, 2 threads", "granule, direct, 5 steps",
        "purkinje, dot product, 1 step", "nothing sent from one to another", "One machine: 12 W",
        "Not run, for no module computes it: published", "x 20 W", "activity is noise",
    ):  # fmt: skip
        assert word in shown
    assert "…" not in shown


@pytest.mark.parametrize(("cores", "busy"), [(4, False), (3, True)])
def test_too_little_room_for_the_threads_is_said(
    peak: Peak, monkeypatch: pytest.MonkeyPatch, cores: int, busy: bool
) -> None:
    monkeypatch.setattr(rt, "time_run", lambda *args: timed(1, 1e-6))
    monkeypatch.setattr("os.getloadavg", lambda: (1.6, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    times, _ = realtime_sections(measure_real_time(read_inputs(None, ())))  # 2 threads
    shown = " ".join(printed(times, 80).split())
    assert ("Not to be relied on: the load was 1.6" in shown) == busy


def test_the_same_run_at_two_clocks_is_timed_once_if_it_is_slow(
    peak: Peak, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []

    def fake(run: Run, tick_s: float, meter: PowerMeter, seconds: float) -> Timed:
        seen.append((run.cell, tick_s))
        return timed(1, 4.0 if run.cell == "purkinje" else 1e-6)

    monkeypatch.setattr(rt, "time_run", fake)
    readings = {name: READINGS[name] for name in ("one_step", "one_step_per_frame")}
    result = measure_real_time(read_inputs(None, ()), readings=readings, seconds=1.0)
    assert sorted(seen) == [
        ("granule", 1 / 200), ("granule", 1 / 30), ("purkinje", 1 / 200)
    ]  # fmt: skip
    slow = [each.cells[0].in_real_time.value for each in result.readings]
    assert slow == pytest.approx([1 / 800, 1 / 120])


def test_the_share_of_a_network_that_learns(peak: Peak, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "neuroconv.brain.machine.learning"
    monkeypatch.setattr(f"{module}.machine_peak", lambda device: peak)
    monkeypatch.setattr(f"{module}.peak_again", lambda peak: peak)
    half = Timing(0.5, 0.4, 0.6, 3, 1)
    monkeypatch.setattr(f"{module}.measure_time", lambda *args, **kw: half)
    model = nn.Linear(8, 4, bias=False)
    share = learning_share(model, torch.rand(2, 8))
    # 2 x 8 x 4 MAC forward, and as many for the weight's gradient: 256 FLOP in half a second.
    assert share.value == pytest.approx(256 / 0.5 / 1e9)
    assert share.unit == "1"
    assert "2 x 8" in str(share.source)
    assert bare_numbers(plain(share_claim(share))) == []


def test_inputs_that_do_not_fit_are_refused(peak: Peak) -> None:
    inputs: Inputs = read_inputs(None, ("granule.branches=9",))
    with pytest.raises(ValueError, match=r"granule\.branches=9"):
        measure_real_time(inputs, seconds=0.1)
    with pytest.raises(ValueError, match="cannot be timed"):
        measure_real_time(read_inputs(None, ()), "meta")


def test_the_command_measures_if_asked(
    measured: RealTime,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def fake(inputs: Inputs, device: str, *, watts: float | None, track: Any) -> RealTime:
        asked.append((device, watts, list(track([1, 2]))))
        return measured

    share = Quantity(
        name="learning.share", value=0.25, unit="1", source=Source("derived", "`made_up`")
    )
    monkeypatch.setattr("neuroconv.cli.brain.measure_real_time", fake)
    monkeypatch.setattr("neuroconv.cli.brain.learning_share", lambda *args, **kw: share)
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "b.json"
    words = ["--samples", "64", "--measure", "cpu", "--machine-watts", "12", "--json", str(file)]
    main(["brain", *words])
    assert asked == [("cpu", 12.0, [1, 2])]
    out = " ".join(capsys.readouterr().out.split())
    assert "cells in real time, measured here" in out
    assert "Measured here: 25.0 %" in out
    rows = json.loads(file.read_text())
    assert bare_numbers(rows) == []
    assert rows["realtime"] == json.loads(json.dumps(measured.to_dict()))
    (claim,) = (each for each in rows["forecast"] if each["section"] == "share_claim")
    assert claim["measured"]["value"] == 0.25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    readings = {name: READINGS[name] for name in ("valid", "one_step", "linear_collapse")}
    result = measure_real_time(read_inputs(None, SMALL), "cuda", seconds=1.0, readings=readings)
    for each in result.readings:
        assert each.power.value > 0
        assert all(cells.in_real_time.value > 1 for cells in each.cells)


# --- what runs, how many cells at once, and the power meanwhile


def test_what_runs_for_a_reading() -> None:
    values = read_inputs(None, ()).values_at_point

    def ran(name: str, cell: str) -> str:
        run = run_of(READINGS[name], cell, values)
        assert run is not None
        return f"{run.padding} {run}"

    assert ran("essay", "purkinje") == "same direct, 5 steps"
    assert ran("whole_neuron", "granule") == "same direct, 5 steps"
    assert ran("one_step", "purkinje") == "same direct, 1 step"
    assert ran("valid_one_step", "granule") == "valid direct, 1 step"
    assert ran("executed", "purkinje") == "same fft, 5 steps"
    assert ran("executed", "granule") == "same direct, 5 steps"
    assert ran("linear_collapse", "purkinje") == "same dot product, 1 step"
    assert run_of(READINGS["published"], "granule", values) is None  # the essay's arithmetic alone
    runs = {
        run_of(READINGS[name], "granule", values) for name in ("one_step", "one_step_per_frame")
    }
    assert len(runs) == 1  # the clock is not the run's


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("algorithm", ["direct", "auto"])
def test_the_call_is_an_update_of_whole_neurons(algorithm: Any, resumed: bool) -> None:
    call = Run("granule", TREE, algorithm, "same", resumed).build(3, torch.device("cpu"))
    with torch.no_grad():
        result: Any = call()
    rates = result[0] if resumed else result
    assert rates.shape == (1, 3, 1 if resumed else 5)
    assert (rates >= 0).all()
    assert rates.std() > 0


def test_a_run_executes_what_its_reading_counts() -> None:
    """The direct column is what torch's dispatcher sees in the call's own dendrites."""
    values = read_inputs(None, SMALL).values_at_point
    for name, cell in (("valid", "granule"), ("valid", "purkinje"), ("essay", "purkinje")):
        run = run_of(READINGS[name], cell, values)
        assert run is not None
        window = torch.rand(1, running.AXONS, 5)
        counted = count_exact(run.population(2), window, strict=True).macs["convolution"]
        assert counted == 2 * update_of(READINGS[name], cell, values).mac


def test_the_linear_call_is_the_dot_product() -> None:
    run = Run("granule", TREE, "linear", "same", True)
    call: Any = run.build(2, torch.device("cpu"))
    inputs, weights = call.args
    assert inputs.shape == (2, 1, 75)
    expected = torch.stack([i[0] @ w[:, 0] for i, w in zip(inputs, weights, strict=True)])
    assert torch.allclose(call().flatten(), expected, atol=1e-5)


def test_building_moves_no_random_state() -> None:
    before = torch.get_rng_state()
    Run("granule", TREE, "direct", "same", True).build(2, torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())


def fake_clock(
    monkeypatch: pytest.MonkeyPatch, fixed_s: float, each_s: float, threads: int = 1
) -> list[int]:
    """Updates of n neurons take fixed_s + each_s * ceil(n / threads); returns the tried n."""
    tried: list[int] = []

    def attempt(run: Run, neurons: int, place: torch.device, until: float) -> running._Trial:
        tried.append(neurons)
        return running._Trial(neurons, timing_of(neurons), partial(int, neurons), 0.0)

    def timing_of(neurons: int) -> Timing:
        seconds = fixed_s + each_s * math.ceil(neurons / threads)
        return Timing(seconds, seconds, seconds, 3, 1)

    def measure_time(call: Any, *, device: str, seconds: float) -> Timing:
        return timing_of(call())

    monkeypatch.setattr(running, "_try", attempt)
    monkeypatch.setattr(running, "measure_time", measure_time)
    return tried


def test_as_many_neurons_as_fill_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fake_clock(monkeypatch, fixed_s=1e-3, each_s=1e-6)
    run = Run("granule", TREE, "direct", "same", False)
    found = time_run(run, 5e-3, PowerMeter("cpu", 1.0), 60.0)
    assert tried == sorted(tried)
    assert tried[0] == 1
    assert 0.7 * 5e-3 <= found.timing.seconds <= 5e-3
    assert 2500 <= found.neurons <= 4000


def test_a_slow_neuron_is_timed_with_others_while_that_pays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = fake_clock(monkeypatch, fixed_s=0.0, each_s=0.02, threads=4)
    run = Run("granule", TREE, "direct", "same", False)
    found = time_run(run, 5e-3, PowerMeter("cpu", 1.0), 60.0)
    assert tried == [1, 2, 4, 8]  # eight take twice as long as four: no better
    assert found.neurons == 4
    assert found.timing.seconds / found.neurons == pytest.approx(0.005)


def test_memory_and_time_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("granule", TREE, "linear", "same", True)
    assert run.most(6000) == 10  # 75 inputs and 75 weights of 4 bytes each
    assert Run("granule", TREE, "direct", "same", False).most(1) == 1
    monkeypatch.setattr(running, "_free_bytes", lambda place: 4 * 6000)
    fake_clock(monkeypatch, fixed_s=0.0, each_s=1e-6)
    assert time_run(run, 5e-3, PowerMeter("cpu", 1.0), 60.0).neurons == 10
    assert time_run(run, 5e-3, PowerMeter("cpu", 1.0), 0.0).neurons == 1


def test_an_update_longer_than_its_share_is_timed_once() -> None:
    run = Run("granule", TREE, "direct", "same", False)
    found = time_run(run, 5e-3, PowerMeter("cpu", 1.0), 1e-9)
    assert (found.neurons, found.timing.repeats) == (1, 1)
    assert found.timing.lower_seconds == found.timing.seconds == found.timing.upper_seconds


def test_the_power_is_assumed_by_the_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(power, "POWERCAP", tmp_path / "none")
    read = PowerMeter("cpu").read(lambda: None)
    assert read.value == pytest.approx(CORE_POWER.value * torch.get_num_threads())
    assert "assumption" in str(read.source)
    assert PowerMeter("cpu", 65).read(lambda: None).source.reference == "user"
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected a number above 0"):
            PowerMeter("cpu", wrong)


def test_the_power_of_the_packages_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for zone, counter in (("intel-rapl:0", 900), ("intel-rapl:1", 500), ("intel-rapl:0:0", 7)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{counter}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000\n")
    monkeypatch.setattr(power, "POWERCAP", tmp_path)

    def busy(call: Any) -> float:  # 200 uJ past the end of one counter, and 300 uJ of the other
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("800\n")
        return 2.0

    monkeypatch.setattr(power, "_keep_busy", busy)
    read = PowerMeter("cpu").read(lambda: None)
    assert read.value == pytest.approx(500e-6 / 2)
    assert "measured here" in str(read.source)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("312.45, 700.00\n", (312.45, "power.draw")), ("[N/A], 700.00\n", (700.0, "power.limit"))],
)
def test_what_nvidia_smi_prints_is_read(
    monkeypatch: pytest.MonkeyPatch, printed: str, expected: tuple[float, str]
) -> None:
    def run(command: list[str], **options: Any) -> SimpleNamespace:
        assert "--id=GPU-abc" in command
        return SimpleNamespace(stdout=printed)

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr("subprocess.run", run)
    assert power._nvidia_smi(torch.device("cuda")) == expected


def test_a_gpu_that_reports_no_power_asks_for_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid="abc"))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: SimpleNamespace(stdout="[N/A], [N/A]\n"))
    with pytest.raises(ValueError, match=r"a GPU reports no power.*expected watts given by you"):
        power._nvidia_smi(torch.device("cuda"))
