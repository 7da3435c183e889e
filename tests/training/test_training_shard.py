"""Models spread over processes, by parameters and by neurons.

That two processes train as one does is in test_training_distributed.py.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import neuroconv
from neuroconv.core import shares
from neuroconv.core.shares import share_of
from neuroconv.neurons import Granule, MixedPopulation
from neuroconv.training import ConfigError, TrainConfig
from neuroconv.training.process_memory import process_memory
from neuroconv.training.sharding import split_neurons, units
from tests.training import processes as work
from tests.training.processes import SPREAD, Processes, assert_close

CEREBELLUM = partial(neuroconv.create_model, "cerebellum_tiny")
CELLS = {
    "granule": {"norm": "both"},
    "golgi": {"wiring": "all_to_all"},
    "purkinje": {
        "synapse": {"factorized": True, "transmitters": 2, "excitatory": 0.5},
        "wiring": "parallel_fibres", "threshold": 3.0, "norm": "both", "norm_over": "step",
    },
    "nuclei": {"wiring": "in_order"},
}  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        partial(CEREBELLUM, **CELLS),
        lambda: MixedPopulation(Granule(20, 16, norm="soma"), Granule(20, 5)),
    ],
)
def test_a_process_builds_or_takes_its_rows_of_the_whole_model(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_BLOCK", 64)

    def seeded(rank: int = 0, size: int = 1) -> nn.Module:
        torch.manual_seed(0)
        with share_of(0, rank, size):
            return build()

    whole, parts = seeded(), [seeded(rank, 4) for rank in range(4)]
    for rank, part in enumerate(parts):
        taken = seeded()
        split_neurons(taken, rank, 4)
        assert repr(taken) == repr(part)
        state = taken.state_dict()
        assert all(torch.equal(state[name], rows) for name, rows in part.state_dict().items())
    for name, tensor in whole.state_dict().items():
        rows = [part.state_dict()[name] for part in parts]
        assert torch.equal(rows[0] if rows[0].shape == tensor.shape else torch.cat(rows), tensor)


def test_one_process_holds_all() -> None:
    model = nn.Linear(2, 2)
    assert neuroconv.shard(model) is model
    assert neuroconv.shard(lambda: model, split="neurons") is model
    with pytest.raises(ValueError, match="split"):
        neuroconv.shard(model, split="rows")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "size", "message"),
    [
        (CEREBELLUM, 5, r"\[256, 4, 16, 12\] neurons: expected one of a multiple of 5"),
        (lambda: nn.Linear(4, 4), 2, r"Linear has populations of \[\] neurons"),
        (lambda: Granule(20, 8, soma={"neurons": 8}), 2, "a soma that neurons share"),
        (lambda: Granule(20, 8, unit_dropout={}), 2, "no draws for each position"),
    ],
)
def test_what_cannot_be_split_says_so(
    build: Callable[[], nn.Module], size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_neurons(build(), 0, size)


@pytest.mark.parametrize("spread", [{"shard": True}, {"split": "neurons"}])
@pytest.mark.parametrize(
    "setting", [{"compile": True}, {"cuda_graph": True}, {"accumulate": "auto"}], ids=str
)
def test_settings_that_a_spread_model_does_not_take(spread: Any, setting: Any) -> None:
    with pytest.raises(ConfigError, match=f"with {next(iter(setting))}.*: expected one of the two"):
        TrainConfig(1, 0.1, **spread, **setting)
    with pytest.raises(ConfigError, match='shard = true with split = "neurons"'):
        TrainConfig(1, 0.1, shard=True, split="neurons")


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREAD.values(), ids=[*SPREAD])
def test_one_two_and_three_processes_resume_a_run_of_two(tmp_path: Path, spread: Any) -> None:
    """The newest checkpoint is damaged for one of them: the one before it is used."""
    keywords = {"epochs": 3, "batch_size": 24, "images": 72, **spread}
    whole = work.train_alone(**keywords)
    with Processes(2, tmp_path) as two:
        cut = two.outcomes(work.train_digits, run_dir=tmp_path / "2", fail_in=2, **keywords)
        assert all("power cut" in error for good, error in cut if not good)
        for number in "13":
            shutil.copytree(tmp_path / "2", tmp_path / number)
        keywords["resume"] = True
        assert_close(whole, two.call(work.train_spread, run_dir=tmp_path / "2", **keywords)[0])
    newest = max((tmp_path / "1/checkpoints").glob("epoch-*/"))
    damaged = next(newest.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"damaged.")
    with pytest.warns(UserWarning, match="damaged.*before it is used"):
        result = work.train_spread(run_dir=tmp_path / "1", **keywords)
    assert_close(whole, result)
    with Processes(3, tmp_path / "3") as three:
        assert_close(whole, three.call(work.train_spread, run_dir=tmp_path / "3", **keywords)[0])


def test_the_memory_of_a_process_is_counted_before_it_is_allocated() -> None:
    def build() -> tuple[nn.Module, torch.Tensor]:
        return CEREBELLUM(), torch.rand(2, 1, 8, 8)

    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    whole, split, sharded = (
        process_memory(build, 1), process_memory(build, 4, "neurons"), process_memory(build, 4),
    )  # fmt: skip
    with share_of(0, 0, 4):
        part = CEREBELLUM()
    for model, counted in ((CEREBELLUM(), whole), (part, split)):
        parameters = size(model.parameters())
        assert counted[:4] == (parameters, parameters, 2 * parameters, size(model.buffers()))
        assert counted.gathered == 0
    assert 0 < split.activations < whole.activations / 2
    assert sharded[:4] == (*(-(-number // 4) for number in whole[:3]), whole.buffers)
    largest = sorted((size(unit.parameters()) for unit in units(CEREBELLUM())), reverse=True)
    assert sharded.gathered == 2 * largest[0] + largest[1]
    with pytest.raises(ValueError, match="no population that 5 can share"):
        process_memory(build, 5, "neurons")
