import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuroconv.comparison import count_flops
from neuroconv.data import load_data
from neuroconv.report.plots import plot_curves
from neuroconv.training import (
    CheckpointError,
    Config,
    ConfigError,
    DataConfig,
    ModelResult,
    RunError,
    TrainConfig,
    compare,
    evaluate,
    linear_baseline,
    load_config,
    mean_interval,
    resume,
    run,
    train_seeds,
)

NEVER = "nothing should be trained here"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        model={"name": "linear"},
        data=DataConfig(name="digits", encoding="none", train_limit=300),
        train=TrainConfig(
            epochs=2, learning_rate=0.1, batch_size=50, output=str(tmp_path / "runs"), device="cpu"
        ),
    )


def interrupt_after_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(bar: Any, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroconv.training.loop.TrainingBar.epoch", stop)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError(NEVER)

    monkeypatch.setattr("neuroconv.training.runs.train", fail)


def test_a_run_is_a_folder_that_rebuilds_its_model(config: Config) -> None:
    result = run(config, seed=7, progress=False)
    folder = result.run_dir
    assert folder.parent == Path(config.train.output)
    assert folder.name.startswith("linear-")
    assert folder.name.endswith("-seed7")
    assert {path.name for path in folder.iterdir()} == {
        "config.toml", "metrics.jsonl", "best.safetensors", "last.safetensors", "environment.json",
        "result.json", "curves.png",
    }  # fmt: skip
    saved = load_config(folder / "config.toml")
    assert saved.model == {
        "name": "linear", "image_shape": (1, 8, 8), "num_classes": 10, "time_steps": 1
    }  # fmt: skip
    assert saved.train == replace(config.train, seeds=(7,))
    assert result.parameters == 64 * 10 + 10
    assert result.test_images == 360
    assert result.test_accuracy > 0.7
    assert result.steps == 2 * 6
    assert result.peak_memory_mib > 1
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["packages"]["torch"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    assert resume(folder) == result  # a finished run is read
    test, val = evaluate(folder), evaluate(folder, "val")
    assert (test.loss, test.accuracy) == (result.test_loss, result.test_accuracy)
    assert (val.loss, val.accuracy) == (result.val_loss, result.val_accuracy)
    with pytest.raises(RunError, match="split = 'train'"):
        evaluate(folder, "train")

    weights = bytearray((folder / "best.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "best.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: damaged"):
        evaluate(folder)


def test_an_interrupted_run_is_resumed_to_the_same_bits(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config, seed=1, run_dir=tmp_path / "whole", progress=False)
    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt, match=f"neuroconv resume {cut}"):
            run(config, seed=1, run_dir=cut, progress=False)
    with pytest.raises(RunError, match="is not finished: `neuroconv resume"):
        evaluate(cut)
    with pytest.raises(RunError, match="is not empty"):
        run(config, seed=1, run_dir=cut, progress=False)
    continued = resume(cut, progress=False)
    assert continued.test_loss == whole.test_loss
    for file in ("best.safetensors", "last.safetensors"):
        assert (cut / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    for call in (resume, evaluate):
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(RunError, match="is not a run"):
                call(folder)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"num_classes": 7}, r"num_classes = 7: the data set 'digits'.* gives 10"),
        ({"image_shape": (3, 8, 8)}, r"image_shape = \(3, 8, 8\)"),
        ({"time_steps": 5}, "time_steps = 5: .* gives 1"),
        ({"wdith": 3}, r"\[model\] name = 'linear'.*wdith"),
        ({"name": "liner"}, "liner"),
    ],
)
def test_a_model_that_does_not_fit_leaves_no_folder(
    config: Config, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(replace(config, model={**config.model, **model}), seed=0, progress=False)
    assert not Path(config.train.output).exists()


def test_a_device_that_is_not_there_leaves_no_folder(config: Config) -> None:
    with pytest.raises(ConfigError, match="device = 'abacus'"):
        run(replace(config, train=replace(config.train, device="abacus")), seed=0, progress=False)
    assert not Path(config.train.output).exists()


def test_one_run_for_each_seed(config: Config) -> None:
    config = replace(config, train=replace(config.train, seeds=(0, 1), max_steps=1))
    results = train_seeds(config, progress=False)
    assert [result.seed for result in results] == [0, 1]
    assert results[0].test_loss != results[1].test_loss
    assert len(list(Path(config.train.output).iterdir())) == 2


def test_comparison(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(
        config,
        train=replace(config.train, seeds=(0, 1)),
        opponents=(
            {"name": "mlp"},
            {"name": "linear", "label": "frames", "encoding": "repeat", "time_steps": 2},
        ),
    )
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            compare(config, progress=False)
    output = Path(config.train.output)
    assert len(list(output.iterdir())) == 1
    results = compare(config, progress=False)
    assert len(list(output.iterdir())) == 6  # the interrupted one was resumed
    assert [result.label for result in results] == ["linear", "mlp", "frames"]
    assert [result.name for result in results] == ["linear", "mlp", "linear"]
    assert results[2].model["time_steps"] == 2
    assert load_config(results[2].runs[0].run_dir / "config.toml").data.encoding == "repeat"
    assert results[0].difference is None
    for result in results:
        own = [each.test_accuracy for each in result.runs]
        assert [each.seed for each in result.runs] == [0, 1]
        assert result.accuracy == mean_interval(own)
        assert result.seconds_per_epoch > 0
        if result.difference is not None:
            first = [each.test_accuracy for each in results[0].runs]
            assert result.difference.mean == pytest.approx(sum(own) / 2 - sum(first) / 2, abs=1e-12)

    forbid_training(monkeypatch)
    assert compare(config, progress=False) == results
    with pytest.raises(AssertionError, match=NEVER):  # another budget is another run
        compare(replace(config, train=replace(config.train, epochs=3)), progress=False)


def test_an_opponent_is_matched_to_the_first_models_parameters(config: Config) -> None:
    config = replace(
        config,
        train=replace(config.train, max_steps=1),
        opponents=({"name": "mlp", "match": "parameters", "label": "equal"},),
    )
    first, equal = compare(config, progress=False)
    assert equal.label == "equal"
    assert abs(equal.parameters - first.parameters) < 0.1 * first.parameters
    assert "match" not in equal.model


def test_an_opponent_is_matched_to_the_first_models_flops(config: Config) -> None:
    config = replace(
        config,
        train=replace(config.train, max_steps=1),
        opponents=({"name": "mlp", "match": "flops"}, {"name": "mlp", "label": "wider"}),
    )
    first, equal, _ = compare(config, progress=False)
    target, found = (count_flops(each.name, **_keywords(each)) for each in (first, equal))
    wider = {**_keywords(equal), "width": equal.model["width"] + 1}
    assert found <= target < count_flops("mlp", **wider)
    assert "match" not in equal.model


def _keywords(result: ModelResult) -> dict[str, Any]:
    return {key: value for key, value in result.model.items() if key != "name"}


def test_models_of_a_comparison_need_labels_of_their_own(config: Config) -> None:
    with pytest.raises(ConfigError, match="two models are called 'linear'"):
        compare(replace(config, opponents=({"name": "linear"},)), progress=False)


def test_mean_and_interval() -> None:
    estimate = mean_interval([1.0, 2.0, 3.0])
    assert estimate.mean == 2
    # 4.30265 is the 97.5 % point of Student's t with two degrees of freedom; the deviation is 1.
    assert estimate.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert mean_interval([0.5]).half_width is None
    with pytest.raises(ValueError, match="one or more"):
        mean_interval([])


def test_linear_baseline_on_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = load_data("digits", encoding="none")
    full = linear_baseline(splits)
    assert 0.94 < full < 0.99
    monkeypatch.setattr("neuroconv.training.linear.LARGEST", 100)
    assert 0.8 < linear_baseline(splits) < full
    with pytest.raises(ValueError, match='encoding="none"'):
        linear_baseline(load_data("digits", encoding="repeat"))


def test_curves_of_several_runs(tmp_path: Path) -> None:
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    history = [{"epoch": n, **dict.fromkeys(keys, 1 / n)} for n in (1, 2, 3)]
    plot_curves({"a": history, "b": history[:1]}, tmp_path / "curves.svg")
    picture = (tmp_path / "curves.svg").read_text()
    assert picture.lstrip().startswith("<?xml")
