"""The one-pass streams of experiments/local_learning: what arrives, and learners in closed form."""

import json
import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian

from tests.scripts import loaded

streams = loaded(Path(__file__).parents[1] / "experiments" / "local_learning" / "streams.py")
tasks, learners = sys.modules["stream_tasks"], sys.modules["stream_learners"]
IDENTITY = nn.Identity()
SHAPE = learners.Shape(9, 2, 2, (3, 4), 1.0, 4, IDENTITY)


class Recorder:
    """Predicts zeros, and keeps what it is shown; a `Shape` that builds itself."""

    parameters, signals, outputs, variables = 0, None, 10, None

    def build(self, *_: Any) -> "Recorder":
        self.shown: list[Tensor] = []
        return self

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        self.shown.append(inputs)
        return torch.zeros(len(inputs), 2)

    def predict(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), 2)


def lagrangian(angles: Tensor, velocities: Tensor) -> Tensor:
    """Kinetic less potential energy, from where the rods' points are in the plane."""
    masses, lengths = torch.tensor([tasks.MASSES, tasks.LENGTHS], dtype=angles.dtype)
    turns, rates = angles.cumsum(0), velocities.cumsum(0)
    rods = lengths * torch.stack([turns.cos(), turns.sin()])  # (2, rods), and how their ends move
    moves = lengths * rates * torch.stack([-turns.sin(), turns.cos()])
    centres, speeds = (ends.cumsum(1) - ends / 2 for ends in (rods, moves))
    kinetic = (speeds.square().sum(0) + lengths**2 / 12 * rates**2) / 2
    return (masses * (kinetic - tasks.GRAVITY * centres[1])).sum()


def test_the_torques_are_those_of_the_lagrangian_and_motions_are_derivatives() -> None:
    motion = tasks.trajectory(0, 1000)
    few = [values[:4] for values in motion]
    for q, v, a, torque in zip(*few, tasks.torques(*few), strict=True):
        _, (by_angle, by_velocity) = hessian(lagrangian, (q, v))
        expected = by_angle @ v + by_velocity @ a - jacobian(lagrangian, (q, v))[0]
        torch.testing.assert_close(torque, expected)
    for values, slopes in pairwise(motion):
        difference = (values[2:] - values[:-2]) * 10  # 20 a second
        assert (difference - slopes[1:-1]).abs().max() < 0.03 * slopes.abs().max()


def shown_in_batches(learner: Any, inputs: Tensor, targets: Tensor) -> Any:
    for batch in zip(inputs.split(7), targets.split(7), strict=True):
        learner(*batch)
    return learner


def test_class_means_discriminant_analysis_and_ridge_are_those_of_all_samples_at_once() -> None:
    (inputs, labels), (unseen, _), _ = tasks.images("digits", None)
    rows, others = inputs.double(), unseen.double()
    nearest = shown_in_batches(learners.ClassMeans(64, 10, 0.0, IDENTITY), inputs, labels)
    expected = NearestCentroid().fit(rows, labels).predict(others)
    assert nearest.predict(unseen).argmax(1).tolist() == expected.tolist()
    for shrinkage in (0.01, 0.3):
        learner = learners.ClassMeans(64, 10, shrinkage, IDENTITY)
        logits = shown_in_batches(learner, inputs, labels).predict(unseen)
        reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
        expected = torch.from_numpy(reference.fit(rows, labels).decision_function(others))
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    targets = nn.functional.one_hot(labels).double()
    ridge = shown_in_batches(learners.Ridge(64, 10, 2.0, IDENTITY), inputs, targets)
    rows = nn.functional.pad(rows, (0, 1), value=1.0)
    gram = rows.t() @ rows + 2 * torch.eye(65)
    torch.testing.assert_close(ridge.weight, torch.linalg.solve(gram, rows.t() @ targets))


@pytest.mark.parametrize("variant", ["", ", replay 3", ", classes mixed"])
def test_a_day_shows_each_image_once_and_a_night_those_kept(variant: str) -> None:
    inputs, labels = torch.arange(200.0).unsqueeze(1), torch.arange(200) % 10
    shape = Recorder()
    task = tasks.Classes(shape, [(inputs, labels)] * 3, batch=4, per_class=15, replay=[3])
    row, shown = task.run(f"perceptron{variant}", ("sgd", 0.1), 0), torch.cat(shape.shown).flatten()
    parts = shown.long().unflatten(0, (10, -1))
    days, nights = parts[:, :15], parts[:, 15:]
    assert len(set(days.flatten().tolist())) == 150
    assert all(len(set((day % 10).tolist())) == 1 for day in days) == ("mixed" not in variant)
    assert (row["stored"], nights.numel()) == ((30, 150) if "replay" in variant else (0, 0))
    for n, images in enumerate(map(set, nights.tolist()), 1):
        assert len(images) <= 3 * n
        assert images <= {*days[:n].flatten().tolist()}


def test_an_error_is_taken_before_learning_and_each_sample_comes_once() -> None:
    shape, stream = Recorder(), (torch.arange(50.0).unsqueeze(1), torch.randn(50, 2))
    row = tasks.Regression(lambda seed: [stream, stream], shape, 7).run("delta rule", ("sgd", 1), 0)
    assert torch.equal(torch.cat(shape.shown), stream[0])
    assert row["curve"][0] == pytest.approx(tasks.nmse(torch.zeros(5, 2), stream[1][:5]))


def test_speech_asks_for_the_column_that_follows(tmp_path: Path) -> None:
    digits, speakers = np.arange(200) % 10, np.array(["a", "b"]).repeat(100)
    spans = {"start": 24 * np.arange(200), "length": np.full(200, 24)}
    logmel = np.random.default_rng(0).normal(size=(200 * 24, 40))
    file = tmp_path / "fsdd_logmel40.npz"
    np.savez(file, logmel=logmel, digit=digits, speaker=speakers, **spans)
    (inputs, targets), (unseen, _) = tasks.speech(0, False, str(tmp_path))
    assert inputs.shape == (90 * 8, 160)  # twelve columns a recording, the first four to begin
    assert len(unseen) == 100 * 8
    inputs, targets = inputs.unflatten(0, (90, 8)), targets.unflatten(0, (90, 8))
    assert torch.equal(inputs[:, 1:, -40:], targets[:, :-1])


def test_switched_parameters_begin_as_the_network_and_follow_their_task() -> None:
    network, images = tasks.Switch([[(torch.zeros(1, 9),)]], 4, 1).mlp(4), torch.randn(3, 9)
    for per, size in (("", 0), ("unit", 2 * 2 * 18), ("layer", 2 * 2 * 3)):
        switched = tasks.Switched(network, per)
        torch.testing.assert_close(switched(images, 1), network(images[:, None, None]))
        extra = [*switched.scales, *switched.shifts]
        assert sum(parameter.numel() for parameter in extra) == size
        for parameter in extra:
            parameter.data[0] += 1
        torch.testing.assert_close(switched(images, 1), network(images[:, None, None]))
        assert torch.equal(switched(images, 0), switched(images, 1)) == (per == "")


def test_unseen_classes_have_no_error_few_granule_cells_fire_and_seeds_draw_feedback() -> None:
    error = learners.SeenSoftmax(4)(torch.randn(2, 4), torch.tensor([1, 3]))
    assert error[:, [0, 2]].abs().max() == 0
    code = learners.SparseCode(20, 50, 4, 0)
    rates = code(torch.randn(6, 20))
    assert ((rates > rates.amin(1, True) + 1e-6).sum(1) == 5).all()
    assert ((code.weight != 0).sum(1) == 4).all()
    setting = "mlp", "direct_feedback", "fibres", ("sgd", 0.1)
    first, second = (SHAPE.build(*setting, seed).rule.feedback[0] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_trial_that_diverged_loses_and_an_edge_of_the_grid_is_marked() -> None:
    trials, key = {1e-3: 0.3, 1e-2: 0.2, 1e-1: np.nan}, {"learner": "a", "seed": tasks.TUNING}
    rows = [key | {"setting": ["sgd", rate], "score": score} for rate, score in trials.items()]
    shown = [streams.described(rows[:count], "a") for count in (1, 2, 3)]
    assert shown == ["sgd 0.001", "sgd 0.01 (edge)", "sgd 0.01"]


def test_two_tasks_of_an_image_count_once_and_outputs_that_diverged_are_wrong() -> None:
    right, labels, parts = torch.eye(2), torch.arange(2), [(torch.randn(5, 9), torch.arange(5))] * 3
    row = tasks.judged((right, labels), (right / torch.tensor([[0.0], [1]]), labels))
    assert (streams.wrong(row).tolist(), row["score"]) == ([0.5, 0], 0.25)
    row = tasks.Switch([parts, parts], 4, 2, 1).run("a network each", ("sgd", 0.1), 0)
    assert streams.wrong(row).shape == (5,)
    assert streams.wrong(row).mean() == pytest.approx(row["score"])


def test_the_table_has_a_comparison_for_each_threshold_of_the_page() -> None:
    classes = tasks.Classes(SHAPE, [], 1, 1, [20]).grids
    for task, names, reference in (
        ("arm", tasks.REGRESSION, "the last sample"),
        ("classes", classes, "nearest class mean"),
        ("switch", tasks.SWITCHES, "a network each"),
    ):
        pairs = streams.pairs(names, task)
        assert {(name, reference) for name in names if name != reference} <= {*pairs}
    for name, variant in product(tasks.NETWORKS, ("", ", replay 20")):
        assert (name + variant, f"{name}, classes mixed") in streams.pairs(classes, "classes")
    assert ("delta rule, sparse code", tasks.CELLS) in streams.pairs(tasks.REGRESSION, "arm")


def test_a_record_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = torch.randn(40, 9), torch.randn(40, 2)
    task = tasks.Regression(lambda seed: [stream, stream], SHAPE, 4)
    names = (tasks.CELLS, "MLP, backpropagation", "the last sample")
    task.grids = {name: task.grids[name] for name in names}
    monkeypatch.setattr(streams, "make_task", lambda options: task)
    options = streams.parsed(["arm", str(tmp_path / "out.json"), "--quick"])
    streams.record(options)
    whole = json.loads(options.out.read_text())
    assert {"versions", "threads", "options"} <= whole.keys()
    options.out.write_text(json.dumps({**whole, "rows": whole["rows"][:5]}))
    rows, again = (
        [row | {"core_seconds": 0} for row in w["rows"]] for w in (whole, streams.record(options))
    )
    assert rows == again
    assert streams.table(whole).count("\n|") == 4 + 5  # three learners, and three pairs of them
    with pytest.raises(SystemExit, match="another file"):
        streams.record(streams.parsed(["arm", str(options.out)]))
