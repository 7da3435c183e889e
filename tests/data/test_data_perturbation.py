"""Noise, shift and rotation of still images, before the encoding."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from neuroconv.data import ENCODINGS, Frames, encode, sample_seeds
from neuroconv.data.encoding import pixel_permutation
from neuroconv.data.perturbation import add_noise, rotate, shift
from neuroconv.data.stills import ImageTensors

SIZES = [(3, 7, 7), (1, 8, 8), (3, 6, 9), (1, 1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_a_shift_rolls_and_empties(size: tuple[int, ...]) -> None:
    image = torch.rand(size)
    for pixels in range(min(size[1:])):
        for seed, (axis, sign) in enumerate([(2, 1), (2, -1), (1, 1), (1, -1)]):
            rolled = image.roll(sign * pixels, axis)
            wrapped = range(pixels) if sign == 1 else range(size[axis] - pixels, size[axis])
            rolled.index_fill_(axis, torch.tensor(list(wrapped), dtype=torch.long), 0)
            assert torch.equal(shift(pixels, image, seed + 4), rolled)


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_is_scipys_and_by_right_angles_exact(size: tuple[int, ...]) -> None:
    image = torch.rand(size)
    for degrees in (0, 15, 45, 90, 200):
        for seed, sign in ((6, 1), (7, -1)):
            result = rotate(degrees, image, seed)
            expected = ndimage.rotate(
                image.double().numpy(), sign * degrees, axes=(1, 2), order=1, reshape=False,
                mode="grid-constant",
            )  # fmt: skip
            np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
            if degrees == 0 or (degrees == 90 and size[1] == size[2]):
                assert torch.equal(result, torch.rot90(image, sign * degrees // 90, (1, 2)))


def test_noise_is_gaussian_clipped_and_scaled_by_its_level() -> None:
    grey = torch.full((3, 200, 200), 0.5)
    noise = (add_noise(0.08, grey, 5) - 0.5) / 0.08
    assert abs(noise.mean()) < 5 / math.sqrt(noise.numel())  # standard errors
    assert abs(noise.std() - 1) < 5 / math.sqrt(2 * noise.numel())
    assert abs((noise.abs() < 1).double().mean() - math.erf(math.sqrt(0.5))) < 0.007
    assert not torch.equal(add_noise(0.08, grey, 6), add_noise(0.08, grey, 5))
    assert torch.equal(add_noise(0, grey, 5), grey)
    for sigma in (0.04, 0.5):
        expected = (0.5 + sigma * noise).clamp(0, 1)
        torch.testing.assert_close(add_noise(sigma, grey, 5), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("scale", "permute"), [(1, False), (255, False), (255, True)])
def test_frames_are_of_perturbed_stills_in_any_order(
    encoding: Any, scale: int, permute: bool
) -> None:
    """The perturbation is of the image, its result is permuted, and then encoded."""
    stills = torch.randint(256, (6, 3, 12, 14), dtype=torch.uint8)
    data = ImageTensors(stills if scale == 255 else stills / 255, np.arange(6))
    frames = Frames(data, encoding, 3, image_size=(6, 9), permute=permute, seed=9)
    order_of_pixels = pixel_permutation(54) if permute else range(54)
    perturbed = frames.perturbed(partial(add_noise, 0.3))
    order = [4, 0, 5, 2]
    batch, labels = perturbed.batch(order)
    assert labels.tolist() == order
    for sample, index in zip(batch, order, strict=True):
        (seed,) = sample_seeds(9, 0, [index])
        image = add_noise(0.3, frames.images([index])[0][0] / scale, int(seed))
        image = torch.stack([image.flatten(1)[:, i] for i in order_of_pixels], 1).view_as(image)
        torch.testing.assert_close(sample, encode(image[None], encoding, 3, [seed], 9)[0])
        assert torch.equal(perturbed[index][0], sample)
        assert not torch.equal(frames[index][0], sample)
