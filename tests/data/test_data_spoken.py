import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuroconv.data import DataError, DataSplits, load_data
from neuroconv.data.spoken import log_mel

SPEAKERS = ("ann", "bob", "cy_d")
COLUMNS: Any = {"encoding": "columns", "time_steps": 32}


def tone(hertz: float, seconds: float) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(round(8000 * seconds)) / 8000).astype(np.float32)


def write_wav(
    path: Path, samples: NDArray[np.float32], rate: int = 8000, channels: int = 1
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 30_000).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recordings of each digit, which is a tone, by each of three speakers; noise in both."""
    folder = tmp_path_factory.mktemp("spoken")
    rng = np.random.default_rng(0)
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for index in range(10):
                word = 0.3 * tone(300 + 300 * digit, 0.3 + 0.02 * index) / (1 + number)
                word += rng.normal(0, 0.01, len(word)).astype(np.float32)
                name = f"recordings/{digit}_{speaker}_{index}.wav"
                write_wav(folder / "free-spoken-digit-dataset" / name, word)
    return folder


@pytest.mark.parametrize("hertz", [200, 1000, 3500])
def test_log_mel_of_a_tone_peaks_in_its_band(hertz: float) -> None:
    bands = log_mel(tone(hertz, 0.5))
    assert bands.shape == (1 + (4000 - 200) // 80, 40)
    mel, top = (2595 * np.log10(1 + f / 700) for f in (hertz, 4000))
    assert set(bands.argmax(1).tolist()) <= {
        int(mel / top * 41 - 0.5),
        int(mel / top * 41 - 0.5) + 1,
    }
    # Twice the amplitude is four times the power, in every band that is not silent.
    loud = bands > bands.max() - 3
    np.testing.assert_allclose(
        log_mel(2 * tone(hertz, 0.5))[loud] - bands[loud], np.log(4), rtol=1e-4
    )
    assert log_mel(np.zeros(9, np.float32)).tolist() == [[np.log(np.float32(1e-5))] * 40]


def test_one_speaker_is_the_test_set_and_the_seed_goes_round(root: Path) -> None:
    sets: list[DataSplits] = []
    for keywords in ({"held_out": "bob"}, {"seed": 1}, {"held_out": "seed", "seed": 4}):
        sets.append(load_data("spoken_digits", root=root, **COLUMNS, **keywords))
    for data in sets:
        assert (data.image_shape, data.time_steps) == ((1, 40, 1), 32)
        assert [len(part) for part in (data.train, data.val, data.test)] == [180, 20, 100]
        assert np.bincount(data.val.targets).tolist() == [2] * 10
        assert torch.equal(data.test.batch(range(100))[0], sets[0].test.batch(range(100))[0])
    other = load_data("spoken_digits", root=root, held_out="cy_d", **COLUMNS)
    assert not torch.equal(other.test.batch(range(100))[0], sets[0].test.batch(range(100))[0])


def test_a_word_ends_with_the_last_frame_in_rates_of_the_training_set(root: Path) -> None:
    data = load_data("spoken_digits", root=root, held_out="ann", **COLUMNS)
    still = load_data("spoken_digits", root=root, held_out="ann", encoding="none")
    frames, labels = data.test.batch(range(100))
    assert torch.equal(still.test.batch(range(100))[0], torch.cat(frames.unbind(2), -1))
    loudness = frames.mean(dim=(1, 3, 4))
    assert (loudness[:, -1] > 0.1).all()
    for number in range(100):  # ten lengths, in the order of their file names
        hops = 1 + (round(8000 * (0.3 + 0.02 * (number % 10))) - 200) // 80
        assert loudness[number].count_nonzero() == min(32, hops // 2)
    assert labels.tolist() == [digit for digit in range(10) for _ in range(10)]
    values = torch.cat([data.train[i][0].flatten(2) for i in range(len(data.train))], 1)
    assert (values.min(), values.max()) == (0, 1)
    # The 1st and the 99th percentile of the training columns, those before a word left out.
    spoken = values[0][values[0].mean(1) > 0]
    for share in ((spoken == 0), (spoken == 1)):
        assert abs(share.double().mean() - 0.01) < 0.003


def test_prepared_log_mel_are_the_recordings(root: Path, tmp_path: Path) -> None:
    paths = sorted((root / "free-spoken-digit-dataset" / "recordings").glob("*.wav"))
    spectra = []
    for path in paths:
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        spectra.append(log_mel(samples.astype(np.float32) / 2**15))
    lengths = [len(spectrum) for spectrum in spectra]
    np.savez(
        tmp_path / "fsdd_logmel40.npz", logmel=np.concatenate(spectra).astype(np.float16),
        start=np.cumsum([0, *lengths[:-1]]), length=lengths,
        digit=np.array([int(path.name[0]) for path in paths], np.uint8),
        speaker=[path.stem[2:].rpartition("_")[0] for path in paths],
    )  # fmt: skip
    for part in ("train", "val", "test"):
        frames = [
            getattr(load_data("spoken_digits", root=folder, seed=2, **COLUMNS), part).batch(
                range(20)
            )
            for folder in (root, tmp_path)
        ]
        torch.testing.assert_close(frames[0], frames[1], rtol=0, atol=2e-3)
    (tmp_path / "fsdd_logmel40.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"fsdd_logmel40.npz: cannot be read .*; get it again"):
        load_data("spoken_digits", root=tmp_path)


def test_real_spoken_digits_leave_a_speaker_out(data_root: Path) -> None:
    data = load_data("spoken_digits", root=data_root, seed=10, **COLUMNS)  # 10 mod 6: theo
    theo = load_data("spoken_digits", root=data_root, held_out="theo", **COLUMNS)
    assert [len(part) for part in (data.train, data.val, data.test)] == [2250, 250, 500]
    assert np.bincount(data.test.targets).tolist() == [50] * 10
    assert torch.equal(data.test.batch(range(500))[0], theo.test.batch(range(500))[0])


def test_bad_sources_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no spoken digits in .*CC BY-SA.*git clone https://"):
        load_data("spoken_digits", root=tmp_path)
    with pytest.raises(ValueError, match="held_out='bop' is unknown; did you mean 'bob'"):
        load_data("spoken_digits", root=root, held_out="bop")
    with pytest.raises(ValueError, match="held_out='bob': only the data set 'spoken_digits'"):
        load_data("digits", held_out="bob")
    with pytest.raises(ValueError, match=r"time_steps=5: .* 32 columns"):
        load_data("spoken_digits", root=root, encoding="columns")
    path = tmp_path / "recordings" / "3_ann_0.wav"
    for samples, keywords in (
        (np.zeros(99), {"rate": 16_000}), (np.zeros(98), {"channels": 2}), (np.zeros(0), {}),
    ):  # fmt: skip
        write_wav(path, samples, **keywords)
        with pytest.raises(DataError, match=rf"{path}: cannot be read \(.* channels, bits and Hz"):
            load_data("spoken_digits", root=tmp_path)
    path.write_bytes(b"RIFF")
    with pytest.raises(DataError, match=f"{path}: cannot be read .* 16 bits and 8000 Hz"):
        load_data("spoken_digits", root=tmp_path)
    write_wav(path, tone(300, 0.5))
    with pytest.raises(DataError, match=r"recordings by \['ann'\], expected two or more speakers"):
        load_data("spoken_digits", root=tmp_path)
    path.rename(path.with_name("three.wav"))
    with pytest.raises(DataError, match=r"three\.wav: expected a file DIGIT_SPEAKER_INDEX.wav"):
        load_data("spoken_digits", root=tmp_path)
