"""Sonorant: one speech toolkit, from a waveform to a served model."""

__version__ = "0.1.0"
