"""Two processes on the CPU against one with the same batch, in float64.

The two add up the same numbers in another order. In float64 that moves the last bits, about 1e-16
of a number; steps of AdamW, which divides by small square roots, make at most 1e-9 of it.
"""

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuroconv.layers.step_norm import StepBatchNorm
from neuroconv.training import (
    CheckpointError,
    Config,
    ConfigError,
    Ranks,
    RunResult,
    TrainConfig,
    resume,
    run,
)
from neuroconv.training.distributed import check_device
from neuroconv.training.sync_norm import SharedBatchNorm, synchronised_norms
from neuroconv.zoo import create_model
from tests.faults.harness import ENVIRONMENT, PROJECT
from tests.faults.test_faults_torchrun import ended
from tests.training import processes as work
from tests.training.drift import NETWORKS, OPTIMIZERS, drift
from tests.training.processes import Processes, assert_close
from tests.training.small_runs import small_config


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(2, tmp_path_factory.mktemp("two")) as processes:
        yield processes


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    same = all(torch.equal(first["weights"][k], second["weights"][k]) for k in first["weights"])
    return same and first["result"] == second["result"]


# --- training


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        pytest.param(*case, marks=pytest.mark.slow if number else ())
        for number, case in enumerate(itertools.product(NETWORKS, OPTIMIZERS))
    ],
)
def test_two_processes_are_one_after_50_steps(two: Processes, network: str, optimizer: str) -> None:
    tolerance = {"sgd": 1e-12, "adamw": 1e-9}[optimizer]
    assert max(drift(two, network, optimizer, torch.float64)) < tolerance


@pytest.mark.parametrize(
    "keywords",
    [
        {"accumulate": 2, "images": 19},  # data smaller than a batch, in uneven parts
        {"network": "cerebellum_tiny"},
        {"network": "plain_cnn", "channels_last": True},
    ],
    ids=str,
)
def test_two_processes_train_as_one(two: Processes, keywords: dict[str, Any]) -> None:
    alone = work.train_digits(**keywords)
    first, second = two.call(work.train_digits, **keywords)
    assert alone["result"]["steps"] == 2 * (1 if "images" in keywords else 3)
    assert alone["result"]["val"]["images"] == 37  # 32 and 5, in parts of 16, 16, 2 and 3
    assert alone["result"]["test"]["images"] == 1  # which leaves one process without an image
    assert_close(alone, first)
    assert equal(first, second)


def test_two_processes_fit_a_line_as_one_and_end_by_the_first_ones_callback(two: Processes) -> None:
    """45 samples in parts of 11 and 12; validation in batches of 32 and 1."""
    keywords = {"accumulate": 2, "epochs": 5, "test": True}
    alone = work.train_regression(**keywords)
    first, second = two.call(work.train_regression, **keywords)
    assert_close(alone, first)
    assert equal(first, second)
    stopped = two.outcomes(work.train_regression, callback=work.refuse, **keywords)
    assert [good for good, _ in stopped] == [False, False]
    assert all("no more room for curves" in error for _, error in stopped)


def test_two_processes_put_their_answers_into_the_order_of_the_data(two: Processes) -> None:
    """Batches of 5, 5, 5 and 1: parts of unequal size, and a process without one."""
    alone = work.answers(16, batch_size=5)
    assert len({*alone}) > 3
    assert two.call(work.answers, 16, batch_size=5) == [alone, alone]


@pytest.mark.parametrize("spread", work.SPREAD.values(), ids=[*work.SPREAD])
def test_two_processes_train_a_spread_model_as_one(
    two: Processes, tmp_path: Path, spread: Any
) -> None:
    """The scores of a last batch of one image are among the results."""
    keywords = {**spread, "accumulate": 2, "images": 48, "epochs": 1}
    first, second = two.call(work.train_spread, run_dir=tmp_path / "run", **keywords)
    assert_close(work.train_alone(**keywords), first)
    assert first["result"] == second["result"]


@pytest.mark.slow
def test_two_processes_train_a_compiled_model(two: Processes) -> None:
    first, second = two.call(work.train_compiled, accumulate=2)
    assert_close(work.train_digits(accumulate=2), first)
    assert equal(first, second)


def test_an_interrupted_run_is_resumed_to_the_bit(two: Processes, tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"mean_wait": 0.5, "epochs": 3}  # with draws of dropout
    whole, _ = two.call(work.train_digits, run_dir=tmp_path / "whole", **keywords)
    cut = two.outcomes(work.train_digits, run_dir=tmp_path / "cut", fail_in=1, **keywords)
    assert all("power cut" in error for good, error in cut if not good)
    assert [good for good, _ in cut] == [False, False]
    continued = two.call(work.train_digits, run_dir=tmp_path / "cut", resume=True, **keywords)
    assert all(equal(whole, result) for result in continued)
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_run_goes_on_with_another_number_of_processes_by_force(
    two: Processes, tmp_path: Path
) -> None:
    whole, again = work.train_digits(epochs=3), {"resume": True, "epochs": 3}
    two.outcomes(work.train_digits, run_dir=tmp_path / "a", fail_in=1, epochs=3)
    with pytest.raises(CheckpointError, match="number of processes = 2, now 1"):
        work.train_digits(run_dir=tmp_path / "a", **again)
    assert_close(whole, work.train_digits(run_dir=tmp_path / "a", force=True, **again))
    with pytest.raises(RuntimeError, match="power cut"):
        work.train_digits(run_dir=tmp_path / "b", fail_in=1, epochs=3)
    continued = two.call(work.train_digits, run_dir=tmp_path / "b", force=True, **again)
    assert_close(whole, continued[0])


def test_draws_differ_between_processes_and_are_a_function_of_the_seed(two: Processes) -> None:
    first, second = two.call(work.draws, 0)
    assert len(first) == len(second) == 2 * 2
    assert len({*first, *second}) == 2 * 2 * 2
    assert two.call(work.draws, 0) == [first, second]
    assert two.call(work.draws, 1) != [first, second]


# --- runs


def _run(config: Config, folder: str | None) -> tuple[RunResult, str]:
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        result = run(config, seed=0, run_dir=folder, progress=True)
    return result, shown.getvalue()


def world(folder: Path) -> tuple[int, str | None]:
    environment = json.loads((folder / "environment.json").read_text())
    return environment["world_size"], environment["backend"]


def _resume(folder: str) -> float:
    return resume(folder, progress=False).test_loss


def test_a_run_has_one_folder_and_one_result(two: Processes, tmp_path: Path) -> None:
    config = small_config(tmp_path / "runs", max_steps=2)
    (first, shown), (second, nothing) = two.call(_run, config, None)
    assert first == second
    assert (shown.count("epoch 1/2"), nothing) == (1, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder == first.run_dir
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    assert world(folder) == (2, "gloo")
    assert two.call(_resume, folder) == [first.test_loss] * 2  # a finished one is read
    # In float32: a batch of its own in each process would differ by percents.
    alone = run(config, seed=0, run_dir=tmp_path / "alone", progress=False)
    assert first.test_loss == pytest.approx(alone.test_loss, rel=1e-3)
    assert world(tmp_path / "alone") == (1, None)
    taken = two.outcomes(_run, config, str(folder))  # an error of rank 0 is that of all
    assert [good for good, _ in taken] == [False, False]
    assert all("is not empty" in error for _, error in taken)


# --- the parts


def test_shares_are_the_batch() -> None:
    for size in (1, 2, 3, 7):
        for length in (0, 1, 6, 16):
            shares = [Ranks(rank, size).share(list(range(length))) for rank in range(size)]
            assert list(itertools.chain(*shares)) == list(range(length))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_that_the_processes_do_not_divide() -> None:
    def check(size: int, images: int, accumulate: int) -> None:
        settings = TrainConfig(1, 0.1, batch_size=64, accumulate=accumulate, device="cpu")
        check_device(settings, images, Ranks(0, size))

    check(4, 100, 2)
    for size, images, accumulate, message in (
        (3, 100, 1, "batch_size = 64: expected a multiple of 3 processes"),
        (32, 100, 4, "a multiple of 4 x 32 processes"),
        (4, 3, 1, "3 images: expected at least 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(size, images, accumulate)


NORMS: dict[str, Any] = {
    "1d": lambda: nn.BatchNorm1d(3),
    "2d": lambda: nn.BatchNorm2d(3, momentum=None),
    "3d": lambda: nn.BatchNorm3d(3, eps=1e-2, momentum=0.3),
    "plain": lambda: nn.BatchNorm2d(3, affine=False),
    "step": lambda: StepBatchNorm(3),
    "forgetful": lambda: nn.BatchNorm2d(3, track_running_stats=False),
}
SHAPES = {"1d": (5, 3), "3d": (5, 3, 2, 2, 2)}


def norm_case(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A norm, two batches of five images as one (2, 5, 3, ...), far from zero, and a direction."""
    torch.manual_seed(1)
    norm = NORMS[kind]().double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    shape = SHAPES.get(kind, (5, 3, 4, 2))
    return norm, 100 + 3 * torch.randn(2, *shape).double(), torch.randn(2, *shape).double()


def normalised(norm: nn.Module, x: Tensor, direction: Tensor, part: slice) -> dict[str, Any]:
    """Takes two steps of training and one of evaluation on a part of each batch."""
    parts = []
    for batch, along in zip(x, direction, strict=True):
        inputs = batch[part].clone().requires_grad_()
        output = norm(inputs)
        output.backward(along[part])
        parts += [output.detach(), inputs.grad]
    grads, statistics = [p.grad for p in norm.parameters()], list(norm.state_dict().values())
    parts.append(norm.eval()(x[0][part]).detach())
    return {"parts": parts, "sums": grads, "same": statistics}


def shared_norm(kind: str) -> dict[str, Any]:
    """The same in two processes, of two images and of three."""
    norm, x, direction = norm_case(kind)
    part = [slice(0, 2), slice(2, 5)][dist.get_rank()]
    return normalised(SharedBatchNorm(norm), x, direction, part)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NORMS)
def test_a_shared_batch_norm_is_batch_norm_of_the_joined_batch(two: Processes, kind: str) -> None:
    wanted = normalised(*norm_case(kind), slice(None))
    if kind == "forgetful":  # which evaluates by the statistics of what it is given
        wanted["parts"].pop()
    first, second = two.call(shared_norm, kind)
    joined: dict[str, Any] = {"parts": torch.cat, "sums": sum, "same": lambda parts: parts[0]}
    for key, join in joined.items():
        for whole, *parts in zip(wanted[key], first[key], second[key], strict=key != "parts"):
            torch.testing.assert_close(join(parts), whole, rtol=1e-10, atol=1e-10)
    assert all(map(torch.equal, first["same"], second["same"]))


CELLS = ("granule", "purkinje", "nuclei")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cerebellum_tiny", {}),
        ("cerebellum_tiny", {cells: {"norm_over": "step"} for cells in CELLS}),
        ("granule_convnet", {}),
        ("plain_cnn", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_norm_is_replaced_and_given_back(name: str, options: Any, device: str) -> None:
    model = create_model(name, image_shape=(1, 8, 8), time_steps=3, **options)
    torchs = device == "cuda" and not options  # torch has none over steps
    kind = nn.SyncBatchNorm if torchs else SharedBatchNorm
    state, modules = list(model.state_dict()), list(model.modules())
    for module in modules:
        module.register_forward_hook(test_every_norm_is_replaced_and_given_back)
    with synchronised_norms(model, Ranks(0, 2), torch.device(device)):
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        assert norms
        assert {type(norm) for norm in norms} == {kind}
        assert all(norm._forward_hooks for norm in norms)
        assert list(model.state_dict()) == state
    assert list(model.modules()) == modules


def half_norm() -> tuple[Tensor, Tensor]:
    norm = nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    inputs = x[2 * dist.get_rank() :][:2].clone().requires_grad_()
    output = SharedBatchNorm(norm)(inputs)
    output.square().mean().backward()
    assert inputs.grad is not None
    return output.detach(), norm.running_var


def test_a_shared_batch_norm_takes_bfloat16(two: Processes) -> None:
    (first, var), (second, _) = two.call(half_norm)
    assert first.dtype == torch.bfloat16
    assert var.dtype == torch.float32
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = nn.BatchNorm2d(3)
    torch.testing.assert_close(torch.cat([first, second]), norm(x).detach())
    torch.testing.assert_close(var, norm.running_var, rtol=1e-4, atol=0)


# --- failures


@pytest.mark.slow
def test_three_processes_are_resumed_to_the_bit(tmp_path: Path) -> None:
    """Of three numbers the order of adding them shows, and with it the layout of the gradients."""
    keywords: dict[str, Any] = {"epochs": 3, "batch_size": 48}
    with Processes(3, tmp_path) as three:
        whole = three.call(work.train_digits, run_dir=tmp_path / "whole", **keywords)
        three.outcomes(work.train_digits, run_dir=tmp_path / "cut", fail_in=1, **keywords)
        continued = three.call(work.train_digits, run_dir=tmp_path / "cut", resume=True, **keywords)
    assert equal(whole[0], continued[0])
    assert_close(work.train_digits(**keywords), whole[0])


TRAIN = (
    "train", PROJECT / "configs/digits_granule.toml", "--train.seeds", "[0]",
    "--train.device", "cpu", "--train.epochs", "2",
)  # fmt: skip


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    few = ("--train.max_steps", "3")
    words = *TRAIN, *few, "--train.output", "two", "--json", "two.json"
    status, output = ended(tmp_path, *words)
    assert status == 0, output
    assert [output.count(text) for text in ("written to two.json", "epoch 1/2")] == [1, 1]
    words = *TRAIN, *few, "--train.output", "one"
    command = [sys.executable, "-m", "neuroconv", *map(str, words)]
    environment = {**os.environ, **ENVIRONMENT}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    two, alone = (
        json.loads(next((tmp_path / name).glob("*/result.json")).read_text())
        for name in ("two", "one")
    )
    assert two["steps"] == alone["steps"] == 3
    # Three steps in float32, where a sum in another order is another sum in the seventh digit.
    for key in ("val_loss", "test_loss"):
        assert two[key] == pytest.approx(alone[key], rel=1e-4)
    assert two["test_accuracy"] == alone["test_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TRAIN, "--train.batch_size", "33"), "expected a multiple of 2 processes"),
        ((*TRAIN, "--model.name", "granule_convnt"), "granule_convnet"),
        ((*TRAIN, "--train.epochs", "none"), "epochs = 'none'"),
        (("list",), "expected no torchrun"),
    ],
)
def test_torchrun_says_a_mistake_once(
    tmp_path: Path, words: tuple[str | Path, ...], message: str
) -> None:
    status, output = ended(tmp_path, *words)
    assert status != 0
    assert output.count("error: ") == 1, output
    assert message in output
    assert not (tmp_path / "runs").exists()
