"""Encoding of an image into frames, and the random numbers for it.

Shape legend: B batch, C channels, T time steps, H height, W width. A random number is a hash of
(seed, epoch, index) and of its position in the sample: batch, order and worker play no part.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.core.arguments import Seed, Size, checked

Encoding = Literal["repeat", "poisson", "saccade", "moving_events", "columns", "none"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
DRAWN = ("poisson", "moving_events")  # from a sample's seed

EVENT_RATE = 0.15  # events of a pixel of intensity 1 in a frame of `moving_events`

# SplitMix64's step, 2^64 / golden ratio, and its multipliers. torch has no uint64 to compute with:
# sums and products of int64 wrap to the same 64 bits.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


@checked
def encode(
    images_BCHW: Tensor,
    encoding: Encoding,
    time_steps: Size,
    sample_seeds: NDArray[np.uint64] | Sequence[Seed],
    path_seed: Seed = 0,
) -> Tensor:
    """Encodes still images as frames.

    - `repeat`: every frame is the image.
    - `poisson`: rate-coded; a pixel of intensity p is 1 with probability p and else 0,
      independently in each frame (a Poisson process in steps of at most one event).
    - `saccade`: small eye movements; the image moves along `saccade_path`, with zeros at the
      border. All images share the path, so that a temporal filter can read it as space.
    - `moving_events`: each image moves along a straight line, and leaves at one edge to come back
      at the opposite one. In the window it covers half of its shorter side, in a direction of its
      own, and passes its resting position at a time of its own. Frames hold Poisson events, as in
      `poisson`, with probability 0.15 p: one frame tells little, and their mean is blurred.
    - `columns`: the image from left to right, as a spectrogram is read: `time_steps` frames of
      W / time_steps columns.
    - `none`: the images as they are, without a time axis.

    Args:
        sample_seeds: one integer in 0..2^64-1 for each image, see `sample_seeds`; for `poisson` and
            `moving_events`.
        path_seed: draws the order of the saccade's movements.

    Shape:
        floats (B, C, H, W), in [0, 1] for events -> (B, C, T, H, W); for `columns`
        (B, C, T, H, W / T), for `none` (B, C, H, W)

    Raises:
        ValueError: another encoding, shape or number; TypeError: images that are not floats.
    """
    if images_BCHW.ndim != 4:
        raise ValueError(f"images have shape {tuple(images_BCHW.shape)}, expected (B, C, H, W)")
    if not images_BCHW.is_floating_point():
        raise TypeError(f"images are {images_BCHW.dtype}, expected floating point in [0, 1]")
    if len(sample_seeds) != len(images_BCHW):
        raise ValueError(f"{len(sample_seeds)} sample seeds for {len(images_BCHW)} images")
    seeds_B = np.asarray(sample_seeds, dtype=np.uint64)
    if encoding in DRAWN:
        low, high = images_BCHW.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"intensities {low:.3g}..{high:.3g}: {encoding} takes images in [0, 1]"
            )
    check_columns(encoding, time_steps, images_BCHW.shape[-1])
    return to_frames(images_BCHW, encoding, time_steps, seeds_B, path_seed)


def to_frames(
    images_BCHW: Tensor,
    encoding: Encoding,
    time_steps: int,
    seeds_B: NDArray[np.uint64],
    path_seed: int,
) -> Tensor:
    """Encodes without checks: that of intensities would make the host wait for a GPU."""
    if encoding == "none":
        return images_BCHW
    if encoding == "poisson":
        return _poisson(images_BCHW, time_steps, seeds_B)
    if encoding == "moving_events":
        return _moving_events(images_BCHW, time_steps, seeds_B)
    if encoding == "saccade":
        return _saccade(images_BCHW, time_steps, path_seed)
    if encoding == "columns":
        return images_BCHW.unflatten(-1, (time_steps, -1)).movedim(-2, 2).contiguous()
    return images_BCHW.unsqueeze(2).repeat(1, 1, time_steps, 1, 1)


def check_columns(encoding: str, time_steps: int, width: int) -> None:
    """Raises a ValueError if the encoding is `columns`, and the width no multiple of the frames."""
    if encoding == "columns" and width % time_steps:
        raise ValueError(
            f"time_steps={time_steps}: encoding 'columns' cuts images of {width} columns into "
            f"frames of equal width; expected a divisor of {width}, such as {width}"
        )


@checked
def saccade_step(height: Size, width: Size) -> int:
    """Returns the pixels of one eye movement, for a shorter side of up to 16, 64, or more."""
    side = min(height, width)
    return 1 if side <= 16 else 2 if side <= 64 else side // 32


@checked
def saccade_path(time_steps: Size, step: Size, seed: Seed) -> list[tuple[int, int]]:
    """Returns the displacement of each frame from the image, (down, right) in pixels.

    The first frame rests; the next ones visit the points of a grid, the nearest ones first, in an
    order drawn from the seed where they are equally near.
    """
    radius = math.isqrt(time_steps) + 1
    rings: dict[int, list[tuple[int, int]]] = {}
    for down, right in itertools.product(range(-radius, radius + 1), repeat=2):
        rings.setdefault(down * down + right * right, []).append((down * step, right * step))
    rng = np.random.default_rng(seed)
    path = [ring[i] for _, ring in sorted(rings.items()) for i in rng.permutation(len(ring))]
    return path[:time_steps]


def sample_seeds(seed: int, epoch: int, indices: Sequence[int]) -> NDArray[np.uint64]:
    """Returns one 64-bit seed per index, a function of (seed, epoch, index) and nothing else."""
    seeds = np.zeros(len(indices), dtype=np.int64)
    for word in (seed, epoch, indices):
        bits = np.asarray(word).astype(np.uint64).view(np.int64)
        seeds = _scrambled((seeds ^ bits) + _STEP)
    return seeds.view(np.uint64)


def pixel_permutation(pixels: int) -> NDArray[np.int64]:
    """Returns the order of pixels in permuted images, the same for all data sets and seeds.

    Pixel i of a permuted image is pixel order[i] of the image, in rows from the top left; channels
    stay together. It sorts the distinct hashes of the pixels' numbers, and never changes.
    """
    return np.argsort(sample_seeds(0, 0, range(pixels)))


def uniforms(seeds_B: NDArray[np.uint64], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Draws `count` numbers for each seed, float32 (B, count), uniform on the 2^24 steps of [0, 1).

    Two come from each output of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
    """
    steps = torch.arange(1, (count + 1) // 2 + 1, device=device) * _STEP
    seeds = torch.from_numpy(seeds_B.view(np.int64)).to(device)
    bits = _scrambled(seeds[:, None] + steps)
    halves = bits.view(torch.int32)[:, :count] >> 8  # keeps the sign, which the mask takes away
    return halves.bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)


_Bits = TypeVar("_Bits", Tensor, NDArray[np.int64])


def _scrambled(bits: _Bits) -> _Bits:
    """Applies SplitMix64's one-to-one scrambling of 64 bits, in place."""
    bits ^= _shifted(bits, 30)
    bits *= _MULTIPLIERS[0]
    bits ^= _shifted(bits, 27)
    bits *= _MULTIPLIERS[1]
    bits ^= _shifted(bits, 31)
    return bits


def _shifted(bits: _Bits, count: int) -> _Bits:
    """Shifts right and fills with zeros, not with the sign."""
    shifted = bits >> count
    shifted &= 2 ** (64 - count) - 1
    return shifted


def _poisson(images_BCHW: Tensor, time_steps: int, seeds_B: NDArray[np.uint64]) -> Tensor:
    B, C, H, W = images_BCHW.shape
    draws = uniforms(seeds_B, C * time_steps * H * W, images_BCHW.device)
    spikes = draws.view(B, C, time_steps, H, W) < images_BCHW.unsqueeze(2)
    return spikes.to(images_BCHW.dtype)


def _moving_events(images_BCHW: Tensor, time_steps: int, seeds_B: NDArray[np.uint64]) -> Tensor:
    B, _, H, W = images_BCHW.shape
    # The path is computed on the CPU, so that all devices round it alike.
    turn, passed = uniforms(seeds_B, 2).double().T[..., None]
    times = torch.linspace(0, 1, time_steps, dtype=torch.float64) - passed * (time_steps > 1)
    distances = min(H, W) / 2 * times
    down, right = (
        (distances * wave(2 * math.pi * turn)).round().long() for wave in (torch.sin, torch.cos)
    )
    device = images_BCHW.device
    rows = ((torch.arange(H) - down[..., None]) % H).to(device)[..., None]
    columns = ((torch.arange(W) - right[..., None]) % W).to(device)[..., None, :]
    sample = torch.arange(B, device=device)[:, None, None, None]
    moved = images_BCHW[sample, :, rows, columns].movedim(-1, 1)
    draws = uniforms(seeds_B, 2 + moved.numel() // B, device)[:, 2:]
    return (draws.view(moved.shape) < EVENT_RATE * moved).to(images_BCHW.dtype)


def _saccade(images_BCHW: Tensor, time_steps: int, path_seed: int) -> Tensor:
    H, W = images_BCHW.shape[-2:]
    path = _path(time_steps, saccade_step(H, W), path_seed)
    m = max(abs(pixels) for move in path for pixels in move)
    padded = torch.nn.functional.pad(images_BCHW, (m, m, m, m))
    # Moving the image down is cutting it out of the padded one higher up.
    frames = [padded[..., m - down :, m - right :][..., :H, :W] for down, right in path]
    return torch.stack(frames, dim=2)


_path = functools.lru_cache(saccade_path)  # every batch needs it
