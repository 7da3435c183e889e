"""Firing rates and sparsity of the neurons in a model (B batch, N neurons, T time steps)."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuroconv.core.autocast import widest_float
from neuroconv.layers import FiringRate
from neuroconv.training.distributed import Ranks


class ActivityMonitor:
    """A context that counts the firing of every population (its `FiringRate`) of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._counts: dict[str, _Count] = {}
        self._handles: list[RemovableHandle] = []
        self._spikes: Any = 0.0  # sums stay on the device until they are read
        self._images = 0

    def __enter__(self) -> Self:
        for path, module in self.model.named_modules():
            if isinstance(module, FiringRate):
                count = self._counts.setdefault(path.rpartition(".")[0], _Count())
                self._handles.append(module.register_forward_hook(count))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def observe(self, logits: Tensor, labels: Tensor) -> None:
        """Adds the complex spikes that a batch's errors would cause, if the model has a method."""
        complex_spikes = getattr(self.model, "complex_spikes", None)
        if complex_spikes is not None:
            rate = complex_spikes(logits.detach(), labels)
            self._spikes = self._spikes + rate.mean().to(widest_float(rate.device)) * len(labels)
            self._images += len(labels)

    def merge(self, ranks: Ranks) -> None:
        """Adds up the counts of all processes."""
        counts = {path: (c.sums.cpu(), c.fired.cpu()) for path, c in self._counted().items()}
        gathered = ranks.gather((counts, float(self._spikes), self._images))
        self._spikes = sum(spikes for _, spikes, _ in gathered)
        self._images = sum(images for *_, images in gathered)
        self._counts = {}
        for counts, *_ in gathered:
            for path, count in counts.items():
                self._counts.setdefault(path, _Count()).add(*count)

    def summary(self) -> dict[str, dict[str, float]]:
        """Returns statistics over everything since the start, by path of the population.

        mean_rate: over neurons, steps and images, in the network's own units.
        active_share: the share of neurons x steps x images with a rate above zero.
        silent_share: the share of neurons that never fired.
        complex_spikes_per_second: a mean, under the path "climbing_fibres".
        """
        summary = {}
        for path, count in self._counted().items():
            number, total, active = count.sums.tolist()
            silent = 1 - float(count.fired.cpu().double().mean())
            rates = {"mean_rate": total / number, "active_share": active / number}
            summary[path] = {**rates, "silent_share": silent}
        if self._images:
            spikes = float(self._spikes) / self._images
            summary["climbing_fibres"] = {"complex_spikes_per_second": spikes}
        return summary

    def _counted(self) -> "dict[str, _Count]":
        return {path: c for path, c in self._counts.items() if isinstance(c.fired, Tensor)}


@dataclass
class _Count:
    """Sums over the rates (B, N, T, ...) of one population, as tensors on its device.

    torch.compile takes a number for a constant, and would compile again whenever it has changed.
    """

    sums: Any = 0.0  # (3,): rates counted, their total, and those above zero
    fired: Any = False  # bool (N, ...); a plain False before the first rates

    def __call__(self, module: nn.Module, inputs: Any, rate: Tensor) -> None:
        rate = rate.detach()  # also where the caller keeps gradients
        firing = rate > 0
        wide = widest_float(rate.device)
        total = rate.sum(dtype=wide)
        number = torch.full_like(total, rate.numel())
        fired = firing.any(2).any(0) if rate.dim() > 2 else firing.any(0)
        self.add(torch.stack([number, total, firing.sum().to(wide)]), fired)

    def add(self, sums: Tensor, fired: Tensor) -> None:
        self.sums, self.fired = self.sums + sums, self.fired | fired
