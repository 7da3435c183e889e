"""Measures what keeping freed memory is worth: the same training steps with and without it.

python experiments/mnist/allocator.py cerebellum_small
"""

import subprocess
import sys
import time
from statistics import median

REPEATS, STEPS, BATCH = 3, 6, 128


def images_per_second(name: str, keep: bool) -> float:
    """In this process: the median over steps of images a second of processor time."""
    import torch

    from neuroconv import create_model
    from neuroconv.training.glibc_malloc import keep_freed_memory

    if keep and not keep_freed_memory():
        sys.exit("this C library has no such setting: glibc alone does")
    torch.set_num_threads(1)
    model = create_model(name)
    optimizer = torch.optim.AdamW(model.parameters())
    frames, labels = torch.rand(BATCH, 1, 5, 28, 28), torch.randint(10, (BATCH,))
    rates = []
    for _ in range(STEPS):
        start = time.process_time()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(frames), labels).backward()
        optimizer.step()
        rates.append(BATCH / (time.process_time() - start))
    return median(rates[1:])


def main(name: str) -> None:
    rates: dict[str, list[float]] = {"by default": [], "kept": []}
    for _ in range(REPEATS):
        for how in rates:
            command = [sys.executable, __file__, name, how]
            rates[how].append(float(subprocess.check_output(command)))
    for how, measured in rates.items():
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(f"{name}, freed memory {how}: {median(measured):,.0f} images/s ({spread})")
    ratio = median(rates["kept"]) / median(rates["by default"])
    print(f"ratio of the medians of {REPEATS}: {ratio:.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(images_per_second(sys.argv[1], sys.argv[2] == "kept"))
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
