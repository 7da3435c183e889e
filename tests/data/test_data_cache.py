import copy
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from neuroconv.data import AUGMENTS, DataError, load_data
from neuroconv.data.cache import DecodedFiles, FittedStills, free_memory, shared_tensor
from neuroconv.data.stills import ImageFiles, ImageTensors
from tests.data.photographs import write_photographs

FORKED: Any = {"num_workers": 2, "multiprocessing_context": "fork"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 training and 6 validation photographs in two classes, no two of one size."""
    write_photographs(tmp_path, train=15, val=3)
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts how often each file was decoded in this process."""
    times: dict[str, int] = Counter()
    decode = ImageFiles.__getitem__

    def counted(files: ImageFiles, index: int) -> Any:
        times[str(files.paths[index])] += 1
        return decode(files, index)

    monkeypatch.setattr(ImageFiles, "__getitem__", counted)
    return times


@pytest.mark.parametrize("augment", AUGMENTS)
def test_frames_are_the_same_with_and_without_a_cache(root: Path, augment: str) -> None:
    keywords: Any = {"root": root, "image_size": (12, 10), "augment": augment}
    plain, cached = (
        load_data("folder", cache=cache, encoding="poisson", **keywords) for cache in (False, True)
    )
    assert isinstance(plain.train.dataset, ImageFiles)
    kind = DecodedFiles if augment == "resized_crop_flip" else FittedStills
    assert isinstance(cached.train.dataset, kind)
    assert isinstance(cached.val.dataset, FittedStills)
    for epoch in (0, 1, 2):  # decoded in the first, cached for the others
        for a, b in ((plain.train, cached.train), (plain.val, cached.val)):
            a.set_epoch(epoch)
            b.set_epoch(epoch)
            for batch in ([2, 1], list(range(len(a)))):
                for x, y in zip(a.batch(batch), b.batch(batch), strict=True):
                    assert torch.equal(x, y)


@pytest.mark.parametrize("augment", ["none", "resized_crop_flip"])
def test_a_file_is_decoded_once(root: Path, augment: str, decoded: dict[str, int]) -> None:
    data = load_data("folder", root=root, image_size=12, augment=augment)
    decoded.clear()  # the first image tells the shape
    for epoch in range(3):
        for part in (data.train, data.val, data.test):
            part.set_epoch(epoch)
            list(DataLoader(part, batch_size=4))
    assert set(decoded.values()) == {1}
    assert len(decoded) > 30


@pytest.mark.parametrize("augment", ["none", "resized_crop_flip"])
def test_workers_fill_the_cache_of_the_process_that_forked_them(
    root: Path, augment: str, decoded: dict[str, int]
) -> None:
    data, plain = (
        load_data("folder", root=root, image_size=12, augment=augment, cache=cache).train
        for cache in (True, False)
    )
    by_workers = [images for images, _ in DataLoader(data, batch_size=5, **FORKED)]
    decoded.clear()
    here = [images for images, _ in DataLoader(data, batch_size=5)]
    assert not decoded
    expected = torch.cat([images for images, _ in DataLoader(plain, batch_size=5)])
    assert torch.equal(torch.cat(by_workers), expected)
    assert torch.equal(torch.cat(here), expected)


def test_what_does_not_fit_is_decoded_each_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the free memory goes to training, validation and test, in this order."""
    train, val = 27 * 3 * 12 * 12, 3 * 3 * 12 * 12
    fitted, files = FittedStills, ImageFiles
    assert _kinds(root, True) == [fitted] * 3
    assert _kinds(root, False) == [files] * 3
    for free, kinds in (
        (4 * (train + 3 * val), [fitted, fitted, fitted]),
        (4 * (train + 3 * val) - 1, [fitted, fitted, files]),
        (4 * train, [fitted, files, files]),
        (4 * train - 1, [files, fitted, fitted]),
        (4 * val - 1, [files, files, files]),
    ):
        monkeypatch.setattr("neuroconv.data.cache.free_memory", lambda free=free: free)
        assert _kinds(root, "auto") == kinds


def _kinds(root: Path, cache: bool | str) -> list[type]:
    data = load_data("folder", root=root, image_size=12, cache=cache)
    return [type(part.dataset) for part in (data.train, data.val, data.test)]


def test_whole_images_are_held_as_far_as_there_is_room(root: Path) -> None:
    files = ImageFiles(sorted(root.glob("train/*/*.jpg")), np.arange(30))
    sizes = [files[i][0].numel() for i in range(30)]
    cached = DecodedFiles(files, capacity=sum(sizes[:3]) + 5)
    for _ in range(2):
        for i in range(30):
            assert torch.equal(cached[i][0], files[i][0])
            assert cached[i][1] == i
    assert (cached._spans[:, 1] > 0).tolist() == [True] * 3 + [False] * 27
    exact = load_data("folder", root=root, augment="resized_crop_flip", cache=True).train
    exact.batch(range(len(exact)))
    assert isinstance(exact.dataset, DecodedFiles)
    assert (exact.dataset._spans[:, 1] > 0).all()
    assert int(exact.dataset._used) == len(exact.dataset._bytes)


def test_tensors_of_another_size_are_fitted_once() -> None:
    fitted, plain = (load_data("digits", image_size=(6, 12), cache=c).train for c in (True, False))
    assert (type(fitted.dataset), type(plain.dataset)) == (FittedStills, ImageTensors)
    for _ in range(2):
        assert torch.equal(fitted.batch(range(40))[0], plain.batch(range(40))[0])
    data = load_data("digits", image_size=8, cache=True)
    assert type(data.train.dataset) is ImageTensors  # of this size as they are


@pytest.mark.parametrize("augment", ["none", "resized_crop_flip"])
def test_a_broken_file_is_named_whenever_it_is_met(root: Path, augment: str) -> None:
    for path in root.glob("train/b/*.jpg"):
        path.write_bytes({7: path.read_bytes()[:-200], 8: b""}.get(int(path.stem), b"no image"))
    data = load_data("folder", root=root, image_size=12, augment=augment, cache=True)
    files = data.train.dataset.stills.paths  # type: ignore[attr-defined]
    for index, path in enumerate(files):
        for _ in range(2 if Path(path).parent.name == "b" else 0):  # a file that failed is not kept
            with pytest.raises(DataError, match=f"{path}: cannot be read as an image .*replace it"):
                data.train.batch([0, index])


@pytest.mark.parametrize("augment", ["none", "resized_crop_flip"])
def test_a_pickled_cache_is_the_stills_without_it(root: Path, augment: str) -> None:
    frames = load_data("folder", root=root, image_size=12, augment=augment, cache=True).train
    batch = frames.batch([4, 2])[0]
    for other in (pickle.loads(pickle.dumps(frames)), copy.deepcopy(frames)):
        assert isinstance(other.dataset, ImageFiles)
        assert torch.equal(other.batch([4, 2])[0], batch)


def test_free_memory_is_the_machines_or_what_a_container_leaves(tmp_path: Path) -> None:
    assert 2**20 < free_memory() < 2**50
    gib = 2**30

    def write(folder: str, **files: object) -> None:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / folder / name.replace("memory_", "memory.", 1)).write_text(str(content))

    write("proc", meminfo="MemTotal: 99999999 kB\nMemAvailable:    8388608 kB\nBuffers: 5 kB")
    assert free_memory(tmp_path) == 8 * gib
    stat = f"anon {gib}\ninactive_file {2 * gib}"
    write("sys/fs/cgroup", memory_max="max", memory_current=5, memory_stat=stat)
    assert free_memory(tmp_path) == 8 * gib
    # Of three GiB in use, two are of files.
    write("sys/fs/cgroup", memory_max=4 * gib, memory_current=3 * gib)
    assert free_memory(tmp_path) == 3 * gib
    limit, use = "memory_limit_in_bytes", "memory_usage_in_bytes"
    write("sys/fs/cgroup/memory", **{limit: 2 * gib, use: gib, "memory_stat": ""})
    assert free_memory(tmp_path) == gib
    write("sys/fs/cgroup/memory", **{use: 3 * gib})
    assert free_memory(tmp_path) == 0


def test_more_memory_than_there_can_be_is_an_error_with_a_way_out() -> None:
    with pytest.raises(DataError, match=r"GiB of decoded images .*say cache = false"):
        shared_tensor((2**62,), torch.uint8)
