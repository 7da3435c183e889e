import pickle
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from neuroconv.data import AUGMENTS, ENCODINGS, Frames, load_data

RANDOM = ["poisson", "saccade"]


@pytest.fixture
def images() -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(3, 16, 16, generator=generator), i % 4) for i in range(20)]


def pairs(items: Any) -> Any:
    """Any sequence of pairs works as a data set; the annotation asks for torch's class."""
    return items


def all_frames(frames: Frames) -> Tensor:
    return torch.stack([frames[i][0] for i in range(len(frames))])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_batches_hold_what_single_items_hold(
    images: list[tuple[Tensor, int]], encoding: str, augment: str
) -> None:
    frames = Frames(pairs(images), encoding, 3, training=True, augment=augment, seed=5)
    frames.set_epoch(2)
    one_by_one = all_frames(frames)
    for batch_size in (1, 7, 20):
        loader = DataLoader(frames, batch_size=batch_size)
        batches, labels = zip(*loader, strict=True)
        assert torch.equal(torch.cat(batches), one_by_one)
        assert torch.cat(labels).tolist() == [label for _, label in images]
    shuffled = Frames(pairs(images), encoding, 3, training=True, augment=augment, seed=5)
    shuffled.set_epoch(2)  # a new object, as in a resumed run
    order = [13, 2, 19, 2]
    assert torch.equal(torch.stack([x for x, _ in shuffled.__getitems__(order)]), one_by_one[order])


def test_poisson_frames_are_a_function_of_seed_epoch_and_index(
    images: list[tuple[Tensor, int]],
) -> None:
    same = [images[0]] * 20  # only the index tells the samples apart
    seen = {}
    for seed in (0, 1):
        frames = Frames(pairs(same), "poisson", 8, training=True, seed=seed)
        for epoch in (0, 1):
            frames.set_epoch(epoch)
            seen[seed, epoch] = all_frames(frames)
        frames.set_epoch(0)
        assert torch.equal(all_frames(frames), seen[seed, 0])
    distinct = {x.numpy().tobytes() for batch in seen.values() for x in batch}
    assert len(distinct) == 2 * 2 * 20


def test_saccade_frames_are_a_function_of_the_seed_alone(
    images: list[tuple[Tensor, int]],
) -> None:
    frames = Frames(pairs(images), "saccade", 5, training=True, seed=0)
    first = all_frames(frames)
    frames.set_epoch(3)
    assert torch.equal(all_frames(frames), first)
    assert not torch.equal(all_frames(Frames(pairs(images), "saccade", 5, seed=1)), first)


def test_evaluation_frames_never_change(images: list[tuple[Tensor, int]]) -> None:
    frames = Frames(pairs(images), "saccade", 5)
    before = all_frames(frames)
    frames.set_epoch(3)
    assert torch.equal(all_frames(frames), before)


def test_workers_that_outlive_an_epoch_see_the_next_one() -> None:
    frames = load_data("digits", encoding="poisson", train_limit=20).train
    loader = DataLoader(frames, batch_size=20, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        frames.set_epoch(epoch)
        (batch, _), *_ = loader
        assert torch.equal(batch, all_frames(frames))


@pytest.mark.parametrize("augment", AUGMENTS[1:])
def test_augmentation_depends_on_the_epoch_and_leaves_the_global_generator(
    images: list[tuple[Tensor, int]], augment: str
) -> None:
    frames = Frames(pairs(images), "none", training=True, augment=augment)
    state = torch.get_rng_state()
    first = all_frames(frames)
    frames.set_epoch(1)
    assert not torch.equal(all_frames(frames), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_flip_gives_the_image_or_its_mirror_image(images: list[tuple[Tensor, int]]) -> None:
    frames = Frames(pairs(images * 10), "none", training=True, augment="flip")
    mirrored = 0
    for (image, _), result in zip(images * 10, all_frames(frames), strict=True):
        mirrored += torch.equal(result, image.flip(-1))
        assert torch.equal(result, image) or torch.equal(result, image.flip(-1))
    assert 65 < mirrored < 135  # of 200; five standard deviations


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_flip_cuts_from_the_reflected_image(dtype: torch.dtype) -> None:
    image = torch.arange(16 * 8).view(1, 16, 8).to(dtype)
    frames = Frames(pairs([(image, 0)] * 60), "none", training=True, augment="crop_flip")
    # An eighth of each side, reflected: 2 rows and 1 column on either side.
    rows = [2, 1, *range(16), 14, 13]
    columns = [1, *range(8), 6]
    scaled = image.float() / (255 if dtype == torch.uint8 else 1)
    border = scaled[:, rows][:, :, columns]
    crops = [border[:, y : y + 16, x : x + 8] for y in range(5) for x in range(3)]
    allowed = torch.stack(crops + [crop.flip(-1) for crop in crops])
    equal = (all_frames(frames)[:, None] - allowed).abs().amax(dim=(2, 3, 4)) < 1e-6
    assert equal.any(dim=1).all()
    assert equal.any(dim=0).sum() > 15  # of 30 ways, in 60 draws


def test_resized_crop_flip_gives_the_size_from_any_size() -> None:
    images = [(torch.rand(3, 20 + i, 40 - i), i) for i in range(12)]
    frames = Frames(
        pairs(images), "none", image_size=(12, 10), training=True, augment="resized_crop_flip"
    )
    assert frames.image_shape == (3, 12, 10)
    assert all_frames(frames).shape == (12, 3, 12, 10)


def test_evaluation_images_are_scaled_to_cover_and_cut_to_the_centre() -> None:
    tall = torch.zeros(1, 40, 20)
    tall[:, 8:32] = 1  # the middle 20 rows are kept; smoothing reaches 2 rows further
    frames = Frames(pairs([(tall, 0), (tall.mT.contiguous(), 1)]), "none", image_size=(10, 10))
    assert torch.equal(frames[0][0], torch.ones(1, 10, 10))
    assert torch.equal(frames[1][0], torch.ones(1, 10, 10))
    wide = Frames(pairs([(torch.rand(1, 50, 50), 0)]), "none", image_size=(8, 32))
    assert wide[0][0].shape == (1, 8, 32)


def test_bytes_become_intensities() -> None:
    image = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    frames, label = Frames(pairs([(image, 3)]), "repeat", 2)[0]
    assert label == 3
    torch.testing.assert_close(frames, torch.tensor([0.0, 0.2, 1.0]).expand(1, 2, 1, 3))


def test_indices_behave_as_in_a_list(images: list[tuple[Tensor, int]]) -> None:
    frames = Frames(pairs(images), "poisson", 3)
    assert torch.equal(frames[-1][0], frames[19][0])
    with pytest.raises(IndexError):
        frames[20]
    assert sum(1 for _ in iter(frames)) == 20  # which ends by IndexError


def test_torchs_own_wrappers_and_pickle_work(images: list[tuple[Tensor, int]]) -> None:
    frames = Frames(pairs(images), "saccade", 3)
    assert torch.equal(pickle.loads(pickle.dumps(frames))[4][0], frames[4][0])
    assert torch.equal(Subset(frames, [4, 5])[0][0], frames[4][0])
    nested = Frames(Subset(pairs(images), [4, 5]), "none")
    assert torch.equal(nested[1][0], images[5][0])


@pytest.mark.parametrize(
    ("items", "keywords", "error", "message"),
    [
        ([], {}, ValueError, "data set is empty"),
        ([(Image.new("L", (4, 4)), 0)], {}, TypeError, "Image.*PILToTensor"),
        ([(torch.rand(4, 4), 0)], {}, ValueError, r"\(4, 4\), expected \(C, H, W\)"),
        ([(torch.rand(1, 4, 4), 0)], {"encoding": "sacade"}, ValueError, "mean 'saccade'"),
        ([(torch.rand(1, 4, 4), 0)], {"augment": "crop-flip"}, ValueError, "mean 'crop_flip'"),
        ([(torch.rand(1, 4, 4), 0)], {"augment": "flip"}, ValueError, "training=True"),
        ([(torch.rand(1, 4, 4), 0)], {"time_steps": 0}, ValueError, "time_steps=0"),
    ],
)
def test_bad_input_is_named(items: Any, keywords: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Frames(items, **keywords)
