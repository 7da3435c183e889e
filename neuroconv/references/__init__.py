"""Where numbers come from: publications, and the places in them that numbers name."""

from neuroconv.references.reference import Reference
from neuroconv.references.source import OWN, REFERENCES, Source

__all__ = ["OWN", "REFERENCES", "Reference", "Source"]
