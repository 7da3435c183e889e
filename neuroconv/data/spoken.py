"""The Free Spoken Digit Dataset as spectrograms, with one speaker held out.

Ten English digits at 8 kHz, 50 times by each of six speakers, under CC BY-SA 4.0:
https://github.com/Jakobovski/free-spoken-digit-dataset.
"""

import functools
import re
import wave
import zipfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from neuroconv.core.checks import check_choice
from neuroconv.data.errors import DataError
from neuroconv.data.stills import ImageTensors, Stills, hold_out

BANDS, COLUMNS = 40, 32  # of a spectrogram; a column is two hops, 20 ms
SAMPLE_RATE, WINDOW, HOP, BINS = 8000, 200, 80, 512  # Hz; 25 ms and 10 ms in samples; of the FFT
SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
FLOOR = 1e-5  # power below which a band is silent: near a 16-bit recording's rounding
_FOLDERS = ("free-spoken-digit-dataset", "FSDD", "fsdd", ".")
_PREPARED = "fsdd_logmel40.npz"
Floats = NDArray[np.float32]


def spoken_digits(
    root: Path, held_out: str, seed: int
) -> tuple[Stills, Stills, Stills, tuple[str, ...]]:
    """Returns train, val and test spectrograms, floats (N, 1, 40, 32) in [0, 1], and class names.

    ROOT/free-spoken-digit-dataset/recordings/DIGIT_SPEAKER_INDEX.wav are read, or ROOT/FSDD, or
    ROOT itself; or `fsdd_logmel40.npz` there: `logmel` (frames, 40) of all recordings, one after
    the other, and for each its `start`, `length`, `digit` and `speaker`.

    Test images are those of one speaker. Validation images are a stratified tenth of the others':
    to keep another speaker for it would leave four to learn from, which cost a small CNN 5 points.

    Two frames of `log_mel` are averaged to a column of 20 ms. The last 32 columns stay, 640 ms, so
    that the word's end is the last; shorter words begin later. In each band the 1st to the 99th
    percentile of the training columns, without padding, are scaled to 0..1, and what lies beyond is
    clipped: a rate between silence, where padding lies too, and the loudest.

    Args:
        held_out: the test set's speaker, or "seed" for number `seed`, counted around, of the sorted
            names.

    Raises:
        DataError: recordings missing or broken, or of fewer than two speakers.
    """
    recordings, digits, speakers = _recordings(root)
    names = sorted(set(speakers.tolist()))
    if len(names) < 2:
        raise DataError(f"{root}: recordings by {names}, expected two or more speakers")
    if held_out != "seed":
        check_choice("data.held_out", held_out, ("seed", *names))
    speaker = names[seed % len(names)] if held_out == "seed" else held_out
    spectra = np.stack([_columns(logmel) for logmel in recordings])
    unheard = speakers == speaker
    everything = ImageTensors(torch.from_numpy(spectra)[:, None], digits)
    rest = everything.subset(np.flatnonzero(~unheard))
    train, val = cast(tuple[ImageTensors, ...], hold_out(rest, round(len(rest) / 10)))
    test = everything.subset(np.flatnonzero(unheard))
    bands = train.images.movedim(2, 0).flatten(1).numpy()
    scale = np.percentile(bands[:, np.isfinite(bands[0])], (1, 99), axis=1)[..., None]
    low, high = torch.from_numpy(scale.astype(np.float32))
    for part in (train, val, test):
        part.images = ((part.images - low) / (high - low)).clamp(0, 1)
    return train, val, test, tuple("0123456789")


def log_mel(samples: Floats) -> Floats:
    """Returns the logarithm of the power in 40 mel bands, every 10 ms: (samples,) -> (frames, 40).

    Hann windows of 25 ms, and triangles of equal width on the mel scale, 2595 log10(1 + f / 700 Hz)
    (O'Shaughnessy, Speech Communication, 1987, p. 150), from 0 Hz to half the sampling rate. A
    sound shorter than a window is lengthened with zeros in front.
    """
    padded = np.pad(samples, (max(0, WINDOW - len(samples)), 0))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW + 1)[:-1], BINS)) ** 2
    return np.log(np.maximum(power @ _triangles(), FLOOR)).astype(np.float32)


@functools.cache
def _triangles() -> NDArray[np.float64]:
    """Returns the weights of the Fourier transform's powers in each band, (257, 40)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(BINS, 1 / SAMPLE_RATE)
    rising = (hertz - edges[:-1, None]) / np.diff(edges)[:, None]
    return np.minimum(rising[:-1], 1 - rising[1:]).clip(min=0).T


def _columns(logmel: Floats) -> Floats:
    """Averages pairs of frames, and keeps the last columns: (40, 32), -inf where none was."""
    pairs = logmel[len(logmel) % 2 :].reshape(-1, 2, BANDS).mean(axis=1)[-COLUMNS:]
    return np.pad(pairs.T, ((0, 0), (COLUMNS - len(pairs), 0)), constant_values=-np.inf)


def _recordings(root: Path) -> tuple[list[Floats], NDArray[np.int64], NDArray[np.str_]]:
    """Reads `log_mel` of every recording, with digits and speakers."""
    for folder in (root / name for name in _FOLDERS):
        if (folder / _PREPARED).is_file():
            return _prepared(folder / _PREPARED)
        if paths := sorted(folder.glob("recordings/*.wav")):
            spectra = [log_mel(_samples(path)) for path in paths]
            digits, speakers = zip(*map(_named, paths), strict=True)
            return spectra, np.array(digits, np.int64), np.array(speakers)
    raise DataError(
        f"no spoken digits in {root}: name the folder that holds them with --data.root DIR, or in "
        f"the environment variable NEUROCONV_DATA.\nGet them, 17 MB, under CC BY-SA 4.0: git clone "
        f"{SOURCE} {root / _FOLDERS[0]}\nExpected there: recordings/DIGIT_SPEAKER_INDEX.wav; or "
        f"{_PREPARED} in {root}"
    )


def _named(path: Path) -> tuple[int, str]:
    """Returns the digit and the speaker that a file is named after."""
    if not (name := re.fullmatch(r"(\d)_(.+)_\d+", path.stem)):
        raise DataError(f"{path}: expected a file DIGIT_SPEAKER_INDEX.wav; rename it or remove it")
    return int(name[1]), name[2]


def _samples(path: Path) -> Floats:
    """Reads the samples of a WAV file, in [-1, 1)."""
    try:
        with wave.open(str(path)) as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        if form != (1, 16, SAMPLE_RATE) or not len(samples):
            raise ValueError(f"{form} channels, bits and Hz, {len(samples)} samples")
    except (wave.Error, EOFError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); expected a WAV file of 1 channel, 16 bits and "
            f"{SAMPLE_RATE} Hz; get it again"
        ) from error
    return samples.astype(np.float32) / np.float32(2**15)


def _prepared(path: Path) -> tuple[list[Floats], NDArray[np.int64], NDArray[np.str_]]:
    try:
        with np.load(path) as arrays:
            frames = arrays["logmel"].astype(np.float32)
            spans = zip(arrays["start"], arrays["start"] + arrays["length"], strict=True)
            spectra = [frames[start:end] for start, end in spans]
            return spectra, arrays["digit"].astype(np.int64), arrays["speaker"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); get it again") from error
