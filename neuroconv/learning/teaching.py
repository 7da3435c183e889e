"""Rules by which one teaching signal for each cell trains what that cell reads."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import NonNegative, Positive, Size, checked
from neuroconv.learning.population import LocalGradient
from neuroconv.learning.rule import (
    Error,
    NotLocal,
    Rule,
    add_to_gradient,
    register_rule,
    softmax_error,
    threshold_error,
)
from neuroconv.zoo import PurkinjeClassifier
from neuroconv.zoo.circuit import complex_spike_rate
from neuroconv.zoo.registry import ImageNetwork

Signal = Literal["error", "rate", "spikes"]


@register_rule
@checked
class ClimbingFibre(Rule):
    """One climbing fibre a Purkinje cell: one number, the cell's error, for all its synapses.

    An error above zero depresses the synapses of the parallel fibres that were active at open
    dendrites, one below zero strengthens them. The cell inhibits the nucleus of its class: the
    error is above zero where the class is right and its logit too low. With the error itself as
    the signal the update is the exact gradient. In a window of several steps a synapse keeps a
    trace of what was active until the signal comes, at the window's end. Between `forward` and
    `learn` the rule keeps the presynaptic activity and which dendrites and somata are open.

    Args:
        signal: "error" is the cell's error, of either sign, in logits. "rate" is the complex spikes
            per second by which a climbing fibre can carry it: `resting_rate`, and `gain` times the
            class's error, which is from -1 to 1 under softmax; not below zero. Synapses learn from
            the difference to rest. "spikes" is a Poisson number of complex spikes at that rate in
            `window_s` seconds, drawn by torch's generator: with `gain` up to `resting_rate` an
            unbiased estimate of the gradient.
        resting_rate: complex spikes per second without an error; 1 in the awake rat (Lang et al.
            1999, abstract, doi:10.1523/JNEUROSCI.19-07-02728.1999).
        gain: spikes per second that an error of 1 adds. Above `resting_rate` errors near -1 are cut
            off, since a rate is not negative.
        window_s: seconds in which complex spikes are counted.
        eligibility: the last steps of the window, of whose firing a synapse still has a trace when
            the signal comes; None for all. With fewer than the window's the update is no gradient.
        error: as in `Rule`.

    Raises:
        NotLocal: another network than a `PurkinjeClassifier`, or cells whose gradient is not local.
    """

    name = "climbing_fibre"

    def __init__(
        self,
        model: nn.Module,
        *,
        signal: Signal = "error",
        resting_rate: NonNegative = 1.0,
        gain: Positive = 1.0,
        window_s: Positive = 1.0,
        eligibility: Size | None = None,
        error: Error = softmax_error,
    ) -> None:
        if not isinstance(model, PurkinjeClassifier) or not hasattr(model.classifier, "to_cells"):
            raise NotLocal(
                f"{self.name}: {type(model).__name__} has no cells that know their error, since "
                "trained weights follow them; expected a purkinje_classifier, whose cells project "
                "to the classes by fixed signs"
            )
        self.network, self.cells = model, LocalGradient(model.purkinje)
        self.signal, self.eligibility = signal, eligibility
        self.resting_rate, self.gain, self.window_s = resting_rate, gain, window_s
        super().__init__(model, error=error)

    def trained(self) -> Iterable[nn.Parameter]:
        return self.cells.parameters()

    @property
    def teaching_signals(self) -> int:
        return self.network.purkinje.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classify(self.network.parallel_fibres(inputs))

    def classify(self, fibres: Tensor) -> Tensor:
        """Returns the outputs of Purkinje cells that receive parallel fibres (B, F, T)."""
        rates = self.cells.forward(fibres)
        self.steps = rates.shape[2]
        return self.network.classifier(rates.mean(2))

    def learn(self, error: Tensor, scale: float) -> None:
        signal = self.climbing_signal(self.network.classifier.to_cells(error))
        trace = (signal * (scale / self.steps)).unsqueeze(2).repeat(1, 1, self.steps)
        if self.eligibility is not None:
            trace[..., : -self.eligibility] = 0
        self.cells.backward(trace)

    def climbing_signal(self, error: Tensor) -> Tensor:
        """Returns the cells' errors (B, N), in logits, as their climbing fibres carry them."""
        if self.signal == "error":
            return error
        readout = self.network.classifier.gain
        rates = complex_spike_rate(error, self.resting_rate, self.gain / readout)
        if self.signal == "spikes":
            rates = torch.poisson(rates * self.window_s) / self.window_s
        return (rates - self.resting_rate) * (readout / self.gain)


def classifier_of(model: nn.Module, rule: str) -> nn.Linear:
    """Returns the last layer of a network; NotLocal if it is not linear, or not known."""
    layer = model.get_classifier() if isinstance(model, ImageNetwork) else None
    if not isinstance(layer, nn.Linear):
        raise NotLocal(
            f"{rule}: the last layer of {type(model).__name__} is a {type(layer).__name__}; "
            "expected a network of the zoo that ends in nn.Linear"
        )
    return layer


@register_rule
class Delta(Rule):
    """The delta rule on frozen features: the error of a class times the activity of a feature.

    It trains the last linear layer, of which it is the exact gradient, and nothing before it. It
    keeps that layer's inputs from `forward` to `learn`. Norms and dropout before it: see `Rule`.
    """

    name = "delta"

    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.layer = classifier_of(model, self.name)
        super().__init__(model, **options)

    def trained(self) -> Iterable[nn.Parameter]:
        return [p for p in self.layer.parameters() if p.requires_grad]

    @property
    def teaching_signals(self) -> int:
        return self.layer.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        network: Any = self.model
        self._features = network.forward_head(network.forward_features(inputs), pre_logits=True)
        return self.layer(self._features)

    def learn(self, error: Tensor, scale: float) -> None:
        error = error * scale
        add_to_gradient(self.layer.weight, error.t() @ self._features)
        add_to_gradient(self.layer.bias, error.sum(0))


@register_rule
class PerceptronRule(Delta):
    """The perceptron's rule on the last layer: its units fire above zero, and a unit that is wrong
    has the features subtracted from its weights, or added where it should have fired (Rosenblatt
    1958, doi:10.1037/h0042519). On the zoo's `perceptron` it is that network's own loss's gradient.
    """

    name = "perceptron"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, error=threshold_error)
