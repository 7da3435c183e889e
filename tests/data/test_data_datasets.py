import gzip
import pickle
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10, FashionMNIST, Imagenette

from neuroconv.data import DataError, DataSplits, Frames, load_data
from neuroconv.data.sources import _IDX_SETS
from neuroconv.data.stills import ImageTensors, hold_out
from tests.data.photographs import write_photographs


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test downloads."""

    def fail(*args: Any, **keywords: Any) -> None:
        raise URLError("no network in tests")

    for module in ("mnist", "cifar", "imagenette"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)


def paths_of(frames: Frames) -> list[str]:
    files = getattr(frames.dataset, "stills", frames.dataset)  # a cache has its files beneath
    return files.paths


def sizes(data: DataSplits) -> list[int]:
    return [len(part) for part in (data.train, data.val, data.test)]


def images_of(frames: Frames) -> Tensor:
    return torch.stack([frames[i][0] for i in range(len(frames))])


# --- how splits are made


def test_hold_out_is_a_stratified_partition() -> None:
    targets = np.repeat(np.arange(4), [400, 300, 200, 100])
    everything = ImageTensors(torch.arange(1000).view(-1, 1, 1, 1), targets)
    rest, held_out = hold_out(everything, 100)
    numbers = [set(part.images.flatten().tolist()) for part in (rest, held_out)]  # type: ignore[union-attr]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] == set(range(1000))
    assert np.bincount(held_out.targets).tolist() == [40, 30, 20, 10]
    few = everything.subset(np.array([0, 1, 400]))
    with pytest.raises(DataError, match="hold out 2 of 3 images in 2 classes"):
        hold_out(few, 2)


# --- digits


def test_digits_are_in_three_disjoint_and_fixed_parts() -> None:
    whole = load_data("digits", encoding="none")
    splits = (whole.train, whole.val, whole.test)
    assert sizes(whole) == [1257, 180, 360]
    assert whole.class_names == tuple("0123456789")
    for part in splits:
        shares = np.bincount(part.targets, minlength=10) / len(part)
        assert np.abs(shares - 0.1).max() < 0.01
    pixels = torch.cat([images_of(part) for part in splits])
    assert (pixels.min(), pixels.max()) == (0, 1)
    # No two of the digits are equal, so that the parts share none.
    assert len({image.numpy().tobytes() for image in pixels}) == 1797
    other = load_data("digits", encoding="none", seed=7, augment="flip")
    assert np.array_equal(other.train.targets, whole.train.targets)
    assert torch.equal(images_of(other.test), images_of(whole.test))
    # Recorded, so that a new version of scikit-learn that splits in another way is noticed.
    assert whole.test.targets[:12].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2]
    assert whole.val.targets[:12].tolist() == [5, 7, 1, 1, 3, 4, 6, 9, 0, 3, 7, 8]


@pytest.mark.parametrize(
    ("keywords", "shape", "steps"),
    [({"encoding": "none"}, (1, 8, 8), 1), ({"image_size": (6, 12)}, (1, 5, 6, 12), 5)],
)
def test_frames_have_the_size_and_steps_of_the_data_set(
    keywords: Any, shape: tuple[int, ...], steps: int
) -> None:
    data = load_data("digits", time_steps=5, **keywords)
    frames, label = data.val[0]
    assert frames.shape == shape
    assert isinstance(label, int)
    assert data.image_shape == (1, *shape[-2:])
    assert data.time_steps == steps


def test_train_limit_keeps_a_fixed_stratified_part() -> None:
    limited = load_data("digits", train_limit=100)
    assert np.bincount(limited.train.targets).tolist() == [10] * 10
    again = load_data("digits", train_limit=100, seed=9)
    assert torch.equal(again.train[17][0], limited.train[17][0])
    assert sizes(load_data("digits", train_limit=1257)) == [1257, 180, 360]


def test_some_classes_in_the_labels_order() -> None:
    every, some = load_data("digits"), load_data("digits", classes=["5", "3"], train_limit=90)
    assert some.class_names == ("5", "3")
    assert len(some.train) == 90
    for all_part, part in ((every.val, some.val), (every.test, some.test)):
        kept = np.flatnonzero(np.isin(all_part.targets, [3, 5]))
        assert part.targets.tolist() == [int(all_part.targets[i] == 3) for i in kept]
        assert torch.equal(images_of(part), images_of(all_part)[kept])


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("digit", {}, "data.name='digit' is unknown; did you mean 'digits'.*imagenette, spoken"),
        ("digits", {"encoding": "poison"}, "encoding='poison'; did you mean 'poisson'"),
        ("digits", {"augment": "flop"}, "augment='flop'; did you mean 'flip'"),
        ("digits", {"train_limit": 99.5}, "train_limit=99.5; expected an integer"),
        ("digits", {"train_limit": 3}, "train_limit=3, expected 10 .* to 1257"),
        ("digits", {"image_size": [8, 8, 8]}, r"image_size=\[8, 8, 8\]; expected an int.*, 2 val"),
        ("digits", {"image_size": 0}, r"image_size=0; expected an integer"),
        ("digits", {"cache": 0}, "cache=0; expected true or false"),
        ("digits", {"cache": "yes"}, "cache='yes'; expected true or false or one of auto"),
        ("digits", {"classes": ["1"]}, r"classes=\['1'\], expected two or more names, each once"),
        ("digits", {"classes": ["1", "ten"]}, "data.classes.*'ten'"),
    ],
)
def test_bad_settings_are_named(name: str, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(name, **keywords)


# --- MNIST


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{values.ndim + 1}I", 0x800 + values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())


def write_mnist(
    folder: Path, side: int = 28, images: int = 30, labels: int = 30, label: int = 0
) -> None:
    """Writes images with their labels, of which the last of the test set can be chosen."""
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte", np.zeros((images, side, side), np.uint8))
        numbers = np.arange(labels, dtype=np.uint8) % 10
        numbers[-1:] = label if part == "t10k" else 0
        write_idx(folder / f"{part}-labels-idx1-ubyte", numbers)


def test_real_mnist_is_split(data_root: Path) -> None:
    data = load_data("mnist", root=data_root, encoding="saccade")
    assert sizes(data) == [55_000, 5_000, 10_000]
    assert data.image_shape == (1, 28, 28)
    assert data.train.dataset.images.dtype == torch.uint8  # type: ignore[attr-defined]
    frames, labels = next(iter(DataLoader(data.test, batch_size=8)))
    assert frames.shape == (8, 1, 5, 28, 28)
    assert (frames.min(), frames.max()) == (0, 1)
    assert labels.tolist() == [7, 2, 1, 0, 4, 1, 4, 9]  # how the official test set begins
    shares = [np.bincount(part.targets) / len(part) for part in (data.train, data.val)]
    assert np.abs(shares[0] - shares[1]).max() < 1e-3
    pixels = data.train.dataset.images, data.val.dataset.images  # type: ignore[attr-defined]
    assert sum(int(x.sum()) for x in pixels) == 1_567_298_545  # all 60,000, each once


def test_real_fashion_mnist_is_split(data_root: Path) -> None:
    data = load_data("fashion_mnist", root=data_root, encoding="none")
    assert sizes(data) == [55_000, 5_000, 10_000]
    assert data.class_names == tuple(FashionMNIST.classes)
    assert np.bincount(data.val.targets).tolist() == [500] * 10
    # The published mean; that of MNIST is 0.1307.
    total = sum(float(part.dataset.images.sum()) for part in (data.train, data.val))  # type: ignore[attr-defined]
    assert round(total / (60_000 * 784 * 255), 4) == 0.2860


def test_images_of_another_set_are_refused_and_unknown_ones_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)
    labels = sum(range(10)) * 3 - 9  # of which the last is 0
    for name in ("mnist", "fashion_mnist"):  # all images are black: their sum is 0
        *table, _ = _IDX_SETS[name]
        monkeypatch.setitem(_IDX_SETS, name, (*table, [(0, labels), (1, labels)]))
        other = "mnist" if name == "fashion_mnist" else "fashion_mnist"
        with pytest.raises(DataError, match=f"{tmp_path} has images of {name}, expected {other}"):
            load_data(other, root=tmp_path)
        monkeypatch.setitem(_IDX_SETS, name, (*table, [(1, labels), (1, labels)]))
        with (
            pytest.warns(UserWarning, match=rf"{tmp_path}: used as {name}, .*0, 126\).*\(1, 126"),
            pytest.raises(DataError, match="hold out 5000 of 30"),
        ):
            load_data(name, root=tmp_path)


@pytest.mark.filterwarnings("ignore:.*not the official ones")
@pytest.mark.parametrize("form", ["{}", "{}.gz", "dotted", "dotted.gz", "{0}/{0}", "dotted/dotted"])
@pytest.mark.parametrize(
    "folder", ["MNIST/raw", "mnist", "mnist/.", "FashionMNIST/raw", "fashion", "fashion_mnist/."]
)
def test_idx_files_are_found(tmp_path: Path, folder: str, form: str) -> None:
    write_mnist(tmp_path / "files")
    name = "fashion_mnist" if "ashion" in folder else "mnist"
    root = tmp_path / folder if folder.endswith(".") else tmp_path
    for path in (tmp_path / "files").iterdir():
        file = form.format(path.name).replace("dotted", path.name.replace("-idx", ".idx"))
        to, content = tmp_path / folder / file, path.read_bytes()
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    with pytest.raises(DataError, match="hold out 5000 of 30 images"):  # right files, but few
        load_data(name, root=root)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels": 7}, "30 images with 7 labels"),
        ({"labels": 40}, "30 images with 40 labels"),
        ({"side": 32}, r"\(32, 32\) pixels, expected \(28, 28\)"),
        ({"label": 200}, r"labels up to 200, expected 0\.\.9"),
        ({"images": 0, "labels": 0}, "0 images with 0 labels"),
    ],
)
def test_inconsistent_idx_files_are_refused(
    tmp_path: Path, name: str, files: dict[str, int], message: str
) -> None:
    write_mnist(tmp_path, **files)
    with pytest.raises(DataError, match=f"MNIST in {tmp_path}: .*{message}"):
        load_data(name, root=tmp_path)


def test_broken_mnist_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    content = path.read_bytes()
    labels = (tmp_path / "train-labels-idx1-ubyte").read_bytes()
    negative = content[:4] + b"\xff" * 4 + content[8:]
    packed = gzip.compress(content)
    broken = (content[:-100], content[:9], b"", b"\0\0\x0d" + content[3:], labels, negative)
    for wrong in (*broken, packed[:-20], b"not gzip", packed[:12] + b"\xff" * 20):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=f"{path}: a broken IDX file .* get it again"):
            load_data("mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", "train-images-idx3"),
        ("fashion_mnist", "in FashionMNIST/raw, "),
        ("cifar10", "cifar-10-ba"),
        ("imagenette", "imagenette2-160"),
    ],
)
def test_absent_data_that_cannot_be_downloaded(tmp_path: Path, name: str, expected: str) -> None:
    message = rf"(?s)in {tmp_path}: .*--data.root DIR.*NEUROCONV_DATA\..*{expected}.*no network"
    with pytest.raises(DataError, match=message):
        load_data(name, root=tmp_path)


# --- CIFAR-10 and Imagenette, in files of the official layout


def test_cifar10_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    colours = np.tile(np.repeat(np.array([10, 20, 30], np.uint8), 1024), (1200, 1))
    batch = {"data": colours, "labels": [i % 10 for i in range(1200)]}
    contents = {name: batch for name, _ in CIFAR10.train_list + CIFAR10.test_list}
    contents["batches.meta"] = {"label_names": [f"name {i}" for i in range(10)]}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load_data("cifar10", root=tmp_path, encoding="none", augment="crop_flip")
    assert sizes(data) == [1000, 5000, 1200]
    assert data.class_names[3] == "name 3"
    assert data.image_shape == (3, 32, 32)
    assert np.bincount(data.val.targets).tolist() == [500] * 10
    for part in (data.train, data.val):
        image, _ = part[7]
        assert (image.mean(dim=(1, 2)) * 255).round().tolist() == [10, 20, 30]
        assert image.std(dim=(1, 2)).max() < 1e-6


def test_imagenette_layout_at_any_size(tmp_path: Path) -> None:
    for part, count in (("train", 10), ("val", 2)):
        for label, name in enumerate(sorted(Imagenette._WNID_TO_CLASS)):
            folder = tmp_path / "imagenette2-320" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (50, 40), (label * 20, 0, i)).save(folder / f"{i}.JPEG")
    data = load_data("imagenette", root=tmp_path, encoding="none")
    assert sizes(data) == [90, 10, 20]
    assert data.class_names[:2] == ("tench", "English springer")
    assert data.image_shape == (3, 64, 64)
    assert data.test[2][1] == 1
    assert abs(data.test[2][0][0].mean() * 255 - 20) < 3


# --- image folders


@pytest.fixture(scope="module")
def photographs(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's cats, dogs and frogs (50 and 20 of each) and all of the ImageNet sample."""
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(data_root / "cifar10_sample.tar") as archive:
        for name in ("cat", "dog", "frog"):
            for part, count in (("train", 50), ("val", 20)):
                for i in range(count):
                    member = f"cifar10_sample/{part}/{name}/{i:04d}.jpg"
                    archive.extract(member, folder, filter="data")
    with tarfile.open(data_root / "imagenet_sample.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize(
    ("classes", "counts"), [(None, [135, 15, 60]), (["frog", "cat"], [90, 10, 40])]
)
def test_a_folder_without_test_holds_validation_out_of_train(
    photographs: Path, classes: list[str] | None, counts: list[int]
) -> None:
    root = photographs / "cifar10_sample"
    data = load_data("folder", root=root, classes=classes, image_size=32)
    assert data.class_names == tuple(classes or ("cat", "dog", "frog"))
    assert sizes(data) == counts
    assert {Path(path).parts[-3] for path in paths_of(data.test)} == {"val"}
    assert {Path(path).parts[-3] for path in paths_of(data.val)} == {"train"}
    assert not set(paths_of(data.train)) & set(paths_of(data.val))
    assert set(np.bincount(data.val.targets)) == {5}
    for part in (data.train, data.val, data.test):
        labels = [data.class_names.index(Path(path).parts[-2]) for path in paths_of(part)]
        assert part.targets.tolist() == labels
    with Image.open(paths_of(data.test)[0]) as file:
        pixels = torch.from_numpy(np.array(file)).permute(2, 0, 1)
    torch.testing.assert_close(data.test[0][0][:, 0], pixels / 255)  # 32 x 32 as they are


def test_a_folder_test_is_the_test_set(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs / "cifar10_sample", tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "val", tmp_path / "test")
    (tmp_path / "test" / "cat" / "0000.jpg").unlink()
    data = load_data("folder", root=tmp_path)
    assert sizes(data) == [150, 60, 59]


@pytest.mark.parametrize("augment", ["none", "crop_flip", "resized_crop_flip"])
def test_photographs_of_any_shape_become_frames(photographs: Path, augment: str) -> None:
    root = photographs / "imagenet_sample"
    data = load_data("folder", root=root, image_size=(48, 64), encoding="saccade", augment=augment)
    assert data.class_names == ("animal", "artifact_or_scene")
    assert (len(data.train) + len(data.val), len(data.test)) == (786, 214)
    for part in (data.train, data.test):
        frames, _ = part.batch(range(16))
        assert frames.shape == (16, 3, 5, 48, 64)
        assert 0 <= frames.min() < frames.max() <= 1


def test_broken_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROCONV_DATA", str(tmp_path / "none"))  # the default root
    with pytest.raises(DataError, match=f"{tmp_path}/none/train is not a folder: .*--data.root"):
        load_data("folder")
    write_photographs(tmp_path, train=10, val=3)
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(DataError, match=r"val has the classes \['c'\], which .*train has not"):
        load_data("folder", root=tmp_path)
    assert load_data("folder", root=tmp_path, classes=["b", "a"]).class_names == ("b", "a")
    for classes, message in (
        (["a", "bb"], "class of .*train='bb' is unknown; did you mean 'b'.*of a, b"),
        (["a", "a"], "expected two or more names, each once"),
        (["a"], "expected two or more names, each once"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data("folder", root=tmp_path, classes=classes)

    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(DataError, match=r"train has no images of the classes \['c'\] .*--data"):
        load_data("folder", root=tmp_path)
    (tmp_path / "train" / "c").rmdir()
    (tmp_path / "train" / "c").symlink_to(tmp_path / "train" / "a")
    with pytest.raises(DataError, match=r"\['c'\] \(skipped 1 .*: 1 folders linked again\)"):
        load_data("folder", root=tmp_path)

    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/val has no class folders: expected ROOT"):
        load_data("folder", root=tmp_path)


def test_what_is_no_image_is_skipped_and_counted_once(tmp_path: Path) -> None:
    write_photographs(tmp_path, train=10, val=3)
    image = tmp_path / "train/a/00.jpg"
    for name in (
        "train/.ipynb_checkpoints/x.jpg", "train/b/.ipynb_checkpoints/x.jpg", "val/a/._x.jpg",
        "val/a/._y.jpg", "train/.DS_Store", "val/b/.DS_Store", "val/x.jpg", "train/b/list.CSV",
        "train/a/Thumbs.db", "train/b/.x/x.jpg", "train/a/inner/é.JPEG",
        "Test/a/x.jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / name)
    (tmp_path / "train/a/inner/loop").symlink_to(tmp_path / "train/a")
    with pytest.warns(UserWarning, match=f"{tmp_path}: skipped 12 files and folders: ") as warned:
        data = load_data("folder", root=tmp_path)
    load_data("folder", root=tmp_path)  # and says nothing
    kinds = set(str(warned[0].message).partition("folders: ")[2].split(", "))
    several = {"2 .ipynb_checkpoints", "2 .DS_Store", "2 ._*", "1 folders linked again"}
    assert kinds == several | {
        f"1 {name}" for name in ("*.jpg", "*.csv", "Thumbs.db", ".x", "Test")
    }
    assert (data.class_names, sizes(data)) == (("a", "b"), [19, 2, 6])
    assert sorted({Path(path).name for path in paths_of(data.train)})[-1] == "é.JPEG"
