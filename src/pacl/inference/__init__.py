"""Dense inference: windows, upsampling, labelling, refinement."""
