"""The benchmark of experiments/bench: its clock, its record, its workloads, and its pages."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.flops.calls import OperatorMode
from neuroconv.layers import dendritic_conv
from neuroconv.neurons import GranuleConv2d
from tests.scripts import loaded

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments" / "bench"
RESULT = json.loads((FOLDER / "result.json").read_text())
CPU = torch.device("cpu")

run, table = loaded(FOLDER / "run.py"), loaded(FOLDER / "table.py")
timer, record, variants, operators, workloads, growth, scaling = (
    sys.modules[name]
    for name in ("timer", "recording", "variants", "operators", "workloads", "growth", "scaling")
)


class Fake:
    """A variant whose calls take given seconds by its own clock, the last of them for ever."""

    def __init__(self, seconds: list[float], log: list[str], name: str = "") -> None:
        self.seconds, self.log, self.name = seconds, log, name

    def block(self, calls: int) -> float:
        self.log.extend([self.name] * calls)
        taken = [self.seconds.pop(0) for _ in range(min(calls, len(self.seconds) - 1))]
        return (sum(taken) + self.seconds[0] * (calls - len(taken))) / calls


# --- the timer


def test_variants_take_turns_and_are_warmed_up_before_each_repeat() -> None:
    log: list[str] = []
    # A first call after the other variant takes ten times as long: warming up leaves it out.
    pair = {name: Fake([3.0, 1.0] + [10.0, 1.0] * 9, log, name) for name in "ab"}
    times = timer.interleaved(pair, seconds=12.0)
    assert log == ["a", "a", "b", "b"] * (1 + 3)
    assert {outcome.seconds for outcome in times.values()} == {(1.0,) * 3}


def test_short_calls_come_in_blocks_and_the_repeats_fill_the_time() -> None:
    log: list[str] = []
    times = timer.interleaved({"a": Fake([1e-3], log)}, seconds=1.0)
    assert times["a"].calls_per_repeat == 50
    assert len(times["a"].seconds) == 17  # 56 calls each, 6 of them to warm up
    assert len(log) == 2 + 17 * 56


def test_slow_and_hopeless_variants_are_timed_once() -> None:
    logs: dict[str, list[str]] = {name: [] for name in ("fast", "hopeless", "slow", "cold")}
    seconds = {"fast": [1e-3], "hopeless": [20e-3], "slow": [9.0], "cold": [0.3, 1e-3]}
    pair = {name: Fake(seconds[name], logs[name]) for name in logs}
    times = timer.interleaved(pair, seconds=0.02, slow=2.0, hopeless=5)
    assert [len(logs[name]) for name in ("hopeless", "slow")] == [2, 1]
    assert (times["slow"].seconds, times["hopeless"].seconds) == ((9.0,), (20e-3,))
    assert len(times["fast"].seconds) >= 3
    # A first call that was cold is not taken for slow.
    times = timer.interleaved({"cold": Fake([3.0, 1e-3], [])}, seconds=0.02)
    assert max(times["cold"].seconds) == 1e-3


def test_a_variant_that_fails_is_recorded() -> None:
    def fail() -> None:
        raise RuntimeError("out of memory\nand more")

    pair = {"bad": variants.Variant(fail), "good": Fake([1e-4], [])}
    times = timer.interleaved(pair, seconds=0.01)
    assert times["bad"] == timer.Failure("RuntimeError: out of memory")
    assert times["bad"].to_dict() == {"not_measured": "RuntimeError: out of memory"}
    assert timer.ratio(times["bad"], times["good"]) is None


def test_ratios_are_by_repeat() -> None:
    # The machine slows down threefold on the way, and the ratio is 2 in every repeat but one.
    short = timer.TimedRun((1.0, 2.0, 3.0, 3.0, 3.0))
    long = timer.TimedRun((2.0, 4.0, 6.0, 6.0, 9.0))
    assert timer.ratio(long, short) == timer.Ratio(2.0, 2.0, 2.0)
    assert long.spread == pytest.approx(2 / 6)
    once = timer.ratio(timer.TimedRun((60.0,)), timer.TimedRun((1.0, 2.0, 3.0, 4.0, 5.0)))
    assert once == timer.Ratio(20.0, 60 / 4, 60 / 2)


def test_weights_change_before_each_call_outside_of_its_time() -> None:
    weight, values, now = torch.ones(3), [], [0.0]

    def call() -> None:
        values.append(weight[0].item())
        now[0] += 1.0

    class Slow(torch.Tensor):
        def neg_(self) -> Any:
            now[0] += 1.0  # a change takes a second
            return super().neg_()

    variant = variants.Variant(call, (weight.as_subclass(Slow),))
    assert variant.block(4, clock=lambda: now[0]) == 1.0
    assert values == [-1.0, 1.0, -1.0, 1.0]
    assert now == [8.0]


# --- memory and operators alone


def test_the_peak_is_what_was_alive_at_once() -> None:
    x, w = torch.randn(1_000_000, requires_grad=True), torch.randn(1_000_000, requires_grad=True)

    def call() -> object:
        a = x.detach() * 2  # 4 MB
        b = a + 1  # 8
        del a  # 4
        c = b * b  # 8
        del b
        return c[:10].clone()

    def both() -> object:
        y = x * w
        return y, *torch.autograd.grad(y, (x, w), torch.ones_like(y))

    assert operators.peak_bytes(call, CPU) == pytest.approx(8e6, rel=1e-3)
    assert operators.peak_bytes(both, CPU) == pytest.approx(4 * 4e6, rel=1e-3)


def names_of(call: Callable[[], object]) -> list[str]:
    """The operators that a call runs."""
    names: list[str] = []

    class Names(OperatorMode):
        def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            names.append(func.overloadpacket.__name__)
            return func(*args, **kwargs)

    with Names():
        call()
    return names


@pytest.mark.parametrize("task", variants.TASKS)
def test_transforms_alone_are_those_of_the_convolution(task: str) -> None:
    sheet, filters = torch.randn(2, 3, 5, 6, 9), torch.randn(3, 5, 4, 9)
    whole = variants.kernel_variant(variants.neuroconv("same", "fft"), sheet, filters, task).call
    alone = names_of(operators.operators_alone(whole, operators.TRANSFORMS))
    assert alone == [name for name in names_of(whole) if name in operators.TRANSFORMS]
    assert len(alone) >= 3
    with pytest.raises(ValueError, match="the call runs none of _fft_r2c, _fft_c2r, _fft_c2c"):
        operators.operators_alone(lambda: torch.ones(3) + 1, operators.TRANSFORMS)


def test_convolutions_alone_are_those_of_the_layer() -> None:
    layer = GranuleConv2d(2, 3, padding="same", norm="both")
    call = variants.module_variant(layer, torch.rand(2, 2, 5, 8, 8), "forward_backward").call
    with sys.modules["internals"].torch_operators():
        alone = names_of(operators.operators_alone(call, operators.CONVOLUTIONS))
    assert alone.count("convolution") >= 4
    assert alone.count("convolution_backward") * 2 == len(alone)


@pytest.mark.parametrize("taps", [(5, 3, 4), (2, 4, 5), (5, 1, 1)])
def test_rivals_compute_the_same_and_return_all_of_it(taps: tuple[int, int, int]) -> None:
    sheet, filters = torch.randn(2, 3, 5, 6, 7), torch.randn(3, *taps)
    exact = dendritic_conv(sheet.double(), filters.double(), "same", "direct")
    padded = variants.pad_same(sheet, taps)
    assert padded.shape[2:] == tuple(n + k - 1 for n, k in zip((5, 6, 7), taps, strict=True))
    for rival in filter(None, (variants.conv3d, variants.fft_conv())):
        assert record.error(rival(padded, filters), exact) <= 1e-5
        variant = variants.kernel_variant(rival, padded, filters, "forward_backward")
        results = variant.call()
        assert [result.shape for result in results] == [exact.shape, padded.shape, filters.shape]
        before = variant.weights[0].detach().clone()
        variant.change()
        assert torch.equal(variant.weights[0], -before)
        assert torch.equal(filters, before)  # each variant has a copy of the weights


# --- growth, and training over processes


def test_an_exponent_has_the_standard_error_of_its_line() -> None:
    sizes = [1, 2, 4, 8, 16]
    line = growth.fit_exponent(sizes, [3e-3 * size**1.15 for size in sizes])
    assert (line.value, line.seconds_at_one) == (pytest.approx(1.15), pytest.approx(3e-3))
    assert line.standard_error == pytest.approx(0, abs=1e-7)
    # In logs x = -1, 0, 1 and y = 0, 1.2, 1.8: slope 0.9, residuals -0.1, 0.2, -0.1.
    sizes, seconds = ([2.718281828459045**x for x in logs] for logs in ((-1, 0, 1), (0, 1.2, 1.8)))
    line = growth.fit_exponent(sizes, seconds)
    assert line.value == pytest.approx(0.9)
    assert line.standard_error == pytest.approx((0.06 / 1 / 2) ** 0.5)
    with pytest.raises(ValueError, match="expected three or more of each, all above 0"):
        growth.fit_exponent([1, 2, 4], [1, 0, 2])


@pytest.mark.parametrize("processes", [1, 2, 4, 64])
def test_a_projected_exchange_is_the_rings(processes: int) -> None:
    seconds = 0.0
    for _ in ("add up", "hand round"):  # message by message, each a part of the gradient
        for _ in range(processes - 1):
            seconds += 1e-5 + 4_000_000 / processes / 1e9
    exchange = scaling.exchange_seconds(processes, 4_000_000, 1e9, 1e-5)
    assert exchange == pytest.approx(seconds, rel=1e-12)


# --- the record


def row(name: str, **figures: dict[str, Any]) -> dict[str, Any]:
    return record.row(name, times={"a": timer.TimedRun((1.0,))}, figures=figures)  # type: ignore[no-any-return]


def test_a_run_that_is_killed_keeps_what_it_measured(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    written = record.Record(record.Bench(CPU), ["first", "second"], file)

    def first(bench: object) -> Iterator[dict[str, Any]]:
        yield row("one", ratio=record.figure("a ratio", 2.0, at_least=1.0))
        raise RuntimeError("no memory\nleft")

    def second(bench: object) -> Iterator[dict[str, Any]]:
        yield row("two", ratio=record.figure("a ratio", 2.0, at_most=1.0))
        raise KeyboardInterrupt

    assert written.run("first", first) == "RuntimeError: no memory"
    with pytest.raises(KeyboardInterrupt):
        written.run("second", second)
    plain = json.loads(file.read_text())
    states = [plain["sections"][name]["state"] for name in ("first", "second")]
    assert states == ["RuntimeError: no memory", "running"]
    assert plain["sections"]["second"]["rows"][0]["times"]["a"]["seconds"] == 1.0
    assert [bar["met"] for bar in plain["bars"]] == [True, False]
    assert written.failed == {"first": "RuntimeError: no memory"}
    assert set(plain) == set(RESULT)
    assert set(plain["settings"]) == set(RESULT["settings"])
    assert run.verdict(plain).startswith("1 of 2 bars met\n  missed: two: ratio = 2")


def test_a_section_stops_at_its_limit() -> None:
    def endless(bench: object) -> Iterator[dict[str, Any]]:
        while True:
            yield row("again")

    written = record.Record(record.Bench(CPU), ["endless"])
    assert written.run("endless", endless, limit=0.0) == "stopped after its 0 s"
    assert (len(written.plain["sections"]["endless"]["rows"]), written.failed) == (1, {})


def test_bars() -> None:
    for value, bar, met in (
        (5.0, {"at_least": 5}, True), (4.99, {"at_least": 5}, False), (1.5, {"at_most": 1.5}, True),
        (1.51, {"at_most": 1.5}, False), (1.51, {}, None), (None, {"at_most": 1.5}, None),
        (float("nan"), {"at_most": 1.5}, False),
    ):  # fmt: skip
        assert record.figure("times a", value, **bar).get("met") is met
    endless = {"text": "times a (not finite)", "value": None, "met": False}
    assert record.figure("times a", float("inf")) == endless


# --- every section and workload, in small


def test_sections_run_in_small_and_have_their_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bars of speed, which a quick run leaves out, are kept here: missed or met, they are there."""
    monkeypatch.setattr(record, "_OF_SPEED", ())
    monkeypatch.setattr(run, "keep_freed_memory", lambda: True)
    sections = [name for name in run.SECTIONS if name != "scaling"]
    file, plot = tmp_path / "a" / "bench.json", tmp_path / "growth.png"
    words = ["--quick", "--only", *sections, "--json", str(file), "--plot", str(plot)]
    status = run.main(words)
    plain = json.loads(file.read_text())
    assert status == 0, {name: part["state"] for name, part in plain["sections"].items()}
    assert [name for name, part in plain["sections"].items() if part["rows"]] == sections
    bars: dict[str, list[float]] = {name: [] for name in sections}
    for bar in plain["bars"]:
        bars[bar["section"]].append(bar.get("at_least", bar.get("at_most")))
        assert bar["met"] or bar["figure"].endswith(("_ratio", "_exponent")), bar
    expected = {
        "purkinje": [1e-5, 2, 3, 4, 4, 4, 300, 500], "granule": [5] * 4, "image_layer": [1.5] * 2,
        "auto": [1.2, 1.2, 1.5, 1.5], "growth": [1.05] * 12 + [1.15] * 8, "training": [2, 2],
    }  # fmt: skip
    assert {name: sorted(bars[name]) for name in expected} == expected
    assert len(growth.lines(plain)) == 2 * 5 * 2
    assert plot.stat().st_size > 10_000
    assert "quick: no speed was judged" in capsys.readouterr().out
    # Comparisons and figures have the names by which the recorded run is shown.
    for name in ("purkinje", "granule", "training"):
        rows, recorded = (
            [(item["comparison"], *item["figures"]) for item in source["sections"][name]["rows"]]
            for source in (plain, RESULT)
        )
        assert rows == recorded


@pytest.mark.slow
def test_processes_that_share_training_run_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # for the processes of `scaling`
    assert run.main(["--quick", "--only", "scaling"]) == 0


def test_quick_judges_no_speed() -> None:
    def section(bench: object) -> Iterator[dict[str, Any]]:
        error = record.figure("b", 1.0, at_most=2)
        yield row("one", a_ratio=record.figure("a", 1.0, at_least=2), error=error)

    written = record.Record(record.Bench(CPU, quick=True), ["section"])
    written.run("section", section)
    assert [bar["figure"] for bar in written.plain["bars"]] == ["error"]
    (item,) = written.plain["sections"]["section"]["rows"]
    assert item["figures"]["a_ratio"] == {"text": "a", "value": 1.0}


def test_without_fft_conv_the_comparison_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    written = record.Record(record.Bench(CPU, quick=True), [])
    assert written.run("purkinje", run.SECTIONS["purkinje"]) == "complete"
    item = written.plain["sections"]["purkinje"]["rows"][1]
    reason = item["times"]["fft_conv_pytorch"]["not_measured"]
    assert reason.startswith("fft-conv-pytorch is not installed, and is left out; pip install")
    assert item["figures"]["fft_conv_pytorch_over_neuroconv_ratio"]["value"] is None


def test_every_workload_runs_once() -> None:
    everything = workloads.all_workloads(CPU, quick=True)
    assert len(everything) > 60
    for name, build in everything.items():
        assert build().block(1) > 0, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "speed"), "invalid choice: 'speed'"),
        (("--seconds", "0"), "--seconds 0.0: expected a number above 0"),
        (("--only", "auto", "--plot", "a.svg"), "--plot draws the section growth: add it to"),
        (("--data", "absent"), "--data absent: expected a folder that exists"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.slow
def test_every_section_runs_on_cuda() -> None:
    assert run.main(["--quick", "--device", "cuda"]) == 0


# --- two checkouts


@pytest.mark.slow
def test_a_checkout_beside_itself(tmp_path: Path) -> None:
    file, versus = tmp_path / "versus.json", str(FOLDER / "versus.py")
    words = f"--old {ROOT} --quick --repeats 3 --seconds 0.1 --only small/granule* --json {file}"
    command = [sys.executable, versus, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    plain = json.loads(file.read_text())
    assert list(plain["workloads"]) == ["small/granule/forward", "small/granule/forward_backward"]
    for item in plain["workloads"].values():
        assert item["old"]["repeats"] == item["new"]["repeats"] >= 3
        assert item["new_over_old_ratio"] > 0
    assert (plain["summary"]["workloads"], plain["summary"]["not_measured"]) == (2, [])
    assert {side["folder"] for side in plain["sides"].values()} == {str(ROOT)}


def test_the_summary_of_two_checkouts() -> None:
    versus = loaded(FOLDER / "versus.py")
    runs = {"a/x": (1.0, 2.0), "a/y": (1.0, 0.5), "b/z": (2.0, 8.0)}
    sides = {name: [timer.TimedRun((side,)) for side in run] for name, run in runs.items()}
    sides["b/w"] = [timer.TimedRun((1.0,)), timer.Failure("TypeError: unknown")]
    comparisons = [
        versus.Comparison(name, {"old": old, "new": new}) for name, (old, new) in sides.items()
    ]
    summary = versus.summary(comparisons)
    assert summary["geometric_mean_ratio_by_group"] == pytest.approx({"a": 1.0, "b": 4.0})
    assert summary["geometric_mean_ratio"] == pytest.approx(4 ** (1 / 3))
    assert (summary["worst_workload"], summary["worst_ratio"]) == ("b/z", 4.0)
    assert summary["not_measured"] == ["b/w"]
    assert versus.table(comparisons).row_count == 4


# --- the pages


def test_the_pages_hold_what_was_recorded() -> None:
    assert set(table.PAGES) == {ROOT / "README.md", FOLDER / "README.md"}
    for page, names in table.PAGES.items():
        text = page.read_text()
        assert table.filled(text, names, RESULT) == text, "run python experiments/bench/table.py"


def test_every_bar_is_in_a_line_and_every_miss_in_the_list() -> None:
    columns = [column for line in table.lines_of("table") for column in line.columns]
    figures = [figure for column in columns for figure in table.figures(RESULT, *column)]
    shown = [id(figure) for figure in figures if table.bar(figure)]
    assert len(shown) == len(set(shown)) == len(RESULT["bars"]) > 70
    missed = [bar for bar in RESULT["bars"] if not bar.get("met")]
    assert len(table.missed(RESULT).splitlines()[2:]) == len(missed)
    assert f"**{len(RESULT['bars']) - len(missed)} of {len(RESULT['bars'])} " in table.run(RESULT)


def test_the_text_follows_the_record() -> None:
    plain = copy.deepcopy(RESULT)

    def judge(name: str, value: float | None, **met: bool) -> None:
        """Writes another value into the record's figure and into its bar."""
        rows = plain["sections"]["purkinje"]["rows"]
        (item,) = (item for item in rows if item["comparison"] == "Purkinje, forward")
        bars = (bar for bar in plain["bars"] if bar["comparison"] == "Purkinje, forward")
        (bar,) = (bar for bar in bars if bar["figure"] == name)
        for figure in (item["figures"][name], bar):
            del figure["met"]
            figure |= {"value": value, **met}

    judge("conv3d_over_neuroconv_ratio", 499.7, met=False)
    judge("fft_conv_pytorch_over_neuroconv_ratio", None)
    plain["sections"]["granule"]["state"] = "MemoryError: no more"
    del plain["sections"]["training"]
    summary, missed = table.table(plain, table.lines_of("summary")), table.missed(plain)
    assert "| times faster than `conv3d` | 499.7 | ≥ 500, **missed** | " in summary
    assert "| times faster than fft-conv-pytorch | not measured | ≥ 4 | " in summary
    assert summary.endswith("|  |  | not measured |  |")
    assert "| Purkinje, forward | `conv3d_over_neuroconv_ratio` | 499.7 | " in missed
    assert "`fft_conv_pytorch_over_neuroconv_ratio` | not measured | " in missed
    text = " ".join(table.run(plain).split())
    assert re.search(r"Missed: .*1 in `purkinje`.*\. Not measured: 1 more\.", text)
    assert "Section `granule` ended: MemoryError: no more." in text


@pytest.mark.parametrize(
    ("value", "decimals", "bar", "text"),
    [
        (488.72, 1, {"at_least": 500, "met": False}, "489"),
        (2126.17, 1, {"at_least": 300, "met": True}, "2,126"),
        (4.0046, 1, {"at_least": 4, "met": True}, "4.0"),
        (3.9996, 1, {"at_least": 4, "met": False}, "3.9996"),
        (1.504, 2, {"at_most": 1.5, "met": False}, "1.504"),
        (21.05, 1, {}, "21.1"),
        (4.22e-7, 2, {"at_most": 1e-5, "met": True}, "4.2e-07"),
        (1.004e-5, 2, {"at_most": 1e-5, "met": False}, "1.004e-05"),
        (None, 2, {"at_least": 4}, "not measured"),
    ],
)
def test_rounding_carries_no_number_over_its_bar(
    value: float | None, decimals: int, bar: dict[str, Any], text: str
) -> None:
    assert table.number({"value": value, **bar}, decimals) == text


def test_ranges_and_mistakes_of_pages() -> None:
    pairs = ((2.05, {"met": False}), (1.2, {"met": True}), (None, {}))
    values = [{"value": value, "at_most": 1.5, **met} for value, met in pairs]
    assert table.cells(values, 2) == ("1.20 to 2.05", "≤ 1.5, **1 of 3 missed**, 1 not measured")
    with pytest.raises(ValueError, match=r"the page has the blocks \[\]; expected \['run'\]"):
        table.filled("no block", ["run"], RESULT)
    quick = {**RESULT, "settings": {"quick": True}}
    with pytest.raises(ValueError, match="the record is of --quick"):
        table.filled("<!-- bench: run -->\n<!-- end -->", ["run"], quick)
