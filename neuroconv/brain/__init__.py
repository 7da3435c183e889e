"""The essay's estimate of the brain, from the modules' own counts, and what speaks against it."""
