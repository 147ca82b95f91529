"""Text: normalisation, tokenisers, lexicons. Strings in, integers out; no tensors."""
