"""Weights that come with the package: each scores as recorded; what altered ones and others do."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.data import load_data
from neuroconv.flops.machine.roofline import device_name
from neuroconv.kernels import native
from neuroconv.training import evaluate_model, load_config, train_seeds
from neuroconv.zoo import create_model, get_weights, list_models
from neuroconv.zoo import pretrained as pretrained_module
from tests.scripts import loaded

PROJECT = Path(__file__).resolve().parents[2]
TITLES = list_models(pretrained=True)
# The others see 10,000 images each.
SCORED = [
    title if title.endswith(".digits") or title == "plain_cnn.mnist"
    else pytest.param(title, marks=pytest.mark.slow)
    for title in TITLES
]  # fmt: skip
publish = loaded(PROJECT / "experiments" / "study" / "publish.py")


@pytest.fixture
def recorded_threads(request: pytest.FixtureRequest) -> Any:
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


@pytest.mark.parametrize("title", SCORED)
def test_weights_give_the_recorded_number_of_right_answers(
    title: str, recorded_threads: Any, request: pytest.FixtureRequest
) -> None:
    """With the recorded processor, threads and kernels all, else within 2 of 10,000."""
    name, _, tag = title.rpartition(".")
    record = get_weights(name, tag).record
    model = create_model(name, tag)
    root = None if tag == "digits" else request.getfixturevalue("data_root")
    splits = load_data(**record["data"], root=root, seed=record["seed"])
    recorded_threads(record["threads"])
    score = evaluate_model(
        model, splits.test, batch_size=record["train"]["batch_size"], device="cpu",
        precision=record["precision"],
    )  # fmt: skip
    right, images = round(score.accuracy * score.images), record["test_images"]
    here = {
        "torch": torch.__version__.partition("+")[0], "cpp_kernels": native.state(),
        "device": device_name("cpu"),
    }  # fmt: skip
    same = all(record.get(key) == value for key, value in here.items())
    assert abs(right - record["test_right"]) <= (0 if same else -(-2 * images // 10_000))
    frames = splits.test.batch(range(20))[0]
    assert torch.equal(get_weights(name, tag).preprocess(splits.test.images(range(20))[0]), frames)


def test_the_files_are_those_of_the_record() -> None:
    folder = pretrained_module.FOLDER
    suffixes = (".safetensors", ".md")
    expected = {f"{title}{suffix}" for title in TITLES for suffix in suffixes} | {"weights.toml"}
    assert {path.name for path in folder.iterdir()} == expected
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < publish.LARGEST
    for title in TITLES:
        weights = get_weights(*title.rsplit(".", 1))
        assert (folder / f"{title}.md").read_text() == publish.card(weights)


def test_weights_fix_the_keywords_but_the_classes() -> None:
    recorded = get_weights("granule_convnet").record["keywords"]
    model: Any = create_model("granule_convnet", "digits", time_steps=5, widths=(8, 24, 15))
    other: Any = create_model("granule_convnet", pretrained=True, num_classes=7)
    assert torch.equal(other.units[0].weight, model.units[0].weight)
    assert (model.num_classes, other.num_classes) == (10, 7)
    with pytest.raises(ValueError, match=r"seed=3: granule_convnet.digits has seed=0"):
        create_model("granule_convnet", "digits", seed=recorded["seed"] + 3)
    for name, tag in (("granule_convnet", "digit"), ("lstm", True), ("granule_convne", "digits")):
        with pytest.raises(ValueError, match=r"no weights \w+\..*; .*expected one of .*_convnet.d"):
            create_model(name, tag)
    assert list_models("granule*", pretrained=True)[0] == "granule_convnet.digits"


def test_an_altered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(pretrained_module.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(pretrained_module, "FOLDER", tmp_path / "weights")
    path = tmp_path / "weights" / "granule_convnet.digits.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    sums = (
        rf"SHA-256 sum [0-9a-f]{{64}}, recorded {get_weights('granule_convnet').record['sha256']}"
    )
    with pytest.raises(ValueError, match=rf"^{path}: {sums}: the file was altered; install"):
        create_model("granule_convnet", pretrained=True)


def test_published_runs_are_chosen_on_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "--train.epochs=1", "--train.seeds=[3, 4]", "--data.train_limit=200",
        f"--train.output={tmp_path}", "--train.device=cpu", "--model.widths=[2, 2, 2]",
    ]  # fmt: skip
    runs: Any = train_seeds(load_config("digits_granule", words), progress=False)
    monkeypatch.setattr(pretrained_module, "FOLDER", tmp_path)
    (weights,) = publish.publish([run.run_dir for run in runs], "a", "few", "CC0-1.0", tmp_path)
    chosen = max(runs, key=lambda run: (run.val_accuracy, -run.val_loss))
    record = get_weights("granule_convnet", "few").record
    assert record == weights.record
    assert (record["seed"], record["seeds"]) == (chosen.seed, [3, 4])
    assert record["test_right"] == round(chosen.test_accuracy * 360)
    assert f"{record['test_right']} of 360" in (tmp_path / f"{weights.title}.md").read_text()
    model, data = create_model("granule_convnet", "few"), record["data"]
    score = evaluate_model(model, load_data(**data, seed=chosen.seed).test, batch_size=64)
    assert score.accuracy == chosen.test_accuracy
    other = next(run for run in runs if run is not chosen)
    shutil.copy(chosen.run_dir / "best.safetensors", other.run_dir)
    with pytest.raises(ValueError, match="damaged: SHA-256"):
        publish.publish([run.run_dir for run in runs], "a", "few", "CC0-1.0", tmp_path)
