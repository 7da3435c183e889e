import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from neuroconv.data import AUGMENTS, ENCODINGS, Frames, encode, load_data, sample_seeds
from neuroconv.data.augment import fit
from neuroconv.data.cache import FittedStills
from neuroconv.data.stills import ImageTensors

# Augmentation comes before encoding and does not know it: not every pair of the two.
PAIRS = [("poisson", augment) for augment in AUGMENTS]
PAIRS += [(encoding, "crop_flip") for encoding in ENCODINGS if encoding != "poisson"]


@pytest.fixture
def images() -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(3, 16, 16, generator=generator), i % 4) for i in range(20)]


def pairs(items: Any) -> Any:
    """Any sequence of pairs works as a data set; the annotation asks for torch's class."""
    return items


def all_frames(frames: Frames) -> Tensor:
    return torch.stack([frames[i][0] for i in range(len(frames))])


def one_by_one(frames: Frames, stills: Any) -> Tensor:
    """Transforms every item on its own by torchvision, under the global generator."""
    size = frames._size
    if frames.augment == "resized_crop_flip":
        first: list[nn.Module] = [v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True)]
    else:
        first = [v2.Lambda(partial(fit, size=size))]
    if frames.augment == "crop_flip":
        first += [v2.Pad([size[1] // 8, size[0] // 8], padding_mode="reflect"), v2.RandomCrop(size)]
    if frames.augment != "none":
        first.append(v2.RandomHorizontalFlip())
    transform = nn.Sequential(*first)
    result = []
    for index, (image, _) in enumerate(stills):
        seeds = sample_seeds(frames.seed, int(frames._epoch), [index])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seeds[0]))
            image = transform(image)
        image = F.to_dtype(image, torch.float32, scale=True)[None]
        result.append(encode(image, frames.encoding, frames.time_steps, seeds, frames.seed)[0])
    return torch.stack(result)


@pytest.mark.parametrize(("encoding", "augment"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(16, 20), (7, 12)])  # as they are, and fitted; 7 // 8 is 0
def test_a_batch_is_what_torchvision_makes_of_each_image(
    encoding: str, augment: str, dtype: torch.dtype, size: tuple[int, int]
) -> None:
    if dtype == torch.uint8:
        images = torch.randint(0, 256, (12, 3, 16, 20), dtype=dtype)
    else:
        images = torch.rand(12, 3, 16, 20, dtype=dtype)
    numbers = np.arange(12) % 5
    keywords: Any = {"image_size": size, "training": True, "augment": augment, "seed": 5}
    tensors = ImageTensors(images, numbers)
    for stills in (tensors, [tensors[i] for i in range(12)], FittedStills(tensors, size)):
        if isinstance(stills, FittedStills) and augment == "resized_crop_flip":
            continue  # which would need the whole image
        frames = Frames(pairs(stills), encoding, 4, **keywords)
        frames.set_epoch(3)
        expected = one_by_one(frames, [tensors[i] for i in range(12)])
        order = [7, 0, -1, 7]
        state = torch.get_rng_state()
        for _ in range(2):  # decoded, and cached
            batch, labels = frames.batch(order)
            assert torch.equal(batch, expected[order])
            assert batch.dtype == torch.float32
            assert batch.is_contiguous()
            assert labels.dtype == torch.int64
            assert labels.tolist() == numbers[order].tolist()
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(images, tensors.images)


def test_crops_reach_every_corner_that_torchvisions_do() -> None:
    """Many draws, at sides of 8 (a border of 1) and 40 (of 5)."""
    images = ImageTensors(torch.randint(0, 256, (300, 1, 8, 40), dtype=torch.uint8), np.zeros(300))
    frames = Frames(images, "none", training=True, augment="crop_flip")
    expected = one_by_one(frames, [images[i] for i in range(300)])
    assert torch.equal(frames.batch(range(300))[0], expected)


def test_intensities_out_of_range_are_an_error_of_poisson_alone() -> None:
    images = ImageTensors(torch.full((2, 1, 4, 4), 1.5), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"intensities 1.5.*images in \[0, 1\]"):
        Frames(images, "poisson").batch([0, 1])
    assert Frames(images, "saccade").batch([0, 1])[0].max() == 1.5


def test_images_lie_on_a_device_once_and_only_where_they_need_no_new_size() -> None:
    bytes_ = ImageTensors(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), np.zeros(6, np.int64))
    frames = Frames(bytes_, "saccade")
    assert frames.resident() is bytes_.images  # no copy
    assert Frames(bytes_, image_size=(4, 4)).resident() is None
    assert Frames(bytes_, training=True, augment="resized_crop_flip").resident() is None
    assert Frames(pairs([bytes_[0]])).resident() is None
    fitted = Frames(FittedStills(bytes_, (4, 4)), image_size=(4, 4))  # which has decoded the first
    assert fitted.resident() is None
    assert fitted.resident(at_once=4) is None
    resident = fitted.resident(at_once=5)
    assert resident.shape == (6, 1, 4, 4)
    assert fitted.resident() is resident


def test_poisson_frames_are_a_function_of_seed_epoch_and_index() -> None:
    same, epochs = [(torch.rand(3, 16, 16), 0)] * 20, {}  # only the index tells the samples apart
    for seed in (0, 1):
        frames = Frames(pairs(same), "poisson", 8, training=True, seed=seed)
        for epoch in (0, 1):
            frames.set_epoch(epoch)
            epochs[seed, epoch] = all_frames(frames)
        frames.set_epoch(0)
        assert torch.equal(all_frames(frames), epochs[seed, 0])
    distinct = {x.numpy().tobytes() for batch in epochs.values() for x in batch}
    assert len(distinct) == 2 * 2 * 20


def test_saccade_frames_are_a_function_of_the_seed_alone(images: list[tuple[Tensor, int]]) -> None:
    first = all_frames(Frames(pairs(images), "saccade", 5))
    frames = Frames(pairs(images), "saccade", 5, training=True)
    frames.set_epoch(3)
    assert torch.equal(all_frames(frames), first)
    assert not torch.equal(all_frames(Frames(pairs(images), "saccade", 5, seed=1)), first)


def test_workers_that_outlive_an_epoch_see_the_next_one() -> None:
    frames = load_data("digits", encoding="poisson", train_limit=20).train
    loader = DataLoader(frames, batch_size=20, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        frames.set_epoch(epoch)
        (batch, _), *_ = loader
        assert torch.equal(batch, all_frames(frames))


def test_evaluation_images_are_scaled_to_cover_and_cut_to_the_centre() -> None:
    tall = torch.zeros(1, 40, 20)
    tall[:, 8:32] = 1  # the middle 20 rows are kept; smoothing reaches 2 rows further
    frames = Frames(pairs([(tall, 0), (tall.mT.contiguous(), 1)]), "none", image_size=(10, 10))
    assert torch.equal(frames[0][0], torch.ones(1, 10, 10))
    assert torch.equal(frames[1][0], torch.ones(1, 10, 10))
    wide = Frames(pairs([(torch.rand(1, 50, 50), 0)]), "none", image_size=(8, 32))
    assert wide[0][0].shape == (1, 8, 32)


def test_frames_are_a_sequence_for_torchs_wrappers_and_pickle(
    images: list[tuple[Tensor, int]],
) -> None:
    frames = Frames(pairs(images), "poisson", 3)
    assert torch.equal(frames[-1][0], frames[19][0])
    with pytest.raises(IndexError):
        frames[20]
    assert torch.equal(pickle.loads(pickle.dumps(frames))[4][0], frames[4][0])
    assert torch.equal(Subset(frames, [4, 5])[0][0], frames[4][0])
    nested = Frames(Subset(pairs(images), [4, 5]), "none")
    assert torch.equal(nested[1][0], images[5][0])


BYTES = torch.full((1, 4, 4), 128, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("items", "keywords", "error", "message"),
    [
        ([], {}, ValueError, "data set is empty"),
        ([(Image.new("L", (4, 4)), 0)], {}, TypeError, "Image.*PILToTensor"),
        ([(torch.rand(4, 4), 0)], {}, ValueError, r"\(4, 4\), expected \(C, H, W\)"),
        ([(torch.rand(1, 4, 4), 0)], {"augment": "flip"}, ValueError, "training=True"),
        ([(torch.rand(1, 4, 4), 0)], {"time_steps": 2.5}, ValueError, "time_steps=2.5; expected"),
        ([(torch.rand(1, 4, 4), 0)], {"image_size": (4, 0)}, ValueError, r"image_size=\(4, 0\)"),
        ([(torch.ones(1, 4, 4, dtype=int), 0)], {}, TypeError, "int64, expected uint8, or floats"),
        ([(BYTES, 0), (BYTES / 255, 1)], {}, ValueError,
         "image 1 has 1 .*float32, expected 1 of uint8"),
        ([(BYTES / 255, 0), (BYTES, 1)], {}, ValueError, "image 1 .*uint8, expected 1 of floats"),
        ([(BYTES, 0), (BYTES.expand(3, 4, 4), 1)], {}, ValueError, "has 3 channels .*expected 1"),
        ([(BYTES, 0), (BYTES.int(), 1)], {}, TypeError, "int32, expected uint8, or floats"),
    ],
)  # fmt: skip
def test_bad_input_is_named(items: Any, keywords: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Frames(items, **keywords).batch(range(len(items)))
