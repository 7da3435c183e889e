"""Learning without backpropagation: rules that need no graph, and where they are exact.

What an update costs is in `neuroconv.learning.cost`, which needs the counters too.
"""

from neuroconv.learning.backprop import Backprop
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
    "Hebbian", "LocalGradient", "NotLocal", "PerceptronRule", "Rule", "logistic_error",
    "make_rule", "softmax_error", "squared_error", "threshold_error",
]  # fmt: skip
