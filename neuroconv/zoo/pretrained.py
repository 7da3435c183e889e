"""Trained weights that come with the package; weights/weights.toml is their record.

experiments/study/publish.py writes it from finished runs. Nothing is downloaded.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor, nn

from neuroconv.core.checks import expected_one_of

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Weights:
    """Weights by their title NAME.TAG, and their record, a table of weights.toml.

    The record has the `keywords` of `create_model`, the `data` of `load_data`, the run's `seed`,
    the test set's right answers, the accuracy over all `seeds`, and where it was measured.
    """

    title: str
    record: dict[str, Any]

    def load(self, model: nn.Module) -> None:
        """Loads the weights into a network; ValueError if the file is not the published one."""
        path, expected = FOLDER / f"{self.title}.safetensors", self.record["sha256"]
        content = path.read_bytes()
        if (actual := hashlib.sha256(content).hexdigest()) != expected:
            raise ValueError(
                f"{path}: SHA-256 sum {actual}, recorded {expected}: the file was altered; install "
                "neuroconv-zoo again"
            )
        model.load_state_dict(load(content))

    def preprocess(self, images: Tensor) -> Tensor:
        """Prepares images as those of the test set were: scaled, cropped and encoded.

        Random numbers of an encoding are those of the test set's first images.

        Shape:
            uint8, or floats in [0, 1], (B, C, H, W) -> floats (B, C, T, H', W'), or (B, C, H', W')
        """
        from neuroconv.data import Frames  # here, since a network without weights needs no data

        task = {key: self.record["data"][key] for key in ("encoding", "time_steps")}
        size, seed = self.record["keywords"]["image_shape"][1:], self.record["seed"]
        frames = Frames([(image, 0) for image in images], image_size=size, seed=seed, **task)
        return frames.batch(range(len(images)))[0]


def list_weights() -> list[str]:
    """Returns the titles of all weights; a network's first are its default."""
    return [f"{name}.{tag}" for name, tags in _records().items() for tag in tags]


def get_weights(name: str, tag: str | bool = True) -> Weights:
    """Returns a network's weights of a tag, its default ones for True.

    Raises:
        ValueError: there are none; the message lists those there are.
    """
    tags = _records().get(name, {})
    tag = next(iter(tags), "") if tag is True else str(tag)
    if tag not in tags:
        raise ValueError(
            f"no weights {name}.{tag}; {expected_one_of(f'{name}.{tag}', list_weights())}"
        )
    return Weights(f"{name}.{tag}", tags[tag])


def _records() -> dict[str, dict[str, dict[str, Any]]]:
    path = FOLDER / "weights.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
