"""The essay's claims as experiments: fixed beforehand, run, recorded, and given a verdict.

`neuroconv.essay.page`, which writes the page, is not imported here: it needs templates.
"""

from neuroconv.essay.claim import Claim, Interval, Quantity, read_claim, verdict
from neuroconv.essay.experiment import Experiment, Rows

__all__ = ["Claim", "Experiment", "Interval", "Quantity", "Rows", "read_claim", "verdict"]
