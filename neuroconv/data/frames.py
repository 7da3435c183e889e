"""A data set of still images as a data set of frames.

Shape legend: B batch, C channels, T time steps, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from neuroconv.data.encoding import ENCODINGS, encode, sample_seeds
from neuroconv.data.errors import check_choice

AUGMENTS = ("none", "flip", "crop_flip", "resized_crop_flip")


class Frames(Dataset[tuple[Tensor, int]]):
    """Wraps any map-style data set of (image, label) and gives (frames, label).

    The image is a tensor (C, h, w), uint8 (divided by 255) or float in [0, 1]. It is augmented (in
    training), brought to `image_size`, and encoded as `neuroconv.data.encode` describes. All
    randomness of a sample is a function of (seed, epoch, index), so a resumed or differently
    batched run meets identical frames. Outside of training the epoch counts as 0: evaluation
    frames never change.

    Args:
        dataset: has `len()` and `[i]`; its `__getitems__` is used if it has one.
        encoding: "repeat", "poisson", "saccade" or "none".
        time_steps: frames per image; unused by "none".
        image_size: (H, W); an image is scaled to cover it, then the centre is cut out. Default: the
            size of the first image, for data sets of one size.
        training: whether the epoch counts and augmentation applies.
        augment: "none", "flip" (left-right, one half of the time), "crop_flip" (reflect the border
            outwards by an eighth of the side, cut out a random H x W, flip) or "resized_crop_flip"
            (a random part of 35 to 100 % of the area, scaled to H x W, flip).
        seed: integer.

    Items: float32 frames (C, T, H, W), with encoding "none" an image (C, H, W); and the int label.

    Raises:
        ValueError: unknown encoding or augmentation, augmentation without training, an empty data
            set, an image that is not (C, h, w).
        TypeError: images that are not tensors.
    """

    def __init__(
        self,
        dataset: Dataset[tuple[Tensor, int]],
        encoding: str = "repeat",
        time_steps: int = 5,
        *,
        image_size: tuple[int, int] | None = None,
        training: bool = False,
        augment: str = "none",
        seed: int = 0,
    ) -> None:
        check_choice("encoding", encoding, ENCODINGS)
        check_choice("augment", augment, AUGMENTS)
        if augment != "none" and not training:
            raise ValueError(f"augment={augment!r} is for training data: pass training=True")
        if time_steps < 1:
            raise ValueError(f"time_steps={time_steps}, expected an integer of at least 1")
        if len(dataset) == 0:  # type: ignore[arg-type]  # torch's Dataset does not declare len
            raise ValueError("the data set is empty, expected at least one image")
        first = dataset[0][0]
        if not isinstance(first, Tensor):
            raise TypeError(
                f"the data set gives {type(first).__name__}, expected a tensor (C, H, W): for PIL "
                "images pass it transform=torchvision.transforms.v2.PILToTensor()"
            )
        if first.ndim != 3:
            raise ValueError(f"an image has shape {tuple(first.shape)}, expected (C, H, W)")
        self.dataset = dataset
        self.encoding = encoding
        self.time_steps = time_steps
        self.training = training
        self.augment = augment
        self.seed = seed
        height, width = image_size or first.shape[-2:]
        self.image_shape = (first.shape[0], int(height), int(width))
        self._transform = _transform(augment, (int(height), int(width)))
        # Shared memory: data-loader workers that outlive an epoch must see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw fresh frames and augmentations from now on; without effect outside of training."""
        if self.training:
            self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """A batch at once, as torch's DataLoader asks for it."""
        indices = [range(len(self))[i] for i in indices]  # -1 is the last one; IndexError beyond
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[i] for i in indices]
        images, labels = zip(*items, strict=True)
        seeds = sample_seeds(self.seed, int(self._epoch), indices)
        if self.augment == "none":
            images_BCHW = torch.stack([self._transform(image) for image in images])
        else:
            # torchvision draws from the global generator: borrow it, and give it back as it was.
            # torch.manual_seed would reset the generators of CUDA as well.
            with torch.random.fork_rng(devices=[]):
                augmented = []
                for image, seed in zip(images, seeds.tolist(), strict=True):
                    torch.default_generator.manual_seed(seed)
                    augmented.append(self._transform(image))
            images_BCHW = torch.stack(augmented)
        images_BCHW = F.to_dtype(images_BCHW, torch.float32, scale=True)  # 0..255 to 0..1
        frames = encode(images_BCHW, self.encoding, self.time_steps, seeds, self.seed)
        return [(x, int(label)) for x, label in zip(frames.unbind(), labels, strict=True)]


class _Fit(nn.Module):
    """Scale an image so that it just covers (H, W), and cut the centre out."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if (height, width) == self.size:
            return image
        scale = max(self.size[0] / height, self.size[1] / width)
        covering = [
            max(self.size[0], round(height * scale)),
            max(self.size[1], round(width * scale)),
        ]
        return F.center_crop(F.resize(image, covering, antialias=True), list(self.size))


def _transform(augment: str, size: tuple[int, int]) -> nn.Module:
    flip = v2.RandomHorizontalFlip()
    if augment == "flip":
        return nn.Sequential(_Fit(size), flip)
    if augment == "crop_flip":
        border = v2.Pad([size[1] // 8, size[0] // 8], padding_mode="reflect")
        return nn.Sequential(_Fit(size), border, v2.RandomCrop(size), flip)
    if augment == "resized_crop_flip":
        return nn.Sequential(v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True), flip)
    return _Fit(size)
