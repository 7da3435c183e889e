"""Still images as frames (B batch, C channels, T time steps, H height, W width)."""

import copy
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from neuroconv.core.arguments import Rule, Seed, Size, checked
from neuroconv.core.checks import pair
from neuroconv.data.augment import Augment, crop_flip, fit, flip, resized_crop_flip
from neuroconv.data.cache import SHARE, DecodedFiles, FittedStills
from neuroconv.data.encoding import (
    DRAWN,
    Encoding,
    check_columns,
    encode,
    pixel_permutation,
    sample_seeds,
    to_frames,
)
from neuroconv.data.items import fetch
from neuroconv.data.perturbation import Perturbation
from neuroconv.data.stills import ImageFiles, ImageTensors

MapStyle = Annotated[
    Any,
    Rule(
        "a data set with len() and [i]",
        lambda data: hasattr(data, "__len__") and hasattr(data, "__getitem__"),
    ),
]

_DRAWLESS = ImageTensors | FittedStills | DecodedFiles | ImageFiles  # items without random numbers


def _image(image: Any) -> Tensor:
    if not isinstance(image, Tensor):
        raise TypeError(
            f"the data set gives {type(image).__name__}, expected a tensor (C, H, W): for PIL "
            "images pass it transform=torchvision.transforms.v2.PILToTensor()"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"an image is {image.dtype}, expected uint8, or floats in [0, 1]")
    if image.ndim != 3:
        raise ValueError(f"an image has shape {tuple(image.shape)}, expected (C, H, W)")
    return image


@checked
class Frames(Dataset[tuple[Tensor, int]]):
    """A map-style data set of (image, label) as one of (frames, label).

    Images are tensors (C, h, w), uint8 (divided by 255) or float in [0, 1]. All randomness of a
    sample is a function of (seed, epoch, index); outside of training the epoch counts as 0. So are
    draws of the data set from torch's, numpy's and Python's default generators (see `fetch`).

    Args:
        dataset: has `len()` and `[i]`; its `__getitems__` is used if it has one.
        encoding, time_steps: see `neuroconv.data.encode`.
        image_size: (H, W); an image is scaled to cover it, then the centre is cut out. Default:
            the size of the first image.
        training: whether the epoch counts and augmentation applies.
        augment: "none", "flip" (left-right, one half of the time), "crop_flip" (reflect the border
            outwards by an eighth of the side, cut out a random H x W, flip) or "resized_crop_flip"
            (a random part of 35 to 100 % of the area, scaled to H x W, flip).
        permute: whether the pixels of every image are exchanged by `pixel_permutation`, after
            augmentation and perturbation, and before the encoding.

    Shape:
        an item: float32 (C, T, H, W), or (C, H, W) with encoding "none", or (C, T, H, W / T) with
        "columns"; and an int label

    Raises:
        ValueError: an unknown name, augmentation without training, no or misshapen images.
        TypeError: images that are not tensors, or of other integers than uint8.
    """

    def __init__(
        self,
        dataset: MapStyle,
        encoding: Encoding = "repeat",
        time_steps: Size = 5,
        *,
        image_size: Size | tuple[Size, Size] | None = None,
        training: bool = False,
        augment: Augment = "none",
        permute: bool = False,
        seed: Seed = 0,
    ) -> None:
        if augment != "none" and not training:
            raise ValueError(f"augment={augment!r} is for training data: pass training=True")
        if len(dataset) == 0:
            raise ValueError("the data set is empty, expected at least one image")
        first = _image(fetch(dataset, [0], seed, 0)[0][0])
        self.dataset, self.encoding, self.time_steps = dataset, encoding, time_steps
        self.training, self.augment, self.seed = training, augment, seed
        self._size: tuple[int, int] = pair(image_size or (first.shape[1], first.shape[2]))
        height, width = self._size
        check_columns(encoding, time_steps, width)
        self.permutation = pixel_permutation(height * width) if permute else None
        width = width // time_steps if encoding == "columns" else width
        self.image_shape = (first.shape[0], height, width)
        self._bytes = first.dtype == torch.uint8
        self._resident: dict[torch.device, Tensor] = {}
        self._perturbation: Perturbation | None = None
        # Shared memory: data-loader workers that outlive an epoch must see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def targets(self) -> NDArray[np.int64]:
        """Labels (N,), if the data set knows them as `load_data`'s do."""
        return self.dataset.targets

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch's frames and augmentations; without effect outside of training."""
        if self.training:
            self._epoch.fill_(epoch)

    def perturbed(self, perturbation: Perturbation) -> "Frames":
        """Returns the same data, with a function of (image in 0..1, seed) before the encoding."""
        frames = copy.copy(self)
        frames._perturbation, frames._resident = perturbation, self._resident
        return frames

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        frames, labels = self.batch(indices)
        return list(zip(frames.unbind(), labels.tolist(), strict=True))

    def batch(
        self, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Returns frames (B, ...), encoded on the device, and int64 labels (B,) on the CPU."""
        resident = self.resident(device)
        if resident is None:
            images, labels = self.images(indices)
            return self.encode(images.to(device), indices), labels
        rows = torch.tensor(self._checked(indices))
        labels = torch.from_numpy(self.targets)[rows]
        return self.encode(resident[rows.to(resident.device)], indices), labels

    def images(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Reads fitted images (B, C, H, W), before "flip" or "crop_flip", and labels (B,)."""
        indices = self._checked(indices)
        if isinstance(self.dataset, ImageTensors | FittedStills):
            images, labels = self.dataset.gather(indices)
            if self.augment != "resized_crop_flip" and images.shape[-2:] == self._size:
                return images, labels
            unfitted: Sequence[Tensor] = images.unbind()
        else:
            if isinstance(self.dataset, _DRAWLESS):
                items = [self.dataset[i] for i in indices]
            else:
                items = fetch(self.dataset, indices, self.seed, int(self._epoch))
            unfitted, numbers = zip(*items, strict=True)
            labels = torch.tensor([int(number) for number in numbers])
            for index, image in zip(indices, map(_image, unfitted), strict=True):
                if (len(image), image.dtype == torch.uint8) != (self.image_shape[0], self._bytes):
                    kind = "uint8" if self._bytes else "floats"
                    raise ValueError(
                        f"image {index} has {len(image)} channels of {image.dtype}, expected "
                        f"{self.image_shape[0]} of {kind}, as the first image has"
                    )
        if self.augment == "resized_crop_flip":
            return resized_crop_flip(unfitted, self._seeds(indices), self._size), labels
        return torch.stack([fit(image, self._size) for image in unfitted]), labels

    def encode(self, images_BCHW: Tensor, indices: Sequence[int]) -> Tensor:
        """Augments the result of `images` on its device, scales it to 0..1, and encodes it."""
        if self._perturbation or self.encoding in DRAWN or "flip" in self.augment:
            seeds = self._seeds(self._checked(indices))
        else:  # nothing is drawn
            seeds = np.zeros(len(images_BCHW), dtype=np.uint64)
        if self.augment == "flip":
            images_BCHW = flip(images_BCHW, seeds)
        elif self.augment == "crop_flip":
            images_BCHW = crop_flip(images_BCHW, seeds)
        scaled, is_float = images_BCHW.to(torch.float32), images_BCHW.is_floating_point()
        if not is_float:
            scaled.mul_(1 / torch.iinfo(images_BCHW.dtype).max)  # 0..255 to 0..1
        if self._perturbation is not None:
            images = zip(scaled, seeds.tolist(), strict=True)
            scaled = torch.stack([self._perturbation(*image) for image in images])
        if self.permutation is not None:
            pixels = torch.from_numpy(self.permutation).to(scaled.device)
            scaled = scaled.flatten(2)[..., pixels].view_as(scaled)
        encoder = encode if is_float else to_frames  # floats may lie outside of 0..1
        return encoder(scaled, self.encoding, self.time_steps, seeds, self.seed)

    def resident(self, device: torch.device | str = "cpu", at_once: int = 0) -> Tensor | None:
        """Returns all images (N, C, H, W) on the device, None if they cannot stay there.

        They must be in memory at their final size, but for `at_once` images that are decoded now,
        and fit into a quarter of the device's free memory.
        """
        device = torch.device(device)
        if device in self._resident:
            return self._resident[device]
        if not isinstance(self.dataset, ImageTensors | FittedStills):
            return None
        whole = None if self.augment == "resized_crop_flip" else self.dataset.whole(at_once)
        if whole is None or whole.shape[-2:] != self._size:
            return None
        if device.type == "cuda" and whole.nbytes > torch.cuda.mem_get_info(device)[0] // SHARE:
            return None
        self._resident[device] = whole.to(device)
        return self._resident[device]

    @property
    def threadsafe(self) -> bool:
        """Whether `images` draws from no generator of the process."""
        return isinstance(self.dataset, _DRAWLESS) and self.augment != "resized_crop_flip"

    def _checked(self, indices: Sequence[int]) -> list[int]:
        rows = range(len(self))
        return [rows[i] for i in indices]  # -1 is the last one; IndexError beyond

    def _seeds(self, indices: Sequence[int]) -> NDArray[np.uint64]:
        return sample_seeds(self.seed, int(self._epoch), indices)

    def __getstate__(self) -> dict[str, object]:
        # Another process gathers on its own device.
        return {**self.__dict__, "_resident": {}}
