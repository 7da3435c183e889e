"""Publications on whole brains: their numbers, and estimates of what they compute."""

from neuroconv.references.reference import Reference

BRAINS: tuple[Reference, ...] = ()
