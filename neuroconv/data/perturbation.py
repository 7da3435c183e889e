"""Perturbations of a still image (C, H, W) with intensities in 0..1; level 0 changes nothing.

What is drawn is a function of the image's seed, the same at all levels. Emptied pixels are 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Perturbation = Callable[[Tensor, int], Tensor]  # of an image and its seed, to a new image


def add_noise(sigma: float, image_CHW: Tensor, seed: int) -> Tensor:
    """Adds Gaussian noise of standard deviation sigma to each intensity, and clips to 0..1."""
    generator = torch.Generator().manual_seed(seed)  # the CPU's: every device sees the same noise
    noise = torch.randn(image_CHW.shape, generator=generator).to(image_CHW.device)
    return noise.mul_(sigma).add_(image_CHW).clamp_(0, 1)


def shift(pixels: int, image_CHW: Tensor, seed: int) -> Tensor:
    """Moves an image right, left, down or up, as its seed modulo 4 is 0 to 3."""
    from torchvision.transforms.v2 import functional as F  # slow to import

    top, left = ((0, -pixels), (0, pixels), (-pixels, 0), (pixels, 0))[seed % 4]
    return F.crop(image_CHW, top, left, *image_CHW.shape[-2:])


def rotate(degrees: float, image_CHW: Tensor, seed: int) -> Tensor:
    """Turns an image about its centre, bilinearly: counter-clockwise if its seed is even."""
    from torchvision.transforms.v2 import InterpolationMode  # slow to import
    from torchvision.transforms.v2 import functional as F

    turned: Tensor = F.rotate(image_CHW, degrees * (-1) ** (seed % 2), InterpolationMode.BILINEAR)
    return turned.clamp_(0, 1)  # weights may sum to just above 1
