"""Discrete units of speech: made by an encoder and a quantiser, kept on disk, handed to training as labels."""
