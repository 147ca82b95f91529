"""Augmentations: `Batch -> Batch`, drawn per item from the batch's seeds, with labels and times kept right."""
