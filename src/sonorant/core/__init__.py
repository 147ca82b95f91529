"""Level 0: types, lengths, configurations, checkpoints, seeds, errors. Knows nothing of speech."""
