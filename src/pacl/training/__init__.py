"""Training: the loop, its objectives, its checkpoints, and what a step is fed with."""
