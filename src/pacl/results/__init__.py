"""Results of segmenting, and the files they can be written to."""

from pacl.results.segmentation import Segmentation
from pacl.results.writers import FORMATS

__all__ = ["FORMATS", "Segmentation"]
