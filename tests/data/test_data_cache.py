import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from neuroconv.data import AUGMENTS, DataError, Frames, load_data
from neuroconv.data.cache import DecodedFiles, FittedStills
from neuroconv.data.memory import free_memory, shared_tensor
from neuroconv.data.stills import ImageFiles

FORKED: Any = {"num_workers": 2, "multiprocessing_context": "fork"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 training and 6 validation photographs in two classes, no two of one size."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 15), ("val", 3)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 256, (20 + i, 44 - i, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / part / name / f"{i:02}.jpg")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each file was decoded in this process."""
    times: dict[str, int] = {}
    decode = ImageFiles.__getitem__

    def counted(files: ImageFiles, index: int) -> Any:
        path = str(files.paths[index])
        times[path] = times.get(path, 0) + 1
        return decode(files, index)

    monkeypatch.setattr(ImageFiles, "__getitem__", counted)
    return times


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("encoding", ["none", "poisson"])
def test_frames_are_the_same_with_and_without_a_cache(
    root: Path, augment: str, encoding: str
) -> None:
    keywords: Any = {"root": root, "image_size": (12, 10), "augment": augment, "encoding": encoding}
    plain, cached = (load_data("folder", cache=cache, **keywords) for cache in (False, True))
    assert isinstance(plain.train.dataset, ImageFiles)
    kind = DecodedFiles if augment == "resized_crop_flip" else FittedStills
    assert isinstance(cached.train.dataset, kind)
    assert isinstance(cached.val.dataset, FittedStills)
    for epoch in (0, 1, 2):  # decoded in the first, held in the others
        for a, b in ((plain.train, cached.train), (plain.val, cached.val)):
            a.set_epoch(epoch)
            b.set_epoch(epoch)
            for batch in ([2, 1], list(range(len(a)))):
                for x, y in zip(a.batch(batch), b.batch(batch), strict=True):
                    assert torch.equal(x, y)


@pytest.mark.parametrize("augment", AUGMENTS)
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
    data = load_data("folder", root=root, image_size=12, augment=augment, cache=True)
    plain = load_data("folder", root=root, image_size=12, augment=augment, cache=False)
    by_workers = list(DataLoader(data.train, batch_size=5, **FORKED))
    decoded.clear()
    here = list(DataLoader(data.train, batch_size=5))
    assert decoded == {}
    for batches in (by_workers, here):
        for (x, y), (u, v) in zip(batches, DataLoader(plain.train, batch_size=5), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_what_does_not_fit_is_decoded_each_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, decoded: dict[str, int]
) -> None:
    """A quarter of the free memory goes to training, validation and test, in this order."""
    train, val = 27 * 3 * 12 * 12, 3 * 3 * 12 * 12
    assert [len(part.dataset) for part in _parts(root, True)] == [27, 3, 6]  # type: ignore[arg-type]
    for free, kinds in (
        (4 * (train + 3 * val), [FittedStills, FittedStills, FittedStills]),
        (4 * (train + 3 * val) - 1, [FittedStills, FittedStills, ImageFiles]),
        (4 * train, [FittedStills, ImageFiles, ImageFiles]),
        (4 * train - 1, [ImageFiles, FittedStills, FittedStills]),
        (4 * val - 1, [ImageFiles, ImageFiles, ImageFiles]),
    ):
        monkeypatch.setattr("neuroconv.data.cache.free_memory", lambda free=free: free)
        assert [type(part.dataset) for part in _parts(root, "auto")] == kinds
        assert all(type(part.dataset) is FittedStills for part in _parts(root, True))
        assert all(type(part.dataset) is ImageFiles for part in _parts(root, False))


def _parts(root: Path, cache: bool | str) -> tuple[Frames, Frames, Frames]:
    data = load_data("folder", root=root, image_size=12, cache=cache)
    return data.train, data.val, data.test


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
    for cache, kind in ((True, FittedStills), (False, type(load_data("digits").train.dataset))):
        data = load_data("digits", image_size=(6, 12), cache=cache)
        assert type(data.train.dataset) is kind
        batch = data.train.batch(range(40))[0]
        if cache:
            held = batch
    assert torch.equal(held, batch)
    data = load_data("digits", image_size=8, cache=True)
    assert type(data.train.dataset) is kind  # of this size as they are


@pytest.mark.parametrize("augment", ["none", "resized_crop_flip"])
def test_a_broken_file_is_named_whenever_it_is_met(root: Path, augment: str) -> None:
    path = root / "train" / "b" / "07.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    (root / "train" / "b" / "08.jpg").write_bytes(b"no image")
    data = load_data("folder", root=root, image_size=12, augment=augment, cache=True)
    names = [Path(name).name for name in data.train.dataset.stills.paths]  # type: ignore[attr-defined]
    for name in ("07.jpg", "08.jpg"):
        index = len(names) - 1 - names[::-1].index(name)
        for _ in range(2):  # a file that failed is not held
            with pytest.raises(DataError, match=f"train/b/{name}: not a whole image"):
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

    def write(**files: str) -> None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("DOT", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    write(proc__meminfo="MemTotal: 99999999 kB\nMemAvailable:    8388608 kB\nBuffers: 5 kB\n")
    assert free_memory(tmp_path) == 8 * gib
    write(sys__fs__cgroup__memoryDOTmax="max\n", sys__fs__cgroup__memoryDOTcurrent="5\n")
    write(sys__fs__cgroup__memoryDOTstat=f"anon {gib}\ninactive_file {2 * gib}\n")
    assert free_memory(tmp_path) == 8 * gib
    write(sys__fs__cgroup__memoryDOTmax=f"{4 * gib}\n")
    write(sys__fs__cgroup__memoryDOTcurrent=f"{3 * gib}\n")  # of which 2 are of files
    assert free_memory(tmp_path) == 3 * gib
    v1 = "sys__fs__cgroup__memory__memoryDOT"
    write(**{f"{v1}limit_in_bytes": f"{2 * gib}", f"{v1}usage_in_bytes": f"{gib}", f"{v1}stat": ""})
    assert free_memory(tmp_path) == gib
    write(**{f"{v1}usage_in_bytes": f"{3 * gib}"})
    assert free_memory(tmp_path) == 0


def test_more_memory_than_there_can_be_is_an_error_with_a_way_out() -> None:
    with pytest.raises(DataError, match=r"GiB of decoded images .*say cache = false"):
        shared_tensor((2**62,), torch.uint8)
