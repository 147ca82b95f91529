"""Building blocks of networks: batch-invariant by construction, lengths in, masks inside."""
