"""Two processes on the CPU against one with the same batch, in float64.

The two add up the same numbers in another order. In float64 that moves the last bits, about 1e-16
of a number; a few steps of AdamW, which divides by small square roots, make at most 1e-9 of it.
"""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuroconv.training import Config, ConfigError, DataConfig, Ranks, TrainConfig, resume, run
from neuroconv.training.sync_norm import SharedBatchNorm
from tests.training import processes as work
from tests.training.processes import Processes

CLOSE = 1e-9
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(2, tmp_path_factory.mktemp("two")) as processes:
        yield processes


def assert_close(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same weights, statistics, scores and activity, up to rounding."""
    for name, value in one["weights"].items():
        torch.testing.assert_close(
            other["weights"][name], value, rtol=CLOSE, atol=CLOSE, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert flat(other["result"]) == pytest.approx(flat(one["result"]), rel=CLOSE)


def flat(value: Any, path: str = "") -> dict[str, float]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, each in pairs for k, v in flat(each, f"{path}/{key}").items()}
    return {path: value}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(torch.equal(one["weights"][k], other["weights"][k]) for k in one["weights"])
    return same and one["result"] == other["result"]


# --- training


@pytest.mark.parametrize(("accumulate", "optimizer"), [(1, "adamw"), (2, "sgd")])
def test_two_processes_train_as_one(two: Processes, accumulate: int, optimizer: str) -> None:
    keywords = {"accumulate": accumulate, "optimizer": optimizer}
    one = work.train_digits(**keywords)
    first, second = two.call(work.train_digits, **keywords)
    assert one["result"]["steps"] == 2 * 3
    assert one["result"]["val"][2] == 37  # 32 and 5, in parts of 16, 16, 2 and 3
    assert one["result"]["test"][2] == 1  # which leaves one process without an image
    assert_close(one, first)
    assert equal(first, second)
    apart = work.train_digits(**keywords, seed=1)
    with pytest.raises(AssertionError):
        assert_close(one, apart)


@pytest.mark.slow
def test_two_processes_train_a_compiled_model_as_one_a_plain_one(two: Processes) -> None:
    first, second = two.call(work.train_compiled, accumulate=2)
    assert_close(work.train_digits(accumulate=2), first)
    assert equal(first, second)


def test_data_smaller_than_a_batch_is_a_batch_in_uneven_parts(two: Processes) -> None:
    keywords = {"images": 19, "accumulate": 2}
    assert_close(work.train_digits(**keywords), two.call(work.train_digits, **keywords)[0])


@pytest.mark.parametrize("mean_wait", [0.0, 0.5])
def test_an_interrupted_run_is_resumed_to_the_bit(
    two: Processes, tmp_path: Path, mean_wait: float
) -> None:
    keywords: dict[str, Any] = {"mean_wait": mean_wait, "epochs": 3}
    whole, _ = two.call(work.train_digits, run_dir=tmp_path / "whole", **keywords)
    cut = two.outcomes(work.train_digits, run_dir=tmp_path / "cut", fail_in=1, **keywords)
    assert [good for good, _ in cut] == [False, False]
    assert all("power cut" in error for _, error in cut)
    continued = two.call(work.train_digits, run_dir=tmp_path / "cut", resume=True, **keywords)
    assert all(equal(whole, each) for each in continued)
    for file in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_run_goes_on_with_another_number_of_processes(two: Processes, tmp_path: Path) -> None:
    whole = work.train_digits(epochs=3)
    two.outcomes(work.train_digits, run_dir=tmp_path / "a", fail_in=1, epochs=3)
    assert_close(whole, work.train_digits(run_dir=tmp_path / "a", resume=True, epochs=3))
    with pytest.raises(RuntimeError, match="power cut"):
        work.train_digits(run_dir=tmp_path / "b", fail_in=1, epochs=3)
    continued = two.call(work.train_digits, run_dir=tmp_path / "b", resume=True, epochs=3)
    assert_close(whole, continued[0])


def test_errors_of_rank_0_are_all_processes_errors(two: Processes, tmp_path: Path) -> None:
    two.call(work.train_digits, run_dir=tmp_path, epochs=1)
    again = two.outcomes(work.train_digits, run_dir=tmp_path, epochs=1)
    assert all("pass resume=True" in error for good, error in again if not good)
    assert [good for good, _ in again] == [False, False]


def test_draws_are_each_processes_own_and_a_function_of_seed_and_epoch(two: Processes) -> None:
    first, second = two.call(work.draws, 0)
    assert len(first) == len(second) == 2 * 2
    assert len({*first, *second}) == 2 * 2 * 2
    assert two.call(work.draws, 0) == [first, second]
    assert two.call(work.draws, 1) != [first, second]


# --- runs


def _run(config: Config, folder: str | None) -> tuple[dict[str, Any], str]:
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        result = run(config, seed=0, run_dir=folder, progress=True)
    numbers = {"folder": result.run_dir, "history": result.history, "loss": result.test_loss}
    return numbers, shown.getvalue()


def _resume(folder: str) -> float:
    return resume(folder, progress=False).test_loss


def test_a_run_has_one_folder_and_one_result(two: Processes, tmp_path: Path) -> None:
    config = Config(
        model={"name": "granule_convnet", "widths": (4,), "strides": (2,)},
        data=DataConfig(name="digits", train_limit=64, time_steps=2),
        train=TrainConfig(
            epochs=1, learning_rate=1e-2, batch_size=32, output=str(tmp_path / "runs"), device="cpu"
        ),
    )
    (first, shown), (second, nothing) = two.call(_run, config, None)
    assert first == second
    assert shown.count("epoch 1/1") == 1
    assert nothing == ""
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder == first["folder"]
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["world_size"], environment["backend"]) == (2, "gloo")
    assert two.call(_resume, folder) == [first["loss"]] * 2  # a finished one is read
    # In float32, and after two steps: a batch of its own in each process would differ by percents.
    alone = run(config, seed=0, run_dir=tmp_path / "alone", progress=False)
    assert first["loss"] == pytest.approx(alone.test_loss, rel=1e-3)
    environment = json.loads((tmp_path / "alone/environment.json").read_text())
    assert (environment["world_size"], environment["backend"]) == (1, None)
    taken = two.outcomes(_run, config, str(folder))
    assert all("is not empty" in error for _, error in taken)


# --- the parts


def test_shares_are_the_batch() -> None:
    for size in (1, 2, 3, 7):
        for length in (0, 1, 6, 16):
            shares = [Ranks(rank, size).share(list(range(length))) for rank in range(size)]
            assert list(itertools.chain(*shares)) == list(range(length))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_that_the_processes_do_not_divide() -> None:
    Ranks(0, 4).check_shares(100, 64, 2)
    with pytest.raises(ConfigError, match=r"batch_size = 64: expected a multiple of 3 processes"):
        Ranks(0, 3).check_shares(100, 64, 1)
    with pytest.raises(ConfigError, match=r"a multiple of 4 x 32 processes"):
        Ranks(0, 32).check_shares(100, 64, 4)
    with pytest.raises(ConfigError, match=r"3 images: expected at least 4"):
        Ranks(0, 4).check_shares(3, 64, 1)


NORMS: dict[str, Any] = {
    "1d": lambda: nn.BatchNorm1d(3),
    "2d": lambda: nn.BatchNorm2d(3, momentum=None),
    "3d": lambda: nn.BatchNorm3d(3, eps=1e-2, momentum=0.3),
    "plain": lambda: nn.BatchNorm2d(3, affine=False),
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
    """Two steps of training and one of evaluation on a part of each batch."""
    outputs, gradients = [], []
    for batch, along in zip(x, direction, strict=True):
        own = batch[part].clone().requires_grad_()
        output = norm(own)
        output.backward(along[part])
        outputs.append(output.detach())
        gradients.append(own.grad)
    of_weights = [p.grad for p in norm.parameters()]
    evaluated = norm.eval()(x[0][part]).detach()
    return {
        "parts": [*outputs, *gradients, evaluated], "sums": of_weights,
        "same": list(norm.state_dict().values()),
    }  # fmt: skip


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
    for whole, *parts in zip(wanted["parts"], first["parts"], second["parts"], strict=False):
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-10, atol=1e-10)
    for whole, *parts in zip(wanted["sums"], first["sums"], second["sums"], strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-10, atol=1e-10)
    for whole, *parts in zip(wanted["same"], first["same"], second["same"], strict=True):
        for part in parts:
            torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12)


def numeric_gradient() -> list[tuple[float, float]]:
    """Each number of rank 0's input moved a little: what the sum over both processes does."""
    norm, x, direction = norm_case("2d")
    part = [slice(0, 2), slice(2, 5)][dist.get_rank()]
    shared, x, along = SharedBatchNorm(norm), x[0][part], direction[0][part]  # type: ignore[arg-type]

    def loss(inputs: Tensor) -> float:
        total = (shared(inputs) * along).sum().detach()
        dist.all_reduce(total)
        return float(total)

    inputs = x.clone().requires_grad_()
    (shared(inputs) * along).sum().backward()
    assert inputs.grad is not None
    pairs, step = [], 1e-4
    for place in range(0, 48, 5):
        moved = torch.zeros_like(x).flatten()
        moved[place] = step * (dist.get_rank() == 0)
        difference = loss(x + moved.view_as(x)) - loss(x - moved.view_as(x))
        pairs.append((float(inputs.grad.flatten()[place]), difference / (2 * step)))
    return pairs


def test_a_shared_batch_norms_gradient_by_differences(two: Processes) -> None:
    for gradient, difference in two.call(numeric_gradient)[0]:
        assert gradient == pytest.approx(difference, rel=1e-6, abs=1e-8)


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


@pytest.mark.slow
def test_a_process_that_fails_takes_the_others_along(tmp_path: Path) -> None:
    with Processes(2, tmp_path) as pair:
        pair.requests[0].put((work.train_digits, (), {}))
        pair.requests[1].put((_fail, (), {}))
        good, error = pair.answers[0].get()
    assert not good
    assert "onnection" in error  # closed by peer


def _fail() -> None:
    try:
        work.train_digits(fail_in=1, fail_at=1)
    except RuntimeError:
        os._exit(2)  # as the command line does


def torchrun(*words: str | Path, folder: Path, processes: int = 2) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), "-m", "neuroconv", *map(str, words),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


TRAIN = (
    "train", PROJECT / "configs/digits_granule.toml", "--train.seeds", "[0]",
    "--train.device", "cpu", "--train.epochs", "2",
)  # fmt: skip


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(tmp_path: Path) -> None:
    few = ("--train.max_steps", "3")
    started = torchrun(*TRAIN, *few, "--train.output", "two", "--json", "two.json", folder=tmp_path)
    output, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors
    assert output.count("written to two.json") == 1
    assert errors.count("epoch 1/2") == 1
    command = [
        sys.executable, "-m", "neuroconv", *map(str, (*TRAIN, *few)), "--train.output", "one"
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    two, one = (
        json.loads(next((tmp_path / name).glob("*/result.json")).read_text())
        for name in ("two", "one")
    )
    assert two["steps"] == one["steps"] == 3
    # Three steps in float32, where a sum in another order is another sum in the seventh digit.
    for key in ("val_loss", "test_loss"):
        assert two[key] == pytest.approx(one[key], rel=1e-4)
    assert two["test_accuracy"] == one["test_accuracy"]

    (folder,) = (tmp_path / "two").iterdir()
    (folder / "result.json").unlink()  # as of a run that died at its very end, without checkpoint
    resumed = torchrun("resume", folder, folder=tmp_path)
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    again = json.loads((folder / "result.json").read_text())
    assert again["test_loss"] == two["test_loss"]
    assert again["sha256"]["best.safetensors"] == two["sha256"]["best.safetensors"]


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
    started = torchrun(*words, folder=tmp_path)
    _, errors = started.communicate(timeout=300)
    assert started.returncode != 0
    assert errors.count("error: ") == 1, errors
    assert message in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whom", ["torchrun", "a process"])
def test_a_signal_ends_all_processes(tmp_path: Path, stop: signal.Signals, whom: str) -> None:
    started = torchrun(*TRAIN, "--train.epochs", "1000", folder=tmp_path)
    try:
        assert started.stderr is not None
        while "epoch 1/1000" not in (line := started.stderr.readline()):
            assert line, "it ended before its first epoch"
        group = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        children = [int(word) for word in group.read_text().split()]
        assert len(children) == 2
        os.kill(started.pid if whom == "torchrun" else children[1], stop)
        _, errors = started.communicate(timeout=60)
        assert started.returncode != 0
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        if stop == signal.SIGINT:
            assert errors.count("continue with: neuroconv resume") == 1
    finally:
        started.kill()
