"""Training a model and its opponents on equal terms, and the intervals of their differences."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroconv.comparison import compare, count_flops, estimate, linear_baseline
from neuroconv.data import load_data
from neuroconv.training import ConfigError, load_config
from tests.training.small_runs import forbid_training, interrupt_after_first_epoch, small_config


def test_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {"name": "linear", "label": "frames", "encoding": "repeat", "time_steps": 2}
    config = small_config(tmp_path, seeds=(0, 1), opponents=({"name": "mlp"}, frames))
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        with pytest.raises(KeyboardInterrupt):
            compare(config, progress=False)
    assert len(list(tmp_path.iterdir())) == 1
    results = compare(config, progress=False)
    assert len(list(tmp_path.iterdir())) == 6  # the interrupted one was resumed
    assert [result.label for result in results] == ["linear", "mlp", "frames"]
    assert [result.name for result in results] == ["linear", "mlp", "linear"]
    assert (results[2].model["time_steps"], results[2].data.encoding) == (2, "repeat")
    assert load_config(results[2].runs[0].run_dir / "config.toml").data == results[2].data
    assert results[0].difference is None
    first = [run.test_accuracy for run in results[0].runs]
    for result in results:
        accuracies = [run.test_accuracy for run in result.runs]
        assert [run.seed for run in result.runs] == [0, 1]
        right = np.array([*result.right.values()], float)
        assert right.shape == (2, 360)
        assert right.mean(1) == pytest.approx(accuracies)
        assert result.accuracy == estimate(right)
        assert result.verdict is None or result.verdict in ("better", "worse", "inconclusive")
        if result.difference is not None:
            assert result.difference == estimate(right - np.array([*results[0].right.values()]))
            mean = np.subtract(accuracies, first).mean()
            assert result.difference.mean == pytest.approx(mean)

    forbid_training(monkeypatch)
    assert compare(config, progress=False) == results
    with pytest.raises(AssertionError, match="nothing should be trained"):  # another budget
        compare(replace(config, train=replace(config.train, epochs=3)), progress=False)


def test_an_opponent_is_matched_to_the_first_model(tmp_path: Path) -> None:
    by_parameters = {"name": "mlp", "match": "parameters"}
    by_flops = {"name": "mlp", "match": "flops", "label": "equal FLOPs", "match_rule": "at_most"}
    config = small_config(tmp_path, max_steps=1, opponents=(by_parameters, by_flops))
    first, equal, equal_flops = compare(config, progress=False)
    assert first.matched is None
    assert equal.matched.is_close
    assert equal.matched.ratio == equal.parameters / first.parameters
    wider = {**equal_flops.model, "width": equal_flops.model["width"] + 1}
    flop, target = count_flops(**equal_flops.model), count_flops(**first.model)
    assert flop <= target < count_flops(**wider)


@pytest.mark.parametrize(
    ("opponent", "message"),
    [
        ({"name": "linear"}, "two models are called 'linear'"),
        ({"name": "linear", "label": "twin"}, "'twin' and 'linear' are the same"),
        ({"name": "mlp", "wdth": 3}, "wdth"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(
    tmp_path: Path, opponent: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(small_config(tmp_path, opponents=(opponent,)), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_linear_baseline_on_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = load_data("digits", encoding="none")
    full = linear_baseline(splits)
    assert 0.94 < full < 0.99
    monkeypatch.setattr("neuroconv.comparison.linear.LARGEST", 100)
    assert 0.8 < linear_baseline(splits) < full
    with pytest.raises(ValueError, match='encoding="none"'):
        linear_baseline(load_data("digits", encoding="repeat"))
