"""The built-in corpus: speech and sounds that are pure functions of a seed."""
