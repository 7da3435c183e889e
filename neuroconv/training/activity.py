"""Firing rates and sparsity of the neurons in a model, while it is evaluated.

Shapes: B batch, N neurons, T time steps.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuroconv.layers import FiringRate
from neuroconv.training.distributed import Ranks


class ActivityMonitor:
    """Inside the context, watches every population of a model where its rates arise.

    A model without neurons has nothing to watch. Climbing fibres are asked what they would carry:
    a model that has them has a method complex_spikes(logits, labels).

    Args:
        model: any module; its neurons are found by their `FiringRate`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._counts: dict[str, _Count] = {}
        self._handles: list[RemovableHandle] = []
        self._spikes: Any = 0.0  # sums stay on the device until they are asked for
        self._images = 0

    def __enter__(self) -> Self:
        for path, module in self.model.named_modules():
            if isinstance(module, FiringRate):
                count = self._counts.setdefault(path.rpartition(".")[0], _Count())
                self._handles.append(module.register_forward_hook(count))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def errors(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the climbing fibres' answer to a batch, if the model has any."""
        complex_spikes = getattr(self.model, "complex_spikes", None)
        if complex_spikes is not None:
            rate = complex_spikes(logits.detach(), labels)
            self._spikes = self._spikes + rate.mean().double() * len(labels)
            self._images += len(labels)

    def join(self, ranks: Ranks) -> None:
        """Takes in what the monitors of all processes saw: each then sums up the whole."""
        own = {
            path: count.on_cpu() for path, count in self._counts.items() if count.fired is not None
        }
        parts = ranks.gather((own, float(self._spikes), self._images))
        self._spikes, self._images = sum(part[1] for part in parts), sum(part[2] for part in parts)
        self._counts = {}
        for counts, _, _ in parts:
            for path, count in counts.items():
                known = self._counts.get(path)
                self._counts[path] = count if known is None else known + count

    def summary(self) -> dict[str, dict[str, float]]:
        """By path of the population, over all that was seen.

        mean_rate: of all neurons, steps and images, in the network's own units.
        active_share: the share of neurons x steps x images with a rate above zero.
        silent_share: the share of neurons that never fired.
        Of "climbing_fibres": complex_spikes_per_second, their mean.
        """
        summary = {
            path: count.summary() for path, count in self._counts.items() if count.fired is not None
        }
        if self._images:
            summary["climbing_fibres"] = {
                "complex_spikes_per_second": float(self._spikes) / self._images
            }
        return summary


@dataclass
class _Count:
    """Sums over the rates (B, N, T, ...) of one population.

    Tensors on its device, until they are asked for: torch.compile takes a number for a constant,
    and would compile a model anew whenever one in a hook has changed.
    """

    values: Any = 0
    total: Any = 0.0
    active: Any = 0
    fired: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, rate: Tensor) -> None:
        rate = rate.detach()  # also where the caller keeps gradients
        firing = rate > 0
        fired = firing.any(2).any(0) if rate.dim() > 2 else firing.any(0)
        if self.fired is None:
            self.fired = torch.zeros_like(fired)
            self.values = self.active = torch.zeros((), dtype=torch.int64, device=rate.device)
            self.total = torch.zeros((), dtype=torch.float64, device=rate.device)
        self.values = self.values + rate.numel()
        self.total = self.total + rate.sum(dtype=torch.float64)
        self.active = self.active + firing.sum()
        self.fired = self.fired | fired

    @property
    def seen(self) -> bool:
        return self.fired is not None

    def on_cpu(self) -> "_Count":
        assert self.fired is not None
        return _Count(int(self.values), float(self.total), int(self.active), self.fired.cpu())

    def __add__(self, other: "_Count") -> "_Count":
        assert self.fired is not None
        assert other.fired is not None
        return _Count(
            self.values + other.values,
            self.total + other.total,
            self.active + other.active,
            self.fired | other.fired,
        )

    def summary(self) -> dict[str, float]:
        assert self.fired is not None
        values = int(self.values)
        return {
            "mean_rate": float(self.total) / values,
            "active_share": float(self.active) / values,
            "silent_share": 1 - float(self.fired.double().mean()),
        }


def active_shares(activity: dict[str, dict[str, float]]) -> str:
    """One line of text: the populations and the share of them that fires."""
    shares = [
        f"{path or 'neurons'} {part['active_share']:.0%}"
        for path, part in activity.items()
        if "active_share" in part
    ]
    return f"active: {', '.join(shares)}" if shares else ""
