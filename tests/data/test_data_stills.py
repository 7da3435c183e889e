"""Decoded pictures of all kinds against arithmetic on the numbers that were written."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from neuroconv.data import DataError
from neuroconv.data.stills import read_image

RAMP = np.arange(256, dtype=np.uint8)[None].repeat(8, 0)
BACK = np.ascontiguousarray(RAMP[:, ::-1])
DOWN = (np.arange(8, dtype=np.uint8)[:, None] * 36).repeat(256, 1)
RAMP_16 = RAMP * np.uint16(257) + np.arange(8, dtype=np.uint16)[:, None] * (RAMP < 255)
R, B, D = (channel.astype(float) for channel in (RAMP, BACK, DOWN))


def decoded(path: Path) -> NDArray[np.int64]:
    image = read_image(path)
    assert image.dtype == torch.uint8
    return image.permute(1, 2, 0).numpy().astype(np.int64)


def merged(mode: str, *channels: NDArray[np.uint8]) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(channel) for channel in channels])


def over_white(alpha: Any, *colours: Any) -> NDArray[np.float64]:
    return alpha[..., None] / 255 * (np.stack(colours, axis=-1) - 255.0) + 255


def paletted() -> Image.Image:
    image = Image.frombytes("P", (256, 8), (RAMP // 16).tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


PALETTE = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
INKS = PALETTE[RAMP // 16].astype(float).transpose(2, 0, 1)
OPAQUE = np.full_like(R, 255)
# JFIF: full range, by ITU-R BT.601.
YCBCR = ((1.402, 0), (-0.714136, -0.344136), (0, 1.772))
PICTURES: dict[str, tuple[Image.Image, Any, dict[str, Any]]] = {  # what to expect and how to save
    "grey.png": (Image.fromarray(RAMP), over_white(OPAQUE, R), {}),
    "bilevel.png": (Image.fromarray(RAMP > 127), over_white(OPAQUE, (R > 127) * 255), {}),
    "16-bit.png": (Image.fromarray(RAMP_16), over_white(OPAQUE, RAMP_16 / 257), {}),
    "16-bit.tif": (Image.fromarray(RAMP_16), over_white(OPAQUE, RAMP_16 / 257), {}),
    "big.tif": (Image.fromarray(RAMP_16.astype(">u2")), over_white(OPAQUE, RAMP_16 / 257), {}),
    "16.pgm": (Image.fromarray(RAMP_16.astype(np.int32)), over_white(OPAQUE, RAMP_16 / 257), {}),
    "float.tif": (Image.fromarray((R / 255).astype(np.float32)), over_white(OPAQUE, R), {}),
    "clear.png": (Image.fromarray(RAMP), over_white((R != 99) * 255, R), {"transparency": 99}),
    "16-bit-clear.png": (
        Image.fromarray(RAMP_16), over_white((RAMP_16 != 25703) * 255, RAMP_16 / 257),
        {"transparency": 25703},
    ),
    "grey-alpha.png": (merged("LA", RAMP, DOWN), over_white(D, R), {}),
    "RGB.webp": (merged("RGB", RAMP, BACK, DOWN), over_white(OPAQUE, R, B, D), {"lossless": True}),
    "RGBA.png": (merged("RGBA", RAMP, BACK, DOWN, DOWN), over_white(D, R, B, D), {}),
    "RGBA.tif": (merged("RGBA", RAMP, BACK, DOWN, DOWN), over_white(D, R, B, D), {}),
    "CMYK.tif": (
        merged("CMYK", RAMP, BACK, DOWN, DOWN),
        over_white(OPAQUE, *((255 - ink) * (255 - D) / 255 for ink in (R, B, D))), {},
    ),
    "YCbCr.tif": (
        merged("YCbCr", RAMP // 2 + 64, DOWN // 8 + 112, DOWN // 8 + 112),
        over_white(OPAQUE, *(R // 2 + 64 + sum(factors) * (D // 8 - 16) for factors in YCBCR)), {},
    ),
    "palette.png": (paletted(), over_white(OPAQUE, *INKS), {}),
    "clear-ink.png": (paletted(), over_white((R // 16 != 3) * 255, *INKS), {"transparency": 3}),
    "alphas.png": (
        paletted(), over_white(R // 16 * 17, *INKS), {"transparency": bytes(range(0, 256, 17))}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_become_rgb_on_white(tmp_path: Path, name: str) -> None:
    image, expected, keywords = PICTURES[name]
    image.save(tmp_path / name, **keywords)
    # Grey is rounded once; arithmetic of several channels, in 8 bits, more often.
    bound = 0.5 + 1e-5 if image.mode in ("L", "1", "I;16", "I", "F") else 2
    assert np.abs(decoded(tmp_path / name) - expected).max() <= bound


@pytest.mark.parametrize(("bits", "white_is_zero"), [(16, False), (16, True), (12, False)])
def test_a_tiff_says_what_is_white(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    values = np.linspace(0, 2**bits - 1, 64).round().astype(int)
    digits = "".join(f"{value:0{bits}b}" for value in values)
    rows = int(digits, 2).to_bytes(len(digits) // 8, "big")
    if bits == 16:
        rows = values.astype("<u2").tobytes()
    tags = {
        256: 16, 257: 4, 258: bits, 259: 1, 262: 0 if white_is_zero else 1,
        273: 8, 277: 1, 278: 4, 279: len(rows),
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHI", b"II", 42, 8 + len(rows)) + rows + struct.pack("<H", len(tags))
    (tmp_path / "x.tif").write_bytes(header + entries + bytes(4))
    shares = values / (2**bits - 1)
    expected = 255 * (1 - shares if white_is_zero else shares)
    assert np.abs(decoded(tmp_path / "x.tif")[..., 0].flatten() - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("bits", "byte", "clear", "expected"),
    [(4, 0x39, 3, [255, 153]), (2, 0b00011011, 1, [0, 255, 170, 255])],
)
def test_grey_of_few_bits_has_its_transparent_value(
    tmp_path: Path, bits: int, byte: int, clear: int, expected: list[int]
) -> None:
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    parts = {b"IHDR": header, b"tRNS": struct.pack(">H", clear),
             b"IDAT": zlib.compress(bytes((0, byte))), b"IEND": b""}  # fmt: skip
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert decoded(tmp_path / "x.png")[0, :, 0].tolist() == expected


UPRIGHT = (  # by the value of EXIF's orientation, from 1
    np.array, np.fliplr, lambda x: np.rot90(x, 2), np.flipud, np.transpose,
    lambda x: np.rot90(x, -1), lambda x: np.rot90(x, 2).T, np.rot90,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp", "16-bit.png"])
def test_pictures_are_turned_upright(tmp_path: Path, name: str) -> None:
    corners = np.zeros((48, 64), np.uint8)
    corners[:16, :32], corners[:16, 32:], corners[16:, :32] = 250, 150, 80
    image = Image.fromarray(corners.astype(np.uint16) * 257 if "16" in name else corners)
    for orientation, turn in enumerate(UPRIGHT, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / name, exif=exif, **({"lossless": True} if "webp" in name else {}))
        difference = decoded(tmp_path / name)[..., 0] - turn(corners)
        assert np.abs(difference).max() <= (3 if "jpg" in name else 0)
    image.save(tmp_path / name, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")  # unreadable
    assert decoded(tmp_path / name).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (R.astype(np.float32), "pixels of 0.0 to 255.0, expected 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "pixels of nan to nan, expected 0 to 1"),
        (RAMP.astype(np.int32), "signed or 32-bit integers, expected 8 or 16 bits"),
    ],
)
def test_pixels_without_a_known_white_are_refused(
    tmp_path: Path, pixels: NDArray[Any], message: str
) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=f"^{tmp_path}/x.tif: cannot be read .*{message}"):
        read_image(tmp_path / "x.tif")


def test_any_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(RAMP).save(whole)
    for length in (0, 7, 20, 40, whole.stat().st_size - 60):
        (tmp_path / f"{length}.png").write_bytes(whole.read_bytes()[:length])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "absent.png")
    for path in set(tmp_path.iterdir()) - {whole}:
        with pytest.raises(DataError, match=f"^{path}: cannot be read as an image .*remove it"):
            read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size // 2 - 1)
    with pytest.raises(DataError, match=f"^{whole}: .*decompression bomb"):
        read_image(whole)
