"""Errors sent back through fixed random weights in the place of the transposed forward weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import Seed, checked
from neuroconv.learning.rule import NotLocal, Rule, add_to_gradient, register_rule
from neuroconv.zoo import StillNet

# The derivative of each nonlinearity as a function of its output.
_SLOPES: dict[type[nn.Module], Any] = {
    nn.ReLU: lambda out: (out > 0).to(out.dtype),
    nn.Tanh: lambda out: 1 - out.square(),
    nn.Sigmoid: lambda out: out * (1 - out),
}


@checked
class _Feedback(Rule):
    """A chain of linear layers and nonlinearities, whose hidden units learn from feedback weights.

    It keeps the output of each layer from `forward` to `learn`: memory grows with depth, as in
    backpropagation.

    Args:
        model: a `StillNet` of nn.Flatten, nn.Linear and pointwise nonlinearities: `mlp` and
            `linear` of the zoo.
        seed: of the feedback weights. They are uniform within signals^-0.5 on either side, as the
            weights of an nn.Linear that receives those signals, and stay as they are, on the
            model's device and in its precision when the rule is made.
        options: of `Rule`.

    Attributes:
        feedback: the feedback weights of each hidden layer, (signals, units); no parameters.

    Raises:
        NotLocal: a network with other layers.
    """

    def __init__(self, model: nn.Module, *, seed: Seed = 0, **options: Any) -> None:
        network = model.network if isinstance(model, StillNet) else None
        self.layers: list[Any] = [*network] if isinstance(network, nn.Sequential) else []
        allowed = (nn.Flatten, nn.Linear, *_SLOPES)
        others = {type(layer).__name__ for layer in self.layers if type(layer) not in allowed}
        if others or not self.layers or type(self.layers[-1]) is not nn.Linear:
            text = f"has {', '.join(sorted(others))}" if others else "is no chain of linear layers"
            raise NotLocal(
                f"{self.name}: {type(model).__name__} {text}; expected nn.Linear and "
                f"{', '.join(kind.__name__ for kind in _SLOPES)} alone, as in mlp"
            )
        self.linear = [n for n, layer in enumerate(self.layers) if type(layer) is nn.Linear]
        generator = torch.Generator().manual_seed(seed)
        self.feedback = [self._draw(layer, generator) for layer in self._feedback_shapes()]
        super().__init__(model, **options)

    def _feedback_shapes(self) -> list[tuple[int, int]]:
        """Returns the shape (signals, units) of each hidden layer's feedback weights."""
        raise NotImplementedError

    def _draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        like = self.layers[self.linear[0]].weight
        bound = shape[0] ** -0.5
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        return (drawn * bound).to(like)

    def trained(self) -> Iterable[nn.Parameter]:
        return [p for n in self.linear for p in self.layers[n].parameters() if p.requires_grad]

    @property
    def teaching_signals(self) -> int:
        return sum(self.layers[n].out_features for n in self.linear)

    def forward(self, inputs: Tensor) -> Tensor:
        """Runs the chain and keeps the output of each layer."""
        network: Any = self.model
        values = network._as_channels(inputs)
        self._values = [values]
        for layer in self.layers:
            values = layer(values)
            self._values.append(values)
        return values

    def _update(self, number: int, error: Tensor) -> None:
        """Adds the update of a linear layer, from the error of its units."""
        layer = self.layers[number]
        add_to_gradient(layer.weight, error.t() @ self._values[number])
        add_to_gradient(layer.bias, error.sum(0))

    def _slope(self, number: int) -> Tensor | float:
        """Returns the derivative of all that is between a linear layer and the next one."""
        slope: Tensor | float = 1.0
        for n in range(number + 1, len(self.layers)):
            layer = self.layers[n]
            if type(layer) is nn.Linear:
                break
            if type(layer) in _SLOPES:
                slope = slope * _SLOPES[type(layer)](self._values[n + 1])
        return slope


@register_rule
class FeedbackAlignment(_Feedback):
    """Feedback alignment: as backpropagation, but each layer's error comes back through fixed
    random weights instead of its transposed forward weights (Lillicrap et al. 2016,
    doi:10.1038/ncomms13276)."""

    name = "feedback_alignment"

    def _feedback_shapes(self) -> list[tuple[int, int]]:
        return [tuple(self.layers[n].weight.shape) for n in self.linear[1:]]

    def learn(self, error: Tensor, scale: float) -> None:
        error = error * scale
        for number, above in zip(self.linear[::-1], [None, *self.feedback[::-1]], strict=True):
            if above is not None:
                error = (error @ above) * self._slope(number)
            self._update(number, error)


@register_rule
class DirectFeedback(_Feedback):
    """Direct feedback alignment: the error of the outputs reaches each hidden layer at once,
    through fixed random weights of its own (Nokland 2016, arXiv:1609.01596)."""

    name = "direct_feedback"

    def _feedback_shapes(self) -> list[tuple[int, int]]:
        classes = self.layers[self.linear[-1]].out_features
        return [(classes, self.layers[n].out_features) for n in self.linear[:-1]]

    def learn(self, error: Tensor, scale: float) -> None:
        error = error * scale
        self._update(self.linear[-1], error)
        for number, feedback in zip(self.linear, self.feedback, strict=False):
            self._update(number, (error @ feedback) * self._slope(number))
