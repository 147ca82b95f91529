"""Spectral features: one frame extractor, and a function with its module for each kind."""
