"""Quantisers: vectors to indices and back, and k-means over a stream."""
