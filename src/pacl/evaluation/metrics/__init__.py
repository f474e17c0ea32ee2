"""Metrics as pure counts: segmentation, classification, coherence, bootstrap intervals."""
