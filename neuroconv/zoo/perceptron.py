"""The perceptron: threshold units with the perceptron's rule."""

from math import prod

import torch
from torch import Tensor, nn

from neuroconv.core.arguments import ImageShape, Size, checked
from neuroconv.zoo.baselines import GREY, StillNet
from neuroconv.zoo.registry import register_model


@checked
class Perceptron(StillNet):
    """Threshold units, one for each class: a unit fires where its potential is above zero.

    Of several units the class is that of the highest potential; these are the logits.

    Shape:
        (B, C, H, W) or (B, C, T, H, W) with T = time_steps -> potentials (B, classes)
    """

    def training_loss(self, potentials: Tensor, labels: Tensor) -> Tensor:
        """Returns the perceptron criterion: the potentials of wrong units, as errors, added up.

        The mean over the batch. With fires y and targets t, 0 or 1, its gradient is (y - t) x:
        gradient descent is the perceptron's rule, w += learning_rate * (t - y) x.

        Shape:
            potentials (B, classes), labels (B,) -> a scalar
        """
        fires = potentials.detach() > 0
        targets = labels.unsqueeze(1) == torch.arange(potentials.shape[1], device=labels.device)
        errors = fires.to(potentials.dtype) - targets.to(potentials.dtype)
        return (errors * potentials).sum(1).mean()


@register_model
def perceptron(
    *, image_shape: ImageShape = GREY, num_classes: Size = 10, time_steps: Size = 1
) -> Perceptron:
    """The McCulloch-Pitts threshold unit, one for each class, trained by the perceptron's rule.

    McCulloch and Pitts, "A logical calculus of the ideas immanent in nervous activity", Bulletin of
    Mathematical Biophysics 5:115-133, 1943 (doi:10.1007/BF02478259); Rosenblatt, "The perceptron",
    Psychological Review 65(6):386-408, 1958 (doi:10.1037/h0042519). It brings its own loss, whose
    gradient is the rule: plain gradient descent (optimizer = "sgd", momentum = 0, weight_decay = 0)
    follows it, AdamW does not. Weights begin at zero; their number is that of `linear`.
    """
    units = nn.Linear(time_steps * prod(image_shape), num_classes)
    nn.init.zeros_(units.weight)
    nn.init.zeros_(units.bias)
    return Perceptron(nn.Sequential(nn.Flatten(), units), time_steps, image_shape)
