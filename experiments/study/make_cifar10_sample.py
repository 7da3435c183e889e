"""Makes an image folder of CIFAR-10: 1,000 training and 200 validation JPEGs for each class.

    python experiments/study/make_cifar10_sample.py data data/cifar10_sample

The first argument is the folder that torchvision downloads CIFAR-10 into, the second the folder to
make. The images are the first of each class, in the order of the data set.
"""

import argparse
from collections import Counter
from pathlib import Path

from torchvision.datasets import CIFAR10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="where torchvision's CIFAR-10 is, or goes")
    parser.add_argument("folder", type=Path, help="the image folder to make")
    arguments = parser.parse_args()
    for split, per_class in (("train", 1_000), ("val", 200)):
        images = CIFAR10(arguments.root, train=split == "train", download=True)
        written: Counter[str] = Counter()
        for image, label in images:
            name = images.classes[label]
            if written[name] < per_class:
                target = arguments.folder / split / name / f"{written[name]:04d}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                image.save(target, quality=95)
                written[name] += 1


if __name__ == "__main__":
    main()
