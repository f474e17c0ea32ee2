"""Benchmark data sets, in their official layouts."""
