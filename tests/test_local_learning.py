"""One neuron alone: experiments/local_learning/single_neuron.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroconv.learning import Rule
from neuroconv.zoo import count_parameters
from tests.scripts import loaded

single = loaded(Path(__file__).parent.parent / "experiments/local_learning/single_neuron.py")


def double_cells(name: str, neurons: int) -> Rule:
    rule = single.make_neurons(name, 12, neurons, 4, 6, seed=0)
    rule.model.double()
    return rule


def task(neurons: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    return x, (torch.rand(40, neurons, generator=generator) > 0.5).double()


@pytest.mark.parametrize("name", ["random", "patches", "pair", "point", "quadratic", "mlp"])
def test_neurons_side_by_side_learn_as_if_alone(name: str) -> None:
    """Each has a column of the answers, and no other neuron's error reaches it."""
    sizes = (16, 4, 8) if name == "patches" else (12, 4, 6)
    x, y = torch.randn(40, sizes[0], dtype=torch.float64), task(3)[1]
    together = single.make_neurons(name, sizes[0], 3, *sizes[1:], seed=1)
    alone = [single.make_neurons(name, sizes[0], 1, *sizes[1:], seed=1) for _ in range(3)]
    for rule in (together, *alone):
        rule.model.double()
    for n, rule in enumerate(alone):
        sources = together.model.state_dict()
        for key, value in rule.model.state_dict().items():
            if len(sources[key]) != len(value):
                value.copy_(sources[key].unflatten(0, (3, -1))[n])
        if name == "mlp":
            rule.model.wiring = together.model.wiring.unflatten(0, (3, -1))[n]
        single.train(rule, x, y[:, n : n + 1], epochs=2, batch=20, lr=1e-2, seed=2)
    single.train(together, x, y, epochs=2, batch=20, lr=1e-2, seed=2)
    with torch.no_grad():
        columns = [rule.model(x[:, None, None]) for rule in alone]
        outputs = together.model(x[:, None, None])
    torch.testing.assert_close(torch.cat(columns, 1), outputs, rtol=0, atol=1e-12)


def test_the_climbing_fibre_trains_a_cell_as_backpropagation_does() -> None:
    x, y = task(2)
    trained = [
        single.train(double_cells(name, 2), x, y, epochs=2, batch=20, lr=1e-2, seed=2)
        for name in ("random", "backprop")
    ]
    for local, ceiling in zip(*(rule.trained() for rule in trained), strict=True):
        torch.testing.assert_close(local, ceiling, rtol=0, atol=1e-10)


def test_boolean_functions_are_enumerated() -> None:
    for d in (2, 5):
        rows = single.patterns(d)
        assert len({tuple(row) for row in rows.tolist()}) == len(rows) == 2**d
        assert set(rows.unique().tolist()) == {-1.0, 1.0}
        tables = single.truth_tables(d, 30, seed=3)
        assert tables.sum(0).tolist() == [2 ** (d - 1)] * 30
        assert torch.equal(tables, single.truth_tables(d, 30, seed=3))
    assert len({tuple(column) for column in single.truth_tables(2, 100, 0).t().tolist()}) == 6


def test_two_branches_learn_xor_and_a_point_neuron_never() -> None:
    x = single.patterns(2)
    y = (x.prod(1, keepdim=True) < 0).float().repeat(1, 12)
    learned = {}
    for name in ("random", "quadratic", "point"):
        rule = single.make_neurons(name, 2, 12, 2, 2, seed=0)
        single.train(rule, x, y, epochs=120, batch=4, lr=0.1, seed=0)
        learned[name] = single.right(rule, x, y).all(0).mean()
    assert min(learned["random"], learned["quadratic"]) > 0.2
    assert learned["point"] == 0


def test_entrants_have_equal_parameters() -> None:
    plan = single.Plan()
    for branches, names in plan.even_odd:
        counts = {
            name: count_parameters(single.make_neurons(name, 784, 1, plan.sites, branches, 0).model)
            for name in names
        }
        cell = counts["random"]
        assert cell == plan.sites * branches + branches + 1
        assert all(abs(count - cell) <= 0.02 * cell for count in counts.values()), counts
    assert len(single.SPLITS) == len({*map(frozenset, single.SPLITS)}) == 126


def test_a_record_is_resumed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("random", *single.PRIMARY)
    plan = replace(
        single.QUICK, images=100, even_odd=((12, names),), splits=("patches", *names),
        epochs=(1, 1), inputs=(2,), branches=(2,), functions=3, steps=5, primary=(12, (2, 2)),
    )  # fmt: skip
    file = tmp_path / "record.json"
    monkeypatch.setattr(single, "SPLITS", single.SPLITS[:12])
    monkeypatch.setattr(single, "RATES", single.RATES[:2])
    single.Study(plan, file, None).run()
    monkeypatch.setattr(single, "make_neurons", None)  # nothing is trained again
    study = single.Study(plan, file, None)
    study.run()
    assert [*study.parts] == [*study.keys()]
    assert study.record["missing"] == []
    for group, name in (("even_odd/12", "point"), ("splits/12", "random")):
        recorded = [study.parts[f"{group}/{name}/{seed}"]["accuracy"] for seed in plan.seeds]
        read = single.rights(study.record, group, name)
        assert read.mean(1) == pytest.approx(np.mean(recorded, 1), abs=1e-5)
    assert single.table(study.record).count("\n| boolean/2/2 |") == 4
    single.draw(study.record, tmp_path / "figure.svg")
    assert "sparse MLP" in (tmp_path / "figure.svg").read_text()
    with pytest.raises(ValueError, match="another plan"):
        single.Study(single.QUICK, file, None)
