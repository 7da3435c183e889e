"""Where numbers come from: publications, and the places in them that numbers name."""

from neuroconv.references.reference import REFERENCES, Reference, read_references
from neuroconv.references.source import UNPUBLISHED, Source

__all__ = ["REFERENCES", "UNPUBLISHED", "Reference", "Source", "read_references"]
