"""Scoring a model on data sets: one protocol, one runner, one record for every task."""
