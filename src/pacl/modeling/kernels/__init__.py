"""Three implementations of the compatibility: one signature, the same numbers."""
