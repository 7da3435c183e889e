"""`neuroconv bench` as a user meets it, in small."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.bench import (
    CUDA_SECTIONS,
    SECTIONS,
    BenchReport,
    Figure,
    Row,
    Turns,
    run_bench,
    section_names,
    section_table,
    verdict,
)
from neuroconv.bench import kernels as kernels_module
from neuroconv.bench import run as run_module
from neuroconv.bench.auto import SHAPES
from neuroconv.bench.growth import BARS, CELLS
from neuroconv.report.growth import plot_growth
from tests.commands import Call


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchReport, dict[str, Any]]:
    """Every section, in small, on the CPU."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    names = (*SECTIONS, *CUDA_SECTIONS)
    report = run_bench("cpu", only=names, quick=True, json_file=file)
    return report, json.loads(file.read_text())


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, float) else []


def test_every_section_runs(quick: tuple[BenchReport, dict[str, Any]]) -> None:
    report, _ = quick
    assert report.failed == {}
    assert list(report.sections) == [*SECTIONS, *CUDA_SECTIONS]
    for name, section in report.sections.items():
        assert section.state == "complete"
        assert section.rows, name
        if name != "scaling":
            assert any(row.figures for row in section.rows), name
            for row in section.rows:
                for figure in row.figures:
                    assert figure.value is not None or "fft" in figure.text, (name, figure)


def test_the_file_is_the_report(quick: tuple[BenchReport, dict[str, Any]]) -> None:
    report, written = quick
    assert written == json.loads(json.dumps(report.to_dict()))
    assert set(written) == {"hardware", "versions", "settings", "bars", "sections", "seconds"}
    assert written["hardware"]["threads"] == torch.get_num_threads()
    assert written["hardware"]["memory_bytes"] > 2**28
    assert written["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert written["settings"]["quick"] is True
    assert len(numbers(written)) > 300
    for section in written["sections"].values():
        for row in section["rows"]:
            for outcome in row["times"].values():
                assert "not_measured" in outcome or outcome["seconds"] > 0


def test_quick_judges_nothing(quick: tuple[BenchReport, dict[str, Any]]) -> None:
    report, written = quick
    assert written["bars"] == []
    assert verdict(report) == "quick: small shapes and few repeats; no bar was judged"


def test_every_bar_of_a_full_run_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small shapes again, judged: every comparison has the bar that it is held to."""
    monkeypatch.setattr(Row, "unjudged", lambda row: row)
    report = run_bench("cpu", only=("purkinje", "granule", "image_layer", "auto"), quick=True)
    limits = [(bar["section"], bar.get("at_least", bar.get("at_most"))) for bar in report.bars]
    for wanted in (
        *[("purkinje", bar) for bar in (500, 4, 2, 300, 3, 4, 1e-5)],
        *[("granule", 5)] * 4,
        *[("image_layer", 1.5)] * 2,
        *[("auto", bar) for bar in (1.2, 1.5, 1.2, 1.5)],
    ):
        limits.remove(wanted)
    assert limits == [("purkinje", 4)]  # memory is judged both ways
    assert {"accuracy", "growth", "training"} <= set(SECTIONS)


def test_bars_are_counted_and_named() -> None:
    report = BenchReport({}, {}, {"quick": False})
    rows = [
        Row("one", figures=[Figure("a_ratio", "a", 2.0, at_least=1.0), Figure("b_ratio", "b", 2)]),
        Row("two", figures=[Figure("c_ratio", "c", 2.0, 1.9, 2.1, at_most=1.0)]),
        Row("three", figures=[Figure("d_ratio", "d", None, at_most=1.0)]),
    ]
    report.sections["s"] = run_module.SectionRecord(rows, "complete", 1.0)
    assert verdict(report).splitlines() == [
        "1 of 2 bars met", "  missed: two: c_ratio = 2", "  not measured: three: d_ratio"
    ]  # fmt: skip
    assert [bar.get("met") for bar in report.bars] == [True, False, None]
    assert section_table("s", report).row_count == 3
    assert rows[1].unjudged().figures[0].met is None


def test_the_forty_shapes_are_varied() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 40
    assert {shape.mode for shape in SHAPES} == {"same", "valid", "per_dendrite"}
    assert {1, 256} <= {shape.batch for shape in SHAPES}
    assert {1, 4096} <= {shape.neurons for shape in SHAPES}
    points = [shape.sheet[1] * shape.sheet[2] for shape in SHAPES]
    assert (min(points), max(points)) == (16, 100_000)
    for shape in SHAPES:
        assert shape.batch * shape.neurons * shape.sheet[0] * shape.sheet[1] * shape.sheet[2] <= 4e7


def test_growth_spans_a_factor_of_sixteen() -> None:
    for cell in CELLS.values():
        assert list(cell.axes) == list(BARS)
        for _, points in cell.axes.values():
            assert points[-1] >= 16 * points[0]
            assert len(points) >= 5


def test_growth_is_drawn(quick: tuple[BenchReport, dict[str, Any]], tmp_path: Path) -> None:
    report, _ = quick
    assert len(report.growth) == 2 * 5 * 2
    figure = plot_growth(report.growth)
    assert len(figure.axes) == 4
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axis in BARS:
        assert sum(text.startswith(axis.replace("_", " ")) for text in texts) == 4
    for line in report.growth:
        named = f"{line['exponent']:.2f} ± {line['exponent_standard_error']:.2f}"
        assert any(named in text for text in texts)
    figure.savefig(tmp_path / "growth.svg")
    with pytest.raises(ValueError, match="lines is empty"):
        plot_growth([])


def test_without_fft_conv_the_comparison_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_module, "find_spec", lambda _: None)
    report = run_bench("cpu", only=("purkinje", "purkinje_population"), quick=True)
    assert report.failed == {}
    for name, variant in (("purkinje", 1), ("purkinje_population", 0)):
        row = report.sections[name].rows[variant].to_dict()
        reason = row["times"]["fft_conv_pytorch"]["not_measured"]
        assert reason.startswith("fft-conv-pytorch is not installed, and is left out; pip install")
        assert "seconds" in row["times"]["conv3d"]
    figures = report.sections["purkinje"].rows[1].to_dict()["figures"]
    assert figures["fft_conv_pytorch_over_neuroconv_ratio"] == {"value": None}
    assert figures["conv3d_over_neuroconv_ratio"]["value"] > 0


def test_a_section_that_fails_is_recorded_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"

    def fails(bench: object) -> Any:
        yield Row("first", times={"a": Turns((1.0,), 1)})
        assert not file.exists()
        raise RuntimeError("no memory\nleft")

    def watches(bench: object) -> Any:
        written = json.loads(file.read_text())  # after the section before, and whole
        assert written["sections"]["purkinje"]["state"] == "RuntimeError: no memory"
        yield Row("second")

    monkeypatch.setitem(run_module.SECTIONS, "purkinje", fails)
    monkeypatch.setitem(run_module.SECTIONS, "granule", watches)
    report = run_bench("cpu", only=("granule", "purkinje"), json_file=file)
    assert report.failed == {"purkinje": "RuntimeError: no memory"}
    assert report.sections["granule"].state == "complete"
    rows = json.loads(file.read_text())["sections"]["purkinje"]["rows"]
    assert rows[0]["times"]["a"]["seconds"] == 1.0


def test_sections_by_device() -> None:
    assert section_names("cpu") == tuple(SECTIONS)
    assert section_names("cuda") == (*SECTIONS, *CUDA_SECTIONS)
    assert section_names("cpu", ("real_time", "auto")) == ("auto", "real_time")
    with pytest.raises(ValueError, match=r"unknown section 'speed'; expected some of accuracy, "):
        section_names("cpu", ("speed",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "speed"), "unknown section 'speed'; expected some of accuracy, purkinje,"),
        (("--seconds", "0"), "--seconds 0.0: expected a number above 0"),
        (("--only", "auto", "--plot", "a.svg"), "--plot draws the section growth: add it to"),
        (("--plot", "a.txt"), "--plot a.txt: the ending '.txt' is no picture"),
        (("--data", "absent"), "--data absent: expected a folder that is there"),
    ],
)
def test_mistakes(call: Call, words: tuple[str, ...], message: str) -> None:
    status, out, err = call("bench", *words)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_missing(call: Call) -> None:
    status, _, err = call("bench", "--device", "cuda", "--quick")
    assert status == 2
    assert "'cuda' was asked for, but no CUDA device is available" in err


def test_the_command(call: Call, tmp_path: Path) -> None:
    status, out, err = call(
        "bench", "--quick", "--only", "granule", "growth",
        "--json", tmp_path / "a" / "b.json", "--plot", tmp_path / "growth.png",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "granule dendrites, forward and backward" in out
    assert "exponent in neurons (standard error" in out
    assert "quick: small shapes and few repeats; no bar was judged" in out
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    written = json.loads((tmp_path / "a" / "b.json").read_text())
    assert list(written["sections"]) == ["granule", "growth"]
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.gpu
@pytest.mark.slow
def test_every_section_runs_on_cuda() -> None:
    report = run_bench("cuda", quick=True)
    assert report.failed == {}
    assert list(report.sections) == [*SECTIONS, *CUDA_SECTIONS]
    assert "gpu" in report.hardware
