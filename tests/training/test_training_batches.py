"""Batches of frames: whole, wherever they are prepared, equal to those of torch's DataLoader."""

import random
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset

from neuroconv.data import AUGMENTS, ENCODINGS, DataError, Frames, load_data
from neuroconv.data.items import fetch
from neuroconv.training import train
from neuroconv.training.batches import _by_workers, _in_thread, check_length, epoch_batches, load
from tests.data.photographs import write_photographs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, train=20, val=4)
    return folder


def by_dataloader(frames: Frames, batches: list[list[int]]) -> Iterator[list[Tensor]]:
    """Batches stacked from items."""
    return iter(DataLoader(frames, batch_sampler=batches))


def same_batches(first: Any, second: Any) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


@pytest.mark.parametrize(("cache", "workers"), [(True, 0), (True, 2), (False, 0)])
@pytest.mark.parametrize("augment", ["crop_flip", "resized_crop_flip"])
def test_batches_are_the_dataloaders_and_so_is_the_generator_after_them(
    root: Path, augment: str, cache: bool, workers: int
) -> None:
    data, plain = (
        load_data("folder", root=root, image_size=12, augment=augment, cache=kind).train
        for kind in (cache, False)
    )
    for epoch in range(3):
        batches = epoch_batches(plain, len(plain), 8, 0, epoch)
        expected = list(by_dataloader(plain, batches))
        state = torch.get_rng_state()
        assert batches == epoch_batches(data, len(data), 8, 0, epoch)
        assert same_batches(load(data, batches, workers, CPU), expected)
        assert torch.equal(torch.get_rng_state(), state)  # of dropout, whoever prepares the data


class Noisy(Dataset[tuple[Tensor, int]]):
    """Images in whose augmentation all three generators of a process draw."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(()), np.random.rand(), np.random.normal(), random.random()  # noqa: NPY002
        return torch.tensor([index / 12, *noise, 0.5]).view(1, 2, 3).clip(0, 1), index % 2


class NoisyBatches(Noisy):
    """The same, with a batch read at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [self[index] for index in indices]


def generators() -> list[Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    assert isinstance(numpy_state, tuple)
    return [torch.get_rng_state().tolist(), numpy_state[1].tolist(), random.getstate()]


@pytest.mark.parametrize("kind", ["plain", "subset", "frames", "frames in subset"])
def test_random_numbers_of_an_item_are_a_function_of_seed_epoch_and_index(kind: str) -> None:
    data: Any = Noisy()
    if "frames" in kind:
        data = Frames(data, "none", training=True)
    if "subset" in kind:
        data = Subset(data, range(12))

    def items(
        batches: list[list[int]], workers: int = 0, seed: int = 3, epoch: int = 1
    ) -> dict[int, Tensor]:
        frames = data.dataset if kind == "frames in subset" else data
        if isinstance(frames, Frames):
            frames.seed = seed
            frames.set_epoch(epoch)
        before = generators()
        torch.empty((), dtype=torch.int64).random_()
        after = generators()
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        loaded = list(load(data, batches, workers, CPU, (seed, epoch)))
        assert generators() == after  # one draw of torch's, as of a DataLoader's
        images = torch.cat([inputs for inputs, _ in loaded])
        return dict(zip(chain(*batches), images, strict=True))

    whole = items([[5, 1, 2, 3], [4, 0, 6, 7], [8, 9, 10, 11]])
    for other in (
        items([[8, 9, 10, 11]]),  # after a resume within the epoch
        items([[3, 7], [11], [2, 4, 6, 8]]),
        items([[5, 1, 2, 3], [8, 9, 10, 11]], workers=4),
    ):
        assert all(torch.equal(image, whole[index]) for index, image in other.items())
    noise = torch.stack(list(whole.values()))[:, 0].flatten(1)[:, 1:5]
    assert len(noise[noise > 0].unique()) > 40  # of 48, of which about 6 are negative
    for change in ({"seed": 4}, {"epoch": 2}):
        other = items([[5, 1]], **change)
        assert not torch.equal(other[5], whole[5])


@pytest.mark.parametrize("workers", [0, 4])
def test_random_numbers_of_batches_read_at_once_are_those_of_the_batch(workers: int) -> None:
    batches = [[5, 1, 2, 3], [4, 0, 6, 7], [8, 9, 10, 11]]
    whole = list(load(NoisyBatches(), batches, 0, CPU, (3, 1)))
    assert same_batches(load(NoisyBatches(), batches[1:], workers, CPU, (3, 1)), whole[1:])


def collate(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Draws, like the augmentation of a whole batch."""
    images, labels = zip(*items, strict=True)
    return torch.stack(images) + torch.rand(()), torch.tensor(labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloaders_data_and_collate_fn_are_used(workers: int) -> None:
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, collate_fn=collate)
    assert check_length(loader, "train_data") == 12
    batches = epoch_batches(loader, 12, 4, 0, 0)
    expected = [fetch(Noisy(), batch, 3, 1, collate) for batch in batches]
    assert same_batches(load(loader, batches, workers, CPU, (3, 1)), expected)
    frames = load_data("digits").train
    assert same_batches(load(DataLoader(frames), [[3, 4]], workers, CPU), [frames.batch([3, 4])])


def test_training_on_dataloaders_is_that_on_their_data() -> None:
    def weights(train_data: Any, val_data: Any, **keywords: Any) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
        train(model, train_data, val_data, epochs=2, progress=False, device="cpu", **keywords)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    loaders = DataLoader(Noisy(), 4, shuffle=True, num_workers=2), DataLoader(Noisy(), 3)
    assert torch.equal(weights(*loaders), weights(Noisy(), Noisy(), batch_size=4))
    with pytest.raises(ValueError, match="batch_size=8, and a DataLoader with batch_size=4: leave"):
        weights(*loaders, batch_size=8)


@pytest.mark.parametrize("nest", [lambda x: x, lambda x: [x, x > 1], lambda x: {"a": x, "b": -x}])
@pytest.mark.parametrize("target", ["", "label", "labels", "target", "targets"])
def test_items_are_pairs_or_dictionaries_with_a_target(target: str, nest: Any) -> None:
    images = torch.arange(8.0).view(4, 2)
    data: Any = [
        {"image": nest(image), target: index} if target else (nest(image), index)
        for index, image in enumerate(images)
    ]
    ((inputs, labels),) = load(data, [[2, 1]], 0, CPU)
    assert labels.tolist() == [2, 1]
    torch.testing.assert_close(inputs, nest(images[[2, 1]]), rtol=0, atol=0)


def test_several_entries_beside_the_target_are_a_dictionary() -> None:
    item: Any = {"image": torch.ones(2), "mask": torch.zeros(2), "label": 1}
    ((inputs, _),) = load([item], [[0]], 0, CPU)  # type: ignore[arg-type]
    assert list(inputs) == ["image", "mask"]


WRONG: list[Any] = [
    ([{"image": torch.ones(1)}], TypeError, r"\(input, target\), .* is \{'image': 'Tensor'\}$"),
    ([(torch.ones(1), 1, 2)], TypeError, r"list is \['Tensor', 'Tensor', 'Tensor'\]$"),
    ([{"image": torch.ones(1), "label": "cat"}], TypeError, r"'label': \['str'\]\}$"),
    ([(object(), 1)], TypeError, r"do not form a batch \(.*object.*\): .* PILToTensor"),
    ([(torch.ones(side), 0) for side in (4, 5)], RuntimeError, r"\[4\] at .* of one shape, "),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "message"), WRONG)
def test_other_items_are_an_error(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(load(data, [list(range(len(data)))], 0, CPU))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


UNORDERED: list[Any] = [
    (Endless(), "val_data", "val_data is a Endless: expected a map-style data set"),
    (DataLoader(Endless()), "val_data", "val_data is a Endless: expected a map-style"),
    (DataLoader(Noisy()), "train_data", "SequentialSampler and BatchSampler: .*shuffle=True"),
    (DataLoader(Noisy(), None), "val_data", "batch_size=None, SequentialSampler and NoneType"),
    (DataLoader(Noisy(), sampler=[0, 1]), "val_data", r", list and .* Subset\(data, indices\)"),
    (DataLoader(Noisy(), sampler=RandomSampler(Noisy(), True)), "train_data", "can be resumed"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "role", "message"), UNORDERED)
def test_loaders_whose_batches_no_resume_could_repeat(data: Any, role: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_length(data, role)


def test_workers_are_started_only_until_all_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def counted(*args: Any) -> Any:
        started.append(args[2]["num_workers"])
        return _by_workers(*args)

    monkeypatch.setattr("neuroconv.training.batches._by_workers", counted)
    data = load_data("folder", root=root, image_size=12, cache=True).train
    for epoch in range(4):
        list(load(data, epoch_batches(data, len(data), 8, 0, epoch), 2, CPU))
    list(load(load_data("digits").train, [[0, 1]], 2, CPU))  # which is in memory
    assert list(load(data, [], 2, CPU)) == []
    assert started == [2]  # which leaves out fewer than a batch: 36 images, 4 batches of 8


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_thread_prepares_the_same_batches(encoding: str) -> None:
    frames = load_data("digits", encoding=encoding, time_steps=4).train
    assert frames.threadsafe
    batches = [[3, 1], [2], list(range(100))]
    threads = []

    def images(batch: list[int]) -> tuple[Tensor, Tensor]:
        threads.append(threading.get_ident())
        return frames.images(batch)

    assert same_batches(_in_thread(images, batches), map(frames.images, batches))
    assert len(threads) == 3
    assert threading.get_ident() not in threads


def test_the_thread_is_one_batch_ahead_and_ends_with_its_consumer_or_an_error() -> None:
    begun: list[int] = []

    def first(batch: list[int]) -> int:
        begun.append(batch[0])
        if batch[0] == 7:
            raise DataError("file 7 is broken")
        return batch[0]

    before = threading.active_count()
    results = _in_thread(first, [[i] for i in range(5)])
    assert begun == []
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert begun in ([0, 1], [0, 1, 2])
    assert threading.active_count() == before
    with pytest.raises(DataError, match="file 7 is broken"):
        list(_in_thread(first, [[6], [7], [8]]))
    assert threading.active_count() == before
    assert list(_in_thread(first, [])) == []


def test_workers_name_a_broken_file(tmp_path: Path) -> None:
    write_photographs(tmp_path, train=20, val=4)
    path = tmp_path / "val/a/03.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    data = load_data("folder", root=tmp_path, image_size=12).test
    with pytest.raises(DataError, match=f"^{path}: cannot be read as an image .*remove it$"):
        list(load(data, [list(range(len(data)))], 2, CPU))  # without the traceback of a worker


def test_images_decoded_under_inference_mode_are_fit_for_training(root: Path) -> None:
    data = load_data("folder", root=root, image_size=12, encoding="none", cache=True).val
    with torch.inference_mode():
        list(load(data, [[0, 1], [2, 3]], 0, CPU))
    ((inputs, labels),) = load(data, [[0, 3]], 0, CPU)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    nn.functional.cross_entropy(model(inputs), labels).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_epoch_reaches_frames_within_other_data_sets() -> None:
    frames = load_data("digits", encoding="poisson", time_steps=2).train
    data: Any = DataLoader(Subset(frames, range(20)), batch_size=20, shuffle=True)
    images = []
    for epoch in (0, 1, 0):
        epoch_batches(data, 20, 20, 0, epoch)
        images.append(frames.batch(range(20))[0])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])


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
    keywords: Any = {"root": root, "image_size": 12, "augment": augment, "encoding": encoding}
    keywords["time_steps"] = 4
    data, plain = (load_data("folder", cache=cache, **keywords).train for cache in (True, False))
    for epoch in range(3):
        batches = epoch_batches(data, len(data), 8, 0, epoch)
        plain.set_epoch(epoch)
        loaded = list(load(data, batches, 0, cuda))
        assert all(inputs.is_cuda and not labels.is_cuda for inputs, labels in loaded)
        copies = [(inputs.cpu(), labels) for inputs, labels in loaded]
        assert same_batches(copies, by_dataloader(plain, batches))
    assert (data.resident(cuda) is not None) == (fits and augment != "resized_crop_flip")
