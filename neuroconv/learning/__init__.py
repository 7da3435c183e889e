"""Learning without backpropagation: rules that need no graph, and where they are exact."""

from neuroconv.learning.backprop import Backprop
from neuroconv.learning.cost import LearningCost, learning_cost
from neuroconv.learning.feedback import DirectFeedback, FeedbackAlignment
from neuroconv.learning.hebbian import Hebbian
from neuroconv.learning.population import LocalGradient
from neuroconv.learning.rule import (
    RULES,
    NotLocal,
    Rule,
    logistic_error,
    make_rule,
    softmax_error,
    squared_error,
    threshold_error,
)
from neuroconv.learning.teaching import ClimbingFibre, Delta, PerceptronRule

__all__ = [
    "RULES", "Backprop", "ClimbingFibre", "Delta", "DirectFeedback", "FeedbackAlignment",
    "Hebbian", "LearningCost", "LocalGradient", "NotLocal", "PerceptronRule", "Rule",
    "learning_cost", "logistic_error", "make_rule", "softmax_error", "squared_error",
    "threshold_error",
]  # fmt: skip
