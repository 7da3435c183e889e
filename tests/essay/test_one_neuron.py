"""One neuron alone: neurons side by side, their tasks, and entrants of equal size."""

from pathlib import Path

import pytest
import torch

from neuroconv.learning import Rule
from neuroconv.zoo import count_parameters
from tests.scripts import loaded

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "one_neuron"
single = loaded(FOLDER / "single_neuron.py")


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
        learned[name] = single.answered(rule, x, y).all(0).mean()
    assert min(learned["random"], learned["quadratic"]) > 0.2
    assert learned["point"] == 0


def test_entrants_have_equal_parameters() -> None:
    size = loaded(FOLDER / "run.py").Size()
    for branches, names in size.even_odd:
        counts = {
            name: count_parameters(single.make_neurons(name, 784, 1, size.sites, branches, 0).model)
            for name in names
        }
        cell = counts["random"]
        assert cell == size.sites * branches + branches + 1
        assert all(abs(count - cell) <= 0.02 * cell for count in counts.values()), counts
    assert len(single.SPLITS) == len({*map(frozenset, single.SPLITS)}) == 126


def test_rows_hold_what_was_right_on_all_splits(tmp_path: Path) -> None:
    run = loaded(FOLDER / "run.py")
    record = run.EXPERIMENT.run("test", tmp_path, progress=False)
    rows = run.Rows(record["values"])
    by_image = run.shares(rows, "splits", 12, "random")
    by_split = rows.values("by_split", task="splits", entrant="random")
    assert by_image.mean(1) == pytest.approx(by_split.mean(1), abs=1e-5)
    assert "| splits | 12 | point neuron |" in run.tables(rows)
