"""What runs for a reading, how many cells at once, and the power meanwhile."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neuroconv.brain import read_inputs
from neuroconv.brain.machine import machine_power as power
from neuroconv.brain.machine import running
from neuroconv.brain.machine.machine_power import CORE_POWER, PowerMeter
from neuroconv.brain.machine.running import Run, run_of, time_run
from neuroconv.brain.readings import READINGS
from neuroconv.brain.updates import Sizes, update_of
from neuroconv.flops import Timing, count_exact

SMALL = (
    "purkinje.synapses=60", "purkinje.dendrites=6", "purkinje.branches=3",
    "pyramidal.synapses=40", "pyramidal.dendrites=4", "pyramidal.branches=2",
)  # fmt: skip
TREE = Sizes(15, 4, 3, 5)


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
