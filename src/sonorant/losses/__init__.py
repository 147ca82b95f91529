"""Losses: tensors in, a `Loss` of sums out."""
