"""Results of segmenting, and the files they can be written to."""

from pacl.results.segmentation import FORMATS, Segmentation

__all__ = ["FORMATS", "Segmentation"]
