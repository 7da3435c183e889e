"""Publications on what arithmetic and memory cost in energy."""

from neuroconv.references.reference import Reference

ENERGY: tuple[Reference, ...] = ()
