"""Batches of frames: whole, wherever they are prepared, equal to those of torch's DataLoader."""

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neuroconv.data import AUGMENTS, ENCODINGS, DataError, Frames, load_data
from neuroconv.data.cache import DecodedFiles, FittedStills
from neuroconv.data.stills import ImageTensors
from neuroconv.training import ConfigError, load_config, train
from neuroconv.training.batches import _in_thread, epoch_batches, load
from neuroconv.training.config import DataConfig, save_config
from neuroconv.training.runs import resolve

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 4)):
        for name in ("a", "b"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 256, (20 + i, 44 - i, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / part / name / f"{i:02}.jpg")
    return folder


def by_dataloader(frames: Frames, batches: list[list[int]]) -> Iterator[list[Tensor]]:
    """A list of items, stacked: what every batch was before it was made whole."""
    return iter(DataLoader(frames, batch_sampler=batches))


def same_batches(first: Any, second: Any) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


@pytest.mark.parametrize(("cache", "workers"), [(True, 0), (True, 2), (False, 0)])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_batches_are_the_dataloaders_and_so_is_the_generator_after_them(
    root: Path, augment: str, cache: bool, workers: int
) -> None:
    data = load_data("folder", root=root, image_size=12, augment=augment, cache=cache)
    plain = load_data("folder", root=root, image_size=12, augment=augment, cache=False)
    for epoch in range(3):
        batches = epoch_batches(plain.train, len(plain.train), 8, 0, epoch)
        expected = list(by_dataloader(plain.train, batches))
        state = torch.get_rng_state()
        assert batches == epoch_batches(data.train, len(data.train), 8, 0, epoch)
        assert same_batches(load(data.train, batches, workers, CPU), expected)
        assert torch.equal(torch.get_rng_state(), state)  # of dropout, whoever prepares the data
    if cache:
        kind = DecodedFiles if augment == "resized_crop_flip" else FittedStills
        assert type(data.train.dataset) is kind


def test_workers_are_started_only_until_all_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def counted(*args: Any, **keywords: Any) -> Any:
        started.append(keywords["num_workers"])
        return DataLoader(*args, **keywords)

    monkeypatch.setattr("neuroconv.training.batches.DataLoader", counted)
    data = load_data("folder", root=root, image_size=12, cache=True).train
    for epoch in range(4):
        list(load(data, epoch_batches(data, len(data), 8, 0, epoch), 2, CPU))
    assert started == [2]  # which leaves out fewer than a batch: 36 images, 4 batches of 8
    digits = load_data("digits").train
    list(load(digits, [[0, 1]], 2, CPU))
    assert started == [2]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_ahead_makes_the_same_batches_in_another_thread(encoding: str) -> None:
    frames = load_data("digits", encoding=encoding).train
    assert frames.threadsafe
    batches = [[3, 1], [2], list(range(100))]
    threads = []

    def make(batch: list[int]) -> tuple[Tensor, Tensor]:
        threads.append(threading.get_ident())
        return frames.images(batch)

    made = _in_thread(make, batches)
    assert same_batches(made, map(frames.images, batches))
    assert len(threads) == 3
    assert threading.get_ident() not in threads


def test_one_ahead_is_one_ahead_and_ends_with_its_consumer_or_an_error() -> None:
    begun: list[int] = []

    def make(batch: list[int]) -> int:
        begun.append(batch[0])
        if batch[0] == 7:
            raise DataError("file 7 is broken")
        return batch[0]

    before = threading.active_count()
    made = _in_thread(make, [[i] for i in range(5)])
    assert begun == []
    assert next(made) == 0
    assert next(made) == 1
    made.close()
    assert begun in ([0, 1], [0, 1, 2])
    assert threading.active_count() == before
    with pytest.raises(DataError, match="file 7 is broken"):
        list(_in_thread(make, [[6], [7], [8]]))
    assert threading.active_count() == before
    assert list(_in_thread(make, [])) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named(root: Path, tmp_path: Path, workers: int) -> None:
    for path in root.glob("*/*/*.jpg"):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: -200 if path.stem == "03" else None])
    data = load_data("folder", root=tmp_path, image_size=12).test
    with pytest.raises(DataError, match=f"{tmp_path}/val/a/03.jpg: not a whole image"):
        list(load(data, [list(range(len(data)))], workers, CPU))


class Stop(Exception):
    pass


@pytest.mark.parametrize("augment", ["crop_flip", "resized_crop_flip"])
def test_an_interrupted_run_goes_on_to_the_bit(
    root: Path, tmp_path: Path, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache that the interrupted run had filled and the resumed one has not."""

    def run(folder: str, workers: int = 0, cache: bool = True) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(3 * 2 * 12 * 12, 2))
        data = load_data(
            "folder", root=root, image_size=12, augment=augment, encoding="poisson", time_steps=2,
            cache=cache,
        )  # fmt: skip
        train(
            model, data.train, data.val, epochs=3, batch_size=8, learning_rate=1e-2, resume=True,
            run_dir=tmp_path / folder, progress=False, workers=workers,
        )  # fmt: skip
        return model.state_dict()

    whole = run("whole")
    asked = []
    images = Frames.images
    encode = Frames.encode

    def stopping(frames: Frames, *args: Any) -> Tensor:
        asked.append(0)
        if len(asked) == 4 + 1 + 4 + 1 + 2:  # third epoch: training and validation batches
            raise Stop
        return encode(frames, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Frames, "encode", stopping)
        with pytest.raises(Stop):
            run("stopped")
    assert Frames.images is images
    for folder, workers, cache in (("stopped", 0, True), ("workers", 2, True), ("plain", 0, False)):
        other = run(folder, workers, cache)
        assert all(torch.equal(other[name], value) for name, value in whole.items())


def test_batches_made_while_scoring_leave_the_images_fit_for_training(root: Path) -> None:
    """Images decoded under inference mode are met by a training step."""
    data = load_data("folder", root=root, image_size=12, encoding="none", cache=True).val
    with torch.inference_mode():
        list(load(data, [[0, 1], [2, 3]], 0, CPU))
    ((inputs, labels),) = load(data, [[0, 3]], 0, CPU)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    nn.functional.cross_entropy(model(inputs), labels).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_cache_is_a_key_of_the_configuration(tmp_path: Path) -> None:
    default = inspect.signature(load_data).parameters["cache"].default
    assert DataConfig(name="digits").cache == default == "auto"
    path = tmp_path / "config.toml"
    path.write_text(
        '[model]\nname = "linear"\n[data]\nname = "digits"\nimage_size = 6\ncache = true\n'
        "[train]\nepochs = 1\nlearning_rate = 0.1\n"
    )
    for words, value, kind in (
        ([], True, FittedStills),
        (["--data.cache=false"], False, ImageTensors),
        (["--data.cache", "auto"], "auto", FittedStills),
    ):
        config = load_config(path, words)
        assert config.data.cache == value
        save_config(config, tmp_path / "saved.toml")
        assert load_config(tmp_path / "saved.toml") == config
        assert type(resolve(config, 0)[1].train.dataset) is kind
    with pytest.raises(ConfigError, match='cache = 3: expected true or false or "auto"'):
        load_config(path, ["--data.cache=3"])


@pytest.mark.gpu
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_batches_of_a_gpu_are_those_of_the_cpu(
    root: Path, encoding: str, augment: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fits:
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (0, 0))
    cuda = torch.device("cuda")
    data, plain = (
        load_data("folder", root=root, image_size=12, augment=augment, encoding=encoding, cache=c)
        for c in (True, False)
    )
    for epoch in range(3):
        batches = epoch_batches(data.train, len(data.train), 8, 0, epoch)
        epoch_batches(plain.train, len(plain.train), 8, 0, epoch)
        loaded = list(load(data.train, batches, 0, cuda))
        assert all(inputs.is_cuda and not labels.is_cuda for inputs, labels in loaded)
        assert same_batches(
            ((inputs.cpu(), labels) for inputs, labels in loaded),
            by_dataloader(plain.train, batches),
        )
    resident = data.train.resident(cuda)
    assert (resident is not None) == (fits and augment != "resized_crop_flip")
