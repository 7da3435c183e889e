"""The essay's facts and what speaks for and against them."""
