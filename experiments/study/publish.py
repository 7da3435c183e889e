r"""Publishes trained weights: the record, the file and the card of finished runs' networks.

python experiments/study/publish.py --command "neuroconv train digits_granule" \
    runs/granule_convnet-*-seed?

The runs of a network are its seeds. The one with the best score on validation is published; the
test set, on which it is scored once more, plays no part in the choice. Files are written to
neuroconv/zoo/weights/: NAME.TAG.safetensors, NAME.TAG.md, and a table of weights.toml.
"""

import argparse
import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from neuroconv import __version__
from neuroconv.comparison import estimate
from neuroconv.core.files import write_text
from neuroconv.training import RunResult, evaluate_model, read_result, rebuild
from neuroconv.training.checkpoint import save_tensors
from neuroconv.training.environment import describe_environment
from neuroconv.zoo import count_parameters, list_models
from neuroconv.zoo.pretrained import FOLDER, Weights

LARGEST = 4_000_000  # bytes of all files together
NOT_PREPARED = ("permute", "held_out")  # keys of [data] that Weights.preprocess does not repeat


def best(runs: list[RunResult]) -> RunResult:
    """Returns the run with the best score on validation."""
    return max(runs, key=lambda run: (run.val_accuracy, -run.val_loss))


def plain(value: Any) -> Any:
    """Returns a table as TOML reads it back: without None, and with lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if entry is not None}
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def small(tensor: Tensor) -> Tensor:
    """Returns the indices of a wiring in the smallest type that holds them; floats as they are."""
    if tensor.is_floating_point() or tensor.dtype == torch.bool or not tensor.numel():
        return tensor
    low, high = tensor.aminmax()
    fits = (kind for kind in (torch.int16, torch.int32) if high <= torch.iinfo(kind).max)
    return tensor.to(next(fits, tensor.dtype)) if low >= 0 else tensor


def record_of(runs: list[RunResult], command: str, licence: str) -> tuple[dict[str, Any], Any]:
    """Returns the record of a network's weights, and the network.

    Raises:
        ValueError: its answers here are not those of the run.
    """
    chosen = best(runs)
    config, model, splits = rebuild(chosen.run_dir)
    data = {k: v for k, v in asdict(config.data).items() if k not in ("root", "cache", "workers")}
    if present := [key for key in NOT_PREPARED if data.get(key)]:
        raise ValueError(f"{chosen.run_dir}: [data] {present[0]}: its images cannot be prepared")
    score = evaluate_model(model, splits.test, **config.evaluation())
    if score.accuracy is None or score.accuracy != chosen.test_accuracy:
        raise ValueError(
            f"{chosen.run_dir}: test accuracy {score.accuracy} here, {chosen.test_accuracy} in the "
            "run: publish it where it was trained, with the threads and kernels it was trained with"
        )
    accuracy = estimate([run.test_answers == splits.test.targets for run in runs])
    here = describe_environment(config.train.device, config.train.precision)
    record = {
        "command": command, "seed": chosen.seed, "seeds": sorted(run.seed for run in runs),
        "parameters": count_parameters(model), "val_accuracy": chosen.val_accuracy,
        "test_right": round(score.accuracy * score.images), "test_images": score.images,
        "test_accuracy_mean": accuracy.mean, "test_accuracy_95_half_width": accuracy.half_width,
        "class_names": list(splits.class_names), "licence": licence,
        "version": __version__, "torch": here["packages"]["torch"],
        **{key: here[key] for key in (
            "device", "threads", "cpp_kernels", "cpu_capability", "precision")},
        "keywords": {key: v for key, v in config.model.items() if key != "name"},
        "data": data,
        "train": {key: getattr(config.train, key) for key in (
            "epochs", "optimizer", "learning_rate", "weight_decay", "batch_size")},
    }  # fmt: skip
    return tomllib.loads(tomli_w.dumps(plain(record))), model  # in the file's order


def card(weights: Weights) -> str:
    """Returns the model card of published weights, in Markdown, from their record alone."""
    record, (name, _, tag) = weights.record, weights.title.rpartition(".")
    data, train, width = (record[key] for key in ("data", "train", "keywords"))
    spread = record.get("test_accuracy_95_half_width")
    interval = "" if spread is None else f" ± {100 * spread:.2f} (95 % interval)"
    pixels = " x ".join(map(str, width["image_shape"]))
    frames = f', {data["time_steps"]} frames by "{data["encoding"]}"'
    settings = ", ".join(f"{key} {value}" for key, value in train.items())
    keywords = "\n".join(f"    {key} = {value!r}" for key, value in width.items())
    right, images = record["test_right"], record["test_images"]
    limit = data.get("train_limit")
    lines = (
        f"# {weights.title}", "",
        f"`create_model({name!r}, pretrained={tag!r})`: {record['parameters']:,} parameters, "
        f"trained on {data['name']}{f', {limit:,} images' if limit else ''}.", "",
        "| | |", "|---|---|",
        f"| Test accuracy of these weights | {right:,} of {images:,}, {right / images:.2%} |",
        f"| Mean over seeds {', '.join(map(str, record['seeds']))} "
        f"| {record['test_accuracy_mean']:.2%}{interval} |",
        f"| Seed, chosen on validation | {record['seed']}, {record['val_accuracy']:.2%} there |",
        f"| Trained by | `{record['command']}`: {settings} |",
        f"| Images | {pixels} in [0, 1]{frames if data['encoding'] != 'none' else ''}: "
        f"`get_weights({name!r}, {tag!r}).preprocess(images)` |",
        f"| Classes | {', '.join(record['class_names'])} |",
        f"| Measured with | neuroconv {record['version']}, torch {record['torch']}, "
        f"{record['threads']} threads, C++ kernels {record['cpp_kernels']}, "
        f"{record['cpu_capability']}, {record['precision']} |",
        f"| Licence of the weights | {record['licence']} |",
        f"| SHA-256 | `{record['sha256']}` |", "",
        "Its keywords:", "", keywords, "",
    )  # fmt: skip
    return "\n".join(lines)


def publish(
    run_dirs: list[Path], command: str, tag: str | None, licence: str, folder: Path = FOLDER
) -> list[Weights]:
    """Writes record, weights and card of each network among the runs."""
    path, groups = folder / "weights.toml", dict[str, list[RunResult]]()
    records = tomllib.loads(path.read_text()) if path.exists() else {}
    for run_dir in run_dirs:
        config = tomllib.loads((run_dir / "config.toml").read_text())
        config["model"].pop("seed", None)
        groups.setdefault(json.dumps(config["model"]), []).append(read_result(run_dir))
    published: list[Weights] = []
    for runs in groups.values():
        record, model = record_of(runs, command, licence)
        title = f"{runs[0].name}.{tag or record['data']['name']}"
        if title in {weights.title for weights in published}:
            raise ValueError(f"{title}: two networks of the runs are called so; publish one by one")
        file = folder / f"{title}.safetensors"
        record = {
            "sha256": save_tensors(file, {k: small(v) for k, v in model.state_dict().items()}),
            **record,
        }
        records.setdefault(runs[0].name, {})[title.rpartition(".")[2]] = record
        published.append(Weights(title, record))
        write_text(file.with_suffix(".md"), card(published[-1]))
    if (size := sum(file.stat().st_size for file in folder.glob("*.safetensors"))) > LARGEST:
        raise ValueError(f"{folder}: {size:,} bytes of weights, more than {LARGEST:,}")
    write_text(path, tomli_w.dumps(records))
    return published


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of `neuroconv compare`")
    parser.add_argument("--command", required=True, help="the command that trained them")
    parser.add_argument("--tag", help="default: the name of the data set")
    parser.add_argument("--licence", default="Apache-2.0")
    given = parser.parse_args()
    for weights in publish(given.runs, given.command, given.tag, given.licence):
        record = weights.record
        print(f"{weights.title}: {record['test_right']:,} of {record['test_images']:,} right")
    print(", ".join(list_models(pretrained=True)))
