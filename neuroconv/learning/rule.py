"""Learning rules: what each leaves in `.grad` of the parameters that it trains.

A rule takes autograd's place. It runs a model on a batch and adds an update of each parameter to
its `.grad`, in the sense of a gradient: an optimiser of torch subtracts it. Nothing is recorded for
a backward pass, so that a rule works under `torch.inference_mode()`, and with single samples. It
keeps what its docstring names from the forward pass until the next one.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuroconv.core.checks import expected_one_of

Error = Callable[[Tensor, Tensor], Tensor]


class NotLocal(ValueError):
    """A network whose structure does not allow a rule; the message says which part and why."""


def softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the gradient of the cross entropy of each sample: probability less target (B, K)."""
    return logits.softmax(1) - nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the gradient of half the sum of squares of each sample: output less target (B, K)."""
    return outputs - targets


def logistic_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the gradient of the binary cross entropy of each output, for targets 0 and 1 (B, K).

    Outputs are independent questions, and not classes of one.
    """
    return logits.sigmoid() - targets


def threshold_error(potentials: Tensor, labels: Tensor) -> Tensor:
    """Returns the error of threshold units, which fire above zero: 1 where a unit fires and should
    not, -1 where it should and does not, else 0 (B, K)."""
    targets = nn.functional.one_hot(labels, potentials.shape[1])
    return ((potentials > 0).to(targets.dtype) - targets).to(potentials.dtype)


class Rule:
    """A learning rule of a model.

    A rule sets `requires_grad` of what it does not train to False, and leaves it so: before another
    rule or autograd trains the same model, set it to True again. What is frozen is parameters:
    in training mode batch norms still use the batch's statistics and move their running ones, and
    dropout draws, so that a sample's update depends on its batch. After `model.eval()` it does not.

    Args:
        model: a network of the zoo, or of its structure.
        error: maps (outputs, targets) to the error of each output (B, K), the gradient of each
            sample's loss: `softmax_error`, `logistic_error`, `squared_error` or `threshold_error`.

    Raises:
        NotLocal: a network whose structure does not allow the rule.
    """

    name: ClassVar[str]

    def __init__(self, model: nn.Module, *, error: Error = softmax_error) -> None:
        self.model, self.error = model, error
        trained = {id(parameter) for parameter in self.trained()}
        if not trained:
            raise NotLocal(f"{self.name}: {type(model).__name__} has no parameter that it trains")
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)

    def trained(self) -> Iterable[nn.Parameter]:
        """Returns the parameters that the rule trains."""
        raise NotImplementedError

    @property
    def teaching_signals(self) -> int:
        """The number of values that bring a cell or a unit its error, for each sample."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, inputs: Tensor, targets: Tensor, weight: float = 1.0) -> Tensor:
        """Returns the outputs (B, K), and adds the update of the batch's mean loss to `.grad`.

        Args:
            weight: a factor of the update.
        """
        outputs = self.forward(inputs)
        self.learn(self.error(outputs, targets), weight / len(outputs))
        return outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the outputs (B, K), and keeps what `learn` needs."""
        raise NotImplementedError

    def learn(self, error: Tensor, scale: float) -> None:
        """Adds the sum over the samples of their updates, for an error (B, K), times `scale`."""
        raise NotImplementedError


def add_to_gradient(parameter: Tensor | None, update: Tensor) -> None:
    """Adds an update to `.grad` of a parameter that is trained."""
    if parameter is None or not parameter.requires_grad:
        return
    if parameter.grad is None:
        # Outside of inference mode, else an optimiser or clipping could not change it in place.
        with torch.inference_mode(False):
            parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(update.detach())


RULES: dict[str, type[Rule]] = {}


def register_rule(kind: type[Rule]) -> type[Rule]:
    """Adds a rule under its name, as a decorator."""
    RULES[kind.name] = kind
    return kind


def make_rule(model: nn.Module, name: str, **options: Any) -> Rule:
    """Returns a rule of `RULES` for a model; the rule's docstring explains its options.

    Raises:
        ValueError: an unknown rule, or a value that an option does not take.
        NotLocal: a network whose structure does not allow the rule.
        TypeError: an unknown option.
    """
    if name not in RULES:
        raise ValueError(f"rule = {name!r}: {expected_one_of(name, RULES)}")
    return RULES[name](model, **options)
