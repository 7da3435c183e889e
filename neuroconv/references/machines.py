"""Publications and lists on computers: records, growth, clusters."""

from neuroconv.references.reference import Reference

MACHINES: tuple[Reference, ...] = ()
