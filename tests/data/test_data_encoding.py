import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroconv.data import ENCODINGS, encode, saccade_path, saccade_step, sample_seeds
from neuroconv.data.encoding import EVENT_RATE, pixel_permutation, uniforms


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """One image (C, H, W) moved by whole pixels, pixel by pixel; zeros move in."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frames_of_a_sample_whatever_its_batch(encoding: str, dtype: torch.dtype) -> None:
    images, seeds = torch.rand(6, 2, 7, 8, dtype=dtype), sample_seeds(3, 1, range(6))
    frames = encode(images, encoding, 4, seeds)
    shape = {"none": (6, 2, 7, 8), "columns": (6, 2, 4, 7, 2)}.get(encoding, (6, 2, 4, 7, 8))
    assert frames.shape == shape
    assert frames.dtype == dtype
    assert frames.is_contiguous()
    for chosen in ([4], [5, 0, 2]):
        assert torch.equal(encode(images[chosen], encoding, 4, seeds[chosen]), frames[chosen])
    if encoding == "none":
        assert torch.equal(frames, images)
    if encoding == "repeat":
        assert all(torch.equal(frame, images) for frame in frames.unbind(2))
    if encoding == "columns":
        assert torch.equal(torch.cat(frames.unbind(2), -1), images)


def test_poisson_events_have_the_pixels_rate_and_no_memory() -> None:
    rates = torch.tensor([0.0, 0.05, 0.5, 0.9, 1.0])
    samples, steps = 200, 100
    images = rates.expand(samples, 1, 1, 5)
    events = encode(images, "poisson", steps, sample_seeds(0, 0, range(samples)))
    assert set(events.unique().tolist()) == {0.0, 1.0}
    assert events[..., 0].sum() == 0
    assert events[..., 4].min() == 1
    n = samples * steps
    deviation = (events.mean(dim=(0, 1, 2, 3)) - rates)[1:4] / (rates * (1 - rates) / n).sqrt()[1:4]
    assert deviation.abs().max() < 4.5  # standard deviations
    fair = events[:, 0, :, 0, 2]
    for a, b in [(fair[:, 1:], fair[:, :-1]), (fair[1:], fair[:-1])]:  # over time, over samples
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 4.5 / n**0.5


@pytest.mark.parametrize(("side", "steps"), [(6, 5), (20, 5), (20, 1), (9, 14)])
def test_saccade_moves_every_image_along_one_path(side: int, steps: int) -> None:
    images = torch.rand(4, 3, side, side + 1)
    for seed in (0, 7):
        frames = encode(images, "saccade", steps, sample_seeds(1, 2, range(4)), seed)
        path = saccade_path(steps, saccade_step(side, side + 1), seed)
        assert frames.shape == (4, 3, steps, side, side + 1)
        for b in range(4):
            for t, (down, right) in enumerate(path):
                assert torch.equal(frames[b, :, t], shifted(images[b], down, right))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("steps", "height", "width"), [(12, 28, 28), (5, 9, 12), (1, 8, 8)])
def test_moving_events_are_pixels_of_an_image_that_wraps_around(
    device: str, steps: int, height: int, width: int
) -> None:
    """Pixel by pixel: the path from the first two draws, the events from the others."""
    images, seeds = torch.rand(4, 2, height, width), sample_seeds(5, 1, range(4))
    frames = encode(images.to(device), "moving_events", steps, seeds).cpu()
    draws = uniforms(seeds, 2 + 2 * steps * height * width)
    for b, (turn, passed) in enumerate(draws[:, :2].double().tolist()):
        events = draws[b, 2:].view(2, steps, height, width)
        path = []
        for t in range(steps):
            share = t / (steps - 1) - passed if steps > 1 else 0.0
            distance = min(height, width) / 2 * share
            moves = (wave(2 * math.pi * turn) for wave in (math.sin, math.cos))
            path.append(tuple(round(distance * move) for move in moves))
            moved = images[b].roll(path[-1], (1, 2))
            assert torch.equal(frames[b, :, t], (events[:, t] < EVENT_RATE * moved).float())
        if steps > 1:  # it covers half of the shorter side, and rests in between
            assert abs(math.dist(path[0], path[-1]) - min(height, width) / 2) < 1.5
            assert (
                min(math.hypot(*move) for move in path) <= min(height, width) / 4 / (steps - 1) + 1
            )


def test_saccade_path_rests_first_and_visits_the_nearest_points_once() -> None:
    for seed in range(20):
        path = saccade_path(5, 2, seed)
        assert path[0] == (0, 0)
        assert sorted(path[1:]) == [(-2, 0), (0, -2), (0, 2), (2, 0)]
        longer = saccade_path(30, 1, seed)
        radii = [down**2 + right**2 for down, right in longer]
        assert len(set(longer)) == 30
        assert radii == sorted(radii)
    assert len({tuple(saccade_path(5, 2, seed)) for seed in range(200)}) == 24  # all orders of four


def test_saccade_step_grows_with_the_shorter_side() -> None:
    sides = [8, 16, 17, 28, 64, 96, 224]
    assert [saccade_step(side, 300) for side in sides] == [1, 1, 2, 2, 2, 3, 7]
    assert saccade_step(300, 8) == 1


def splitmix64(state: int) -> int:
    """One output of the generator in Python's integers, from its published description."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


SEEDS = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 0xDEADBEEFCAFEF00D, 2**64 - 0x9E3779B97F4A7C15]


@pytest.mark.parametrize("count", [1, 2, 7, 400])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_uniforms_on_a_device_are_those_of_pythons_integers(count: int, device: str) -> None:
    """Signed 64-bit arithmetic on the device, for seeds of either sign bit."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published stream's first output
    drawn = uniforms(np.array(SEEDS, dtype=np.uint64), count, device)
    assert drawn.device.type == device
    for row, seed in zip((drawn.cpu().double() * 2**24).tolist(), SEEDS, strict=True):
        words = [splitmix64((seed + k * 0x9E3779B97F4A7C15) % 2**64) for k in range(-(-count // 2))]
        assert row == [half >> 8 for w in words for half in (w & 0xFFFFFFFF, w >> 32)][:count]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_poisson_frames_are_pixels_above_their_draws(device: str) -> None:
    images, seeds = torch.rand(50, 3, 9, 11), sample_seeds(3, 7, range(50))
    draws = uniforms(seeds, 3 * 5 * 9 * 11)
    expected = (draws.view(50, 3, 5, 9, 11) < images.unsqueeze(2)).float()
    assert torch.equal(encode(images.to(device), "poisson", 5, seeds).cpu(), expected)


@pytest.mark.parametrize(("seed", "epoch", "index"), [(0, 0, 0), (-1, 2, 3), (2**63, 90, 59_999)])
def test_sample_seeds_never_change(seed: int, epoch: int, index: int) -> None:
    """A run that is resumed under a later version must meet the frames it would have met."""
    expected = splitmix64(splitmix64(splitmix64(seed % 2**64) ^ epoch) ^ index)
    assert sample_seeds(seed, epoch, [5, index]).tolist()[1] == expected


def test_the_permutation_never_changes() -> None:
    for pixels in (1, 12, 784):
        hashes = [splitmix64(splitmix64(splitmix64(0)) ^ pixel) for pixel in range(pixels)]
        order = sorted(range(pixels), key=hashes.__getitem__)
        assert pixel_permutation(pixels).tolist() == order
    assert pixel_permutation(784)[:5].tolist() == [264, 272, 238, 28, 556]


@pytest.mark.parametrize(
    ("images", "encoding", "steps", "seeds", "error", "message"),
    [
        (torch.rand(2, 3, 4), "repeat", 5, [0, 1], ValueError, r"\(2, 3, 4\), expected \(B, C"),
        (torch.ones(1, 1, 2, 2).byte(), "repeat", 5, [0], TypeError, "torch.uint8, expected float"),
        (torch.rand(1, 1, 2, 2), "repeat", 0, [0], ValueError, "time_steps=0; expected"),
        (torch.rand(2, 1, 2, 2), "repeat", 5, [0], ValueError, "1 sample seeds for 2 images"),
        (torch.full((1, 1, 2, 2), -0.5), "poisson", 5, [0], ValueError, r"-0.5.*in \[0, 1\]"),
        (torch.full((1, 1, 2, 2), np.nan), "poisson", 5, [0], ValueError, r"nan.*in \[0, 1\]"),
        (torch.full((1, 1, 2, 2), 1.5), "moving_events", 5, [0], ValueError, "1.5: moving_events"),
        (torch.rand(1, 1, 2, 9), "columns", 4, [0], ValueError, "time_steps=4: .*9 columns"),
        (torch.rand(1, 1, 2, 2), "posson", 5, [0], ValueError,
         "encoding='posson'; did you mean 'poisson'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(
    images: Tensor, encoding: str, steps: int, seeds: list[int], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(images, encoding, steps, seeds)
