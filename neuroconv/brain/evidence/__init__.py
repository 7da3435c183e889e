"""The essay's facts, and the evidence for and against them."""
