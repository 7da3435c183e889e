"""Real time: the arithmetic by hand on made-up times, and tiny cells that are really timed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv.brain import bare_numbers, read_inputs
from neuroconv.brain.growth.sections import share_claim
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.machine import realtime as rt
from neuroconv.brain.machine import running
from neuroconv.brain.machine.cell_times import cell_time, reading_time
from neuroconv.brain.machine.learning import learning_share
from neuroconv.brain.machine.machine_power import PowerMeter
from neuroconv.brain.machine.realtime import RealTime, measure_real_time
from neuroconv.brain.machine.running import Run, Timed, run_of
from neuroconv.brain.machine.sections import realtime_sections
from neuroconv.brain.quantity import Quantity, plain
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.cli import main
from neuroconv.flops import Peak, Timing
from neuroconv.references import Source
from tests.brain.printing import printed

SMALL = (
    "purkinje.synapses=60", "purkinje.dendrites=6", "purkinje.branches=3",
    "pyramidal.synapses=40", "pyramidal.dendrites=4", "pyramidal.branches=2",
)  # fmt: skip


@pytest.fixture
def peak(monkeypatch: pytest.MonkeyPatch) -> Peak:
    """A peak that is not measured: 1e9 FLOP/s."""
    once = Timing(1.0, 1.0, 1.0, 1, 1)
    made_up = Peak(
        "a processor", "cpu", "float32", 2, None, 1e9, 1e9, "product", {"product": 1e9}, 8, once,
        once,
    )  # fmt: skip
    monkeypatch.setattr(rt, "machine_peak", lambda device: made_up)
    monkeypatch.setattr(rt, "peak_again", lambda peak: peak)
    return made_up


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


@pytest.fixture
def measured(peak: Peak, monkeypatch: pytest.MonkeyPatch) -> RealTime:
    """Tiny cells, really timed, a few hundredths of a second each."""
    monkeypatch.setattr(running, "_MOST", 8)
    monkeypatch.setattr(running, "_GLANCE_S", 0.001)
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


def test_progress_sees_every_run(peak: Peak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rt, "time_run", lambda *args: timed(1, 1e-6))
    counts: list[int] = []

    def track(jobs: Any) -> Any:
        counts.append(len(jobs))
        return jobs

    own = {"mine": Reading(name="mine", cells=("granule",))}
    result = measure_real_time(read_inputs(None, ()), readings=own, track=track)
    assert counts == [1]
    assert result.readings[0].cells[0].in_real_time.value == pytest.approx(5000)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--machine-watts", "65"], "--machine-watts without --measure"),
        (["--measure", "cpu", "--machine-watts", "0"], "--machine-watts 0.0: expected a number"),
    ],
)
def test_the_command_refuses_watts_without_sense(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["brain", *words])
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    readings = {name: READINGS[name] for name in ("valid", "one_step", "linear_collapse")}
    result = measure_real_time(read_inputs(None, SMALL), "cuda", seconds=1.0, readings=readings)
    for each in result.readings:
        assert each.power.value > 0
        assert all(cells.in_real_time.value > 1 for cells in each.cells)
