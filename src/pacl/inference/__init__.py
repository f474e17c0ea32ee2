"""Dense inference: windows, labelling, refinement."""
