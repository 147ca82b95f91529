"""Metrics: they take arrays and strings, never models."""
