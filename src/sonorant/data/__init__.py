"""Corpora, checks, batches: everything between files on a disk and tensors, on lhotse."""
