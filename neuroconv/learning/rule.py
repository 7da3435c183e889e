"""Learning rules: what each leaves in `.grad` of the parameters that it trains.

A rule takes autograd's place. It runs a model on a batch and adds an update of each parameter to
its `.grad`, in the sense of a gradient: an optimiser of torch subtracts it. Nothing is recorded for
a backward pass, so that a rule works under `torch.inference_mode()`, and with single samples.
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


class Rule:
    """A learning rule of a model.

    Args:
        model: a network of the zoo, or of its structure. What the rule does not train it freezes:
            `requires_grad` becomes False.
        error: maps (outputs, targets) to the error of each output (B, K), the gradient of the loss
            of each sample: `softmax_error`, `logistic_error` or `squared_error`.

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
        """The number of values for each sample that tell a cell or a unit its error."""
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
        parameter.grad = update.to(parameter.dtype)
    else:
        parameter.grad += update


RULES: dict[str, type[Rule]] = {}


def register_rule(kind: type[Rule]) -> type[Rule]:
    """Adds a rule under its name, as a decorator."""
    RULES[kind.name] = kind
    return kind


def make_rule(model: nn.Module, name: str, **options: Any) -> Rule:
    """Returns a rule of `RULES` for a model; the rule's docstring explains its options.

    Raises:
        ValueError: an unknown rule, or an option's value; `NotLocal`, a network that does not
            allow it.
        TypeError: an unknown option.
    """
    if name not in RULES:
        raise ValueError(f"rule = {name!r}: {expected_one_of(name, RULES)}")
    return RULES[name](model, **options)
