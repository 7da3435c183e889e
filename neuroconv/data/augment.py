"""Augmentation of training images (B batch, C channels, H height, W width).

The draws are torchvision's, by a generator with the sample's seed. "flip" and "crop_flip" move a
whole batch on its device; "resized_crop_flip" works image by image on the CPU.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Augment = Literal["none", "flip", "crop_flip", "resized_crop_flip"]
AUGMENTS: tuple[Augment, ...] = get_args(Augment)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales an image so that it just covers (H, W), and cuts the centre out."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    from torchvision.transforms.v2 import functional as F  # slow to import

    scale = max(size[0] / height, size[1] / width)
    covering = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    return F.center_crop(F.resize(image, covering, antialias=True), list(size))


def resized_crop_flip(
    images: Sequence[Tensor], seeds_B: NDArray[np.uint64], size: tuple[int, int]
) -> Tensor:
    """Cuts a random part out of each image (C, h, w), scales to (B, C, H, W), and flips half."""
    from torchvision.transforms import v2  # slow to import

    transform = nn.Sequential(
        v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True), v2.RandomHorizontalFlip()
    )
    augmented = []
    # torchvision draws from the global generator, and torch.manual_seed would reset CUDA's as well.
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds_B.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            augmented.append(transform(image))
    return torch.stack(augmented)


def flip(images_BCHW: Tensor, seeds_B: NDArray[np.uint64]) -> Tensor:
    """Mirrors each image with probability one half."""
    _, flipped = _draws(seeds_B, (0, 0))
    mirrored = torch.from_numpy(flipped).to(images_BCHW.device)[:, None, None, None]
    return torch.where(mirrored, images_BCHW.flip(-1), images_BCHW)


def crop_flip(images_BCHW: Tensor, seeds_B: NDArray[np.uint64]) -> Tensor:
    """Reflects the border outwards by an eighth of each side, cuts out H x W, and flips half."""
    B, _, H, W = images_BCHW.shape
    border = H // 8, W // 8
    corners, flipped = _draws(seeds_B, border)
    columns = np.where(flipped[:, None], np.arange(W)[::-1], np.arange(W))
    rows = _reflected(corners[:, :1] + np.arange(H) - border[0], H)
    columns = _reflected(corners[:, 1:] + columns - border[1], W)
    indices = np.arange(B)[:, None, None], rows[:, :, None], columns[:, None, :]
    image, row, column = (torch.from_numpy(index).to(images_BCHW.device) for index in indices)
    return images_BCHW[image, :, row, column].permute(0, 3, 1, 2).contiguous()


def _draws(
    seeds_B: NDArray[np.uint64], border: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draws corners (B, 2) in the padded image and flips (B,), as v2.RandomCrop and flip do."""
    generator = torch.Generator()
    corners, flipped = [], []
    for seed in seeds_B.tolist():
        generator.manual_seed(seed)
        corners.append([
            int(torch.randint(0, 2 * width + 1, (), generator=generator)) if width else 0
            for width in border
        ])  # fmt: skip
        flipped.append(torch.rand(1, generator=generator).item() < 0.5)
    return np.array(corners).reshape(-1, 2), np.array(flipped, dtype=np.bool_)


def _reflected(indices: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Reflects indices beyond either edge; the edge itself is not repeated."""
    return (side - 1) - np.abs((side - 1) - np.abs(indices))
