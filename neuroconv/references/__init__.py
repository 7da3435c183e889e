"""Sources of numbers: publications, and the pages, tables and figures that numbers cite."""

from neuroconv.references.reference import REFERENCES, Reference, read_references
from neuroconv.references.source import UNPUBLISHED, Source

__all__ = ["REFERENCES", "UNPUBLISHED", "Reference", "Source", "read_references"]
